"""Near-neighbour terms: how the first shells of a real dot differ from a lattice of independent atoms.

Neighbours move together, so their relative displacement is smaller than B_a + B_b says, and a disordered shell
around the dot adds broad near-neighbour distances. Both add terms of one form to the intensity per atom,

    ΔI(Q) = n_ab f_a f_b sin(Q r)/(Q r) [exp(-(B_a+B_b)(1-c) s²) - exp(-(B_a+B_b) s²)]     correlated motion c
    ΔI(Q) = A n_ab f_a f_b sin(Q r)/(Q r) exp(-B_h s²)                                     disordered shell A

with s = Q/4π and n_ab ordered neighbours per atom in the bulk. On measured PbS patterns these are the largest
corrections of all. Small dots have fewer neighbours; the spread of c and A covers that.

Symbols: q [Å⁻¹], r [Å], a, b kinds of sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpc.structure.material import Material

__all__ = ["CORRELATION_NODES", "NeighbourTerms", "neighbour_terms"]

#: Values of c at which the correlated-motion term is tabulated; between them it is interpolated (error below 1 %).
CORRELATION_NODES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourTerms:
    """Terms of the first shells, per atom."""

    distance: np.ndarray
    """(shell,) float64 [Å]."""
    correlated: np.ndarray
    """(shell, node, q) float64 [electron units per atom], at each of `CORRELATION_NODES`."""
    halo: np.ndarray
    """(shell, q) float64 [electron units per atom], for A = 1."""


def neighbour_terms(
    material: Material,
    q: np.ndarray,
    *,
    energy_kev: float | None,
    anomalous: bool,
    shells: int,
    halo_b: float,
) -> NeighbourTerms:
    """Tabulate the terms of the first shells of a crystal.

    Args:
        material: a cubic crystal.
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV]; needed only with `anomalous`.
        anomalous: f' and f'' by energy.
        shells: how many distances.
        halo_b: Debye-Waller factor of the disordered shell [Å²].

    Raises:
        ValueError: no cubic crystal, or fewer distances than `shells` within two cell edges.
    """
    from hpc.debye import sinc
    from hpc.form_factors import scattering_factor

    found = _shells(material)
    distances = sorted({r for r, _, _ in found})[:shells]
    if len(distances) < shells:
        raise ValueError(
            f"near_neighbours.shells must be <= {len(distances)} for {material.name}, got {shells}"
        )
    kinds = material.kinds
    f = [scattering_factor(kind.element, q, energy_kev=energy_kev, anomalous=anomalous) for kind in kinds]
    s2 = (q / (4 * np.pi)) ** 2
    correlated = np.zeros((shells, len(CORRELATION_NODES), q.size))
    halo = np.zeros((shells, q.size))
    for (r, a, b), number in found.items():
        if r not in distances:
            continue
        shell = distances.index(r)
        term = number * (f[a] * f[b].conj()).real * sinc(q * r)
        b_sum = kinds[a].b_iso + kinds[b].b_iso
        for node, c in enumerate(CORRELATION_NODES):
            correlated[shell, node] += term * (np.exp(-b_sum * (1 - c) * s2) - np.exp(-b_sum * s2))
        halo[shell] += term * np.exp(-halo_b * s2)
    return NeighbourTerms(distance=np.array(distances), correlated=correlated, halo=halo)


def _shells(material: Material) -> dict[tuple[float, int, int], float]:
    """(distance [Å], kind a, kind b) -> ordered occupied pairs per atom of the bulk, within two cell edges."""
    from hpc.structure.lattice_sites import cut_nested_sites
    from hpc.structure.material import equivalent_positions

    edge = material.cell_angstrom[0]
    per_cell = [len(positions) for positions in equivalent_positions(material)]
    atoms = sum(per_cell[k] * kind.occupancy for k, kind in enumerate(material.kinds))
    pairs: dict[tuple[float, int, int], float] = {}
    for a, kind in enumerate(material.kinds):
        sites = cut_nested_sites(material, shape="sphere", centre=kind.label, diameter_max=4 * edge)
        for b, other in enumerate(material.kinds):
            entering = np.diff(sites.offset[b])
            for shell in np.flatnonzero(entering):
                r = round(sites.diameter[shell] / 2, 6)
                if r > 0:
                    number = entering[shell] * per_cell[a] * kind.occupancy * other.occupancy / atoms
                    pairs[r, a, b] = pairs.get((r, a, b), 0.0) + float(number)
    return pairs
