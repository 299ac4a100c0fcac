"""I(Q) of an ensemble of dots from a handful of numbers: what `qd-pattern` prints and `qd-predict` draws.

One call goes the whole way from material to intensity, exactly: pair distances are counted, strained and transformed
at the asked q, without any stored basis and without interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hpc.crystal import NestedSites, cut_nested_sites
from hpc.debye import coefficients, intensity, partial_sums
from hpc.ensemble import largest_diameter, number_weights
from hpc.material import Material
from hpc.nested import NestedFamily, average_over_centres, count_pairs

__all__ = ["DEFAULT_TAIL", "count_family", "dot_pattern"]

#: Fraction of the atoms of an ensemble that may lie beyond the largest particle that is computed.
DEFAULT_TAIL = 1e-6

Centre = str | Sequence[float]


def count_family(
    material: Material,
    *,
    shape: str = "sphere",
    centres: Sequence[Centre] | None = None,
    diameter_max: float,
    count: Callable[[NestedSites], np.ndarray] = count_pairs,
) -> NestedFamily:
    """Count the pairs of every particle up to a diameter.

    Args:
        material: a cubic crystal.
        shape: a name of `hpc.crystal.SHAPES`.
        centres: cut centres to average over; every site label of the material when None.
        diameter_max: diameter of the largest particle [Å].
        count: the counting routine: `hpc.nested.count_pairs` or its CUDA twin.
    """
    sites = [
        cut_nested_sites(material, shape=shape, centre=centre, diameter_max=diameter_max)
        for centre in (material.labels if centres is None else centres)
    ]
    return average_over_centres(sites, [count(one) for one in sites])


def dot_pattern(
    material: Material,
    *,
    q: np.ndarray,
    diameter_nm: float,
    sigma: float = 0.0,
    strain: float = 0.0,
    energy_kev: float | None = None,
    shape: str = "sphere",
    centres: Sequence[Centre] | None = None,
    b_scale: float = 1.0,
    anomalous: bool = True,
    compton: bool = False,
    per_atom: bool = True,
    tail: float = DEFAULT_TAIL,
) -> np.ndarray:
    """Intensity of a lognormal ensemble of dots.

    Args:
        material: a cubic crystal.
        q: (q,) float64 [Å⁻¹], >= 0.
        diameter_nm: number-mean diameter D [nm] of the unstrained dots.
        sigma: relative standard deviation; 0 is the one particle of diameter D.
        strain: isotropic strain ε.
        energy_kev: photon energy [keV]; needed with `anomalous`.
        shape: a name of `hpc.crystal.SHAPES`.
        centres: cut centres to average over; every site label when None.
        b_scale: multiplies every Debye-Waller factor.
        anomalous: f' and f'' by energy.
        compton: add incoherent scattering.
        per_atom: electron units per atom; otherwise per (mean) particle.
        tail: fraction of the atoms that may be neglected beyond the largest particle.

    Returns:
        (q,) float64 [electron units].

    Raises:
        ValueError: a size that is not positive, σ < 0, ε <= -1, or unknown material data.
    """
    q = np.asarray(q, dtype=np.float64)
    if not (np.isfinite(diameter_nm) and diameter_nm > 0):
        raise ValueError(f"diameter_nm must be > 0, got {diameter_nm}")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    if not (np.isfinite(strain) and strain > -1):
        raise ValueError(f"strain must be > -1, got {strain}")
    diameter, spread = np.array([10 * diameter_nm]), np.array([sigma])
    terms = coefficients(material.kinds, q, energy_kev=energy_kev, anomalous=anomalous, with_compton=compton)
    family = count_family(
        material, shape=shape, centres=centres, diameter_max=largest_diameter(diameter, spread, tail=tail)
    )
    weights = number_weights(family.diameter, diameter, spread)
    # A shell is in the particle with the probability that the particle is at least that large.
    present = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    n_atoms = present @ family.atoms
    partial = [
        partial_sums(present @ table.entering, (1 + strain) * table.distance, q) for table in family.pairs
    ]
    total = intensity(partial, n_atoms, terms.pair(b_scale), terms.self)[0]
    occupied = float(n_atoms[0] @ [kind.occupancy for kind in material.kinds])
    return total / occupied if per_atom else total
