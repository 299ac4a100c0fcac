"""Debye sums of particles that are given as arrays of atoms: I(Q), S(Q), F(Q), G(r) and partial structure factors.

    import numpy as np
    from hpc.debye import gr, iq
    I = iq(positions, elements, np.linspace(0, 20, 2001), energy_kev=22.0, b_iso={"Pb": 1.3, "S": 1.2})
    G = gr(positions, elements, np.linspace(1, 20, 1901), np.linspace(0, 20, 2001), energy_kev=22.0)

Formulas and normalisation are in `hpc.scattering`. All pairs are counted once by `hpc.pairs.single`; `pair_sums` gives
what all quantities share.

`iq`, `sq`, `fq`, `gr` and `partials` are named like the methods of DebyeCalculator (Johansen et al., J. Open Source
Softw. 9, 6024 (2024)), whose I(Q) is half of this one: it sums each pair once.

Symbols: q [Å⁻¹], r [Å], f [electrons], B [Å²], I [electron units].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpc.near_part import particle_part, shells_of_positions
from hpc.radiation import Particle
from hpc.scattering import PairSums
from hpc.structure.atoms import Atoms, expand_to_kinds, group_sites, make_atoms
from hpc.structure.crystal import REACH
from hpc.structure.variant import Motion

__all__ = [
    "fq",
    "gr",
    "iq",
    "pair_sums",
    "partials",
    "sq",
    "sums_of_atoms",
]

#: (positions by class [(n, 3) Å], q) -> (class pair, n) pairs at (n,) distances [Å]; see `hpc.pairs.single`.
Engine = Callable[[list[np.ndarray], np.ndarray], tuple[np.ndarray, np.ndarray]]


def pair_sums(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    occupancy: float | np.ndarray = 1.0,
    b_iso: float | np.ndarray | Mapping[str, float] = 0.0,
    tolerance: float = 1e-6,
    width: float | None = None,
    threads: int | None = None,
    device: Any = None,
    motion: Motion | None = None,
) -> PairSums:
    """All pairs of a particle that is given by its atoms, before form factors.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        q: (q,) [Å⁻¹], >= 0; at 0 the limit is returned.
        occupancy: probability that an atom is there, in 0 to 1: one number, or (n,). Atoms may share a position when
            theirs add up to at most 1 (mixed sites).
        b_iso: Debye-Waller factor [Å²]: one number, (n,), or by element (0 for those not named).
        tolerance: asked error, relative to I(Q); it decides the width of the bins of distances.
        width: width of those bins [Å] instead.
        threads: CPU threads; all cores of this process when None.
        device: `hpc.device.Device` to count on; the CPU when None.
        motion: how near neighbours move together, and a halo: `hpc.structure.variant.Motion`. Shells of neighbours are
            the particle's own, or `motion.shells`.

    Raises:
        ValueError: bad atoms (see `hpc.structure.atoms`), q that is empty, negative or not finite, a width that is
            too coarse for the tolerance, or more shells than the particle shows.
    """
    from hpc.pairs.single import weights_of_positions

    if isinstance(b_iso, Mapping):
        unknown = sorted(set(b_iso) - {str(element) for element in elements})
        if unknown:
            raise ValueError(f"b_iso: the elements are {sorted({str(e) for e in elements})}, got {unknown}")
        b_iso = np.array([b_iso.get(str(element), 0.0) for element in elements])
    atoms = make_atoms(positions, elements, occupancy=occupancy, b_iso=b_iso)
    return sums_of_atoms(
        atoms,
        q,
        lambda classes, q: weights_of_positions(
            classes, q, tolerance=tolerance, width=width, threads=threads, device=device
        ),
        motion,
    )


def sums_of_atoms(atoms: Atoms, q: np.ndarray, engine: Engine, motion: Motion | None = None) -> PairSums:
    """The same for checked atoms, with any engine that counts the pairs of classes of sites.

    Raises:
        ValueError: atoms too close to each other, too many kinds, q that is empty, negative or not finite, or motion
            that a list of atoms cannot have.
    """
    from hpc.pairs.single import transform_weights

    q = np.asarray(q, dtype=np.float64)
    if q.ndim != 1 or q.size == 0 or not (np.isfinite(q).all() and q.min() >= 0):
        raise ValueError("q must be a list of numbers >= 0 1/Å, at least one")
    if motion is not None and motion.surface_b != 1:
        raise ValueError(
            "motion.surface_b is for dots cut from a crystal, whose bulk says how many neighbours an atom has; give "
            "the atoms of the surface a b_iso of their own"
        )
    sites = group_sites(atoms)
    weights, distance = engine(list(sites.positions), q)
    near = None
    if motion is not None and motion.has_near_part:
        n_shell = max(len(motion.correlation), len(motion.halo))
        nodes = np.array(motion.shells)
        if n_shell and not motion.shells:
            nodes = shells_of_positions(atoms.position, n_shell + 1)
        inside = distance < REACH
        near = particle_part(
            motion, nodes, distance=distance[inside], pairs=expand_to_kinds(weights[:, inside], sites)
        )
    return PairSums(
        kinds=sites.kinds,
        n_atoms=sites.n_atoms,
        q=q,
        partial=expand_to_kinds(transform_weights(weights, distance, q), sites),
        extent=float(np.linalg.norm(np.ptp(atoms.position, axis=0))),
        near=near,
    )


def iq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
    compton: bool = False,
    per_atom: bool = False,
    **sums: Any,
) -> np.ndarray:
    """Intensity I(Q) of a particle given by its atoms.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        q: (q,) [Å⁻¹].
        energy_kev: photon energy [keV]; needed with `anomalous`.
        anomalous: f' and f'' by energy; X-rays only.
        particle: "xray" or "neutron".
        wavelength: of neutrons [Å]; needed only where a nucleus has a resonance.
        compton: add incoherent scattering.
        per_atom: divide by the number of atoms Σ o.
        **sums: occupancy, b_iso, tolerance, width, threads, device, motion of `pair_sums`.

    Returns:
        (q,) float64 [electron units; fm² for neutrons].

    Raises:
        ValueError: bad atoms, no energy, or q outside the tables.
    """
    return pair_sums(positions, elements, q, **sums).iq(
        energy_kev=energy_kev,
        anomalous=anomalous,
        particle=particle,
        wavelength=wavelength,
        compton=compton,
        per_atom=per_atom,
    )


def sq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
    **sums: Any,
) -> np.ndarray:
    """(q,) float64: total-scattering structure factor S(Q); arguments as in `iq`."""
    return pair_sums(positions, elements, q, **sums).sq(
        energy_kev=energy_kev, anomalous=anomalous, particle=particle, wavelength=wavelength
    )


def fq(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
    **sums: Any,
) -> np.ndarray:
    """(q,) float64 [Å⁻¹]: reduced structure function F(Q) = Q [S(Q) - 1]; arguments as in `iq`."""
    return pair_sums(positions, elements, q, **sums).fq(
        energy_kev=energy_kev, anomalous=anomalous, particle=particle, wavelength=wavelength
    )


def gr(
    positions: np.ndarray,
    elements: Sequence[str] | np.ndarray,
    r: np.ndarray,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
    lorch: bool = False,
    **sums: Any,
) -> np.ndarray:
    """Reduced pair distribution function G(r), transformed over the range of q.

    Args:
        positions: (n, 3) [Å].
        elements: (n,) chemical symbols.
        r: (r,) [Å].
        q: (q,) [Å⁻¹], uniform; its ends are those of the integral.
        energy_kev: photon energy [keV]; needed with `anomalous`.
        anomalous: f' and f'' by energy; X-rays only.
        particle: "xray" or "neutron".
        wavelength: of neutrons [Å]; needed only where a nucleus has a resonance.
        lorch: multiply F(Q) by sin(πQ/Q_max)/(πQ/Q_max).
        **sums: occupancy, b_iso, tolerance, width, threads, device, motion of `pair_sums`.

    Returns:
        (r,) float64 [Å⁻²].

    Raises:
        ValueError: bad atoms, no energy, q that is not uniform or too coarse for the particle.
    """
    return pair_sums(positions, elements, q, **sums).gr(
        r, energy_kev=energy_kev, anomalous=anomalous, particle=particle, wavelength=wavelength, lorch=lorch
    )


def partials(
    positions: np.ndarray, elements: Sequence[str] | np.ndarray, q: np.ndarray, **sums: Any
) -> dict[tuple[str, str], np.ndarray]:
    """Elements in alphabetical order -> (q,) float64: Faber-Ziman partial structure factors; arguments as in `iq`."""
    return pair_sums(positions, elements, q, **sums).partials()
