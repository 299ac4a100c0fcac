"""I(Q) of an ensemble of dots from a handful of numbers: what `qd-pattern` prints and `qd-predict` draws.

One call goes the whole way from a variant to the intensity of one ensemble, or of many of one sort of dots: pair
distances are counted, strained and transformed at the asked q, without any stored basis and without interpolation.
Perfect cuts of cubic crystals are exact; other variants keep the tolerance of their sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hpc.device import Device, select_device
from hpc.ensemble import number_weights
from hpc.near_part import crystal_part
from hpc.pairs.families import Sampling, Sizes, count_family, plan_counting
from hpc.radiation import Beam, Particle
from hpc.scattering import PairSums, coefficients
from hpc.structure.material import Material
from hpc.structure.variant import Centre, Shape, Variant
from hpc.transform import partial_sums

__all__ = ["DEFAULT_TAIL", "dot_pattern", "dot_sums"]

#: Fraction of the atoms of an ensemble that may lie beyond the largest particle that is computed.
DEFAULT_TAIL = 1e-6


def dot_pattern(
    dot: Variant | Material,
    *,
    q: np.ndarray,
    diameter_nm: float | np.ndarray,
    sigma: float | np.ndarray = 0.0,
    strain: float | np.ndarray = 0.0,
    energy_kev: float | None = None,
    shape: str | Shape = "sphere",
    centres: Sequence[Centre] | None = None,
    b_scale: float = 1.0,
    anomalous: bool = True,
    particle: Particle = "xray",
    wavelength: float | None = None,
    compton: bool = False,
    per_atom: bool = True,
    tail: float = DEFAULT_TAIL,
    sampling: Sampling | None = None,
    device: Device | None = None,
) -> np.ndarray:
    """Intensity of a lognormal ensemble of dots, or of many whose pairs are counted once.

    Args:
        dot: the sort of dot; a material alone is its perfect cut.
        q: (q,) float64 [Å⁻¹], >= 0.
        diameter_nm: number-mean diameter D [nm] of the unstrained dots; (m,) for many ensembles.
        sigma: relative standard deviation, a number or (m,); 0 is the one particle of diameter D.
        strain: isotropic strain ε, a number or (m,); ensembles of one strain share their table of sines.
        energy_kev: photon energy [keV]; needed with `anomalous`.
        shape: with a material: a name of `hpc.structure.shapes.SHAPES`, or one with its parameters.
        centres: with a material: cut centres to average over; every site that is mostly filled when None.
        b_scale: multiplies every Debye-Waller factor.
        anomalous: f' and f'' by energy; X-rays only.
        particle: "xray" or "neutron".
        wavelength: of neutrons [Å]; needed only where a nucleus has a resonance.
        compton: add incoherent scattering.
        per_atom: intensity per atom; otherwise per (mean) particle.
        tail: fraction of the atoms of an ensemble that may be neglected beyond the largest particle.
        sampling: steps, realisations and seed of particles off the perfect lattice.
        device: where pairs are counted; CPU cores when None.

    Returns:
        (q,) float64 [electron units; fm² for neutrons]; (m, q) for many ensembles.

    Raises:
        ValueError: a size that is not positive, σ < 0, ε <= -1, arrays of different lengths, or unknown material
            data.
    """
    variant = _variant(dot, shape, centres)
    # An unknown element or a missing energy is refused before anything is counted.
    beam: Beam = {
        "energy_kev": energy_kev,
        "anomalous": anomalous,
        "particle": particle,
        "wavelength": wavelength,
    }
    coefficients(variant.material.kinds, np.asarray(q), **beam)
    ensembles = _ensembles(diameter_nm, sigma, strain)
    patterns = np.empty((len(ensembles["diameter_nm"]), len(q)))
    for row, sums in _ensemble_sums(variant, q=q, **ensembles, tail=tail, sampling=sampling, device=device):
        patterns[row] = sums.iq(compton=compton, per_atom=per_atom, b_scale=b_scale, **beam)
    return patterns if np.ndim(diameter_nm) or np.ndim(sigma) or np.ndim(strain) else patterns[0]


def dot_sums(
    variant: Variant,
    *,
    q: np.ndarray,
    diameter_nm: float,
    sigma: float = 0.0,
    strain: float = 0.0,
    tail: float = DEFAULT_TAIL,
    sampling: Sampling | None = None,
    device: Device | None = None,
) -> PairSums:
    """The mean over a lognormal ensemble of dots, before form factors; arguments as in `dot_pattern`.

    Raises:
        ValueError: a size that is not positive, σ < 0 or ε <= -1.
    """
    one = _ensembles(diameter_nm, sigma, strain)
    sums = _ensemble_sums(variant, q=q, **one, tail=tail, sampling=sampling, device=device)
    return next(iter(sums))[1]


def _ensembles(
    diameter_nm: float | np.ndarray, sigma: float | np.ndarray, strain: float | np.ndarray
) -> dict[str, np.ndarray]:
    """(m,) float64 each; a number is that of every ensemble."""
    given = {"diameter_nm": diameter_nm, "sigma": sigma, "strain": strain}
    rows = {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in given.items()}
    lengths = {len(row) for row in rows.values()} - {1}
    if len(lengths) > 1 or 0 in lengths:
        numbers = ", ".join(str(len(row)) for row in rows.values())
        raise ValueError(
            f"diameter_nm, sigma and strain must be numbers or as long as each other, got {numbers} numbers"
        )
    return {name: np.broadcast_to(row, max(lengths, default=1)) for name, row in rows.items()}


def _ensemble_sums(
    variant: Variant,
    *,
    q: np.ndarray,
    diameter_nm: np.ndarray,
    sigma: np.ndarray,
    strain: np.ndarray,
    tail: float,
    sampling: Sampling | None,
    device: Device | None,
) -> Iterator[tuple[int, PairSums]]:
    """(row, sums) of every ensemble, one strain after the other."""
    q = np.asarray(q, dtype=np.float64)
    for name, values, fine, limit in (
        ("diameter_nm", diameter_nm, diameter_nm > 0, "> 0"),
        ("sigma", sigma, sigma >= 0, ">= 0"),
        ("strain", strain, strain > -1, "> -1"),
    ):
        if bad := values[~(fine & np.isfinite(values))].tolist():
            raise ValueError(f"{name} must be {limit}, got {bad[0]}")
    sizes = Sizes(diameter=10 * diameter_nm, sigma=sigma, tail=tail)
    device = device or select_device("cpu")
    counting = plan_counting(
        variant, sizes, q_max=float(q.max()) * (1 + float(strain.max())), device=device, sampling=sampling
    )
    family = count_family(counting, device=device)
    near_pairs = family.near(counting.near_distance) if variant.motion.has_near_part else None
    occupancy = [kind.occupancy for kind in counting.kinds]
    for stretch in np.unique(1 + strain):
        rows = np.flatnonzero(1 + strain == stretch)
        weights = number_weights(family.diameter, sizes.diameter[rows], sizes.sigma[rows])
        # A shell is in the particle with the probability that the particle is at least that large.
        present = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
        n_atoms = present @ family.atoms
        partial = np.stack(
            [partial_sums(present @ table.entering, stretch * table.distance, q) for table in family.pairs],
            axis=1,
        )
        for index, row in enumerate(rows.tolist()):
            near = None
            if near_pairs is not None:
                near = crystal_part(
                    variant.motion,
                    variant.material,
                    counting.kinds,
                    distance=counting.near_distance,
                    pairs=(present[index : index + 1] @ near_pairs)[:, 0],
                    n_atoms=float(n_atoms[index] @ occupancy),
                    strain=strain[row],
                )
            sums = PairSums(
                kinds=counting.kinds,
                n_atoms=n_atoms[index],
                q=q,
                partial=partial[index],
                extent=stretch * counting.extent,
                near=near,
            )
            yield row, sums


def _variant(dot: Variant | Material, shape: str | Shape, centres: Sequence[Centre] | None) -> Variant:
    if isinstance(dot, Variant):
        if shape != "sphere" or centres is not None:
            raise ValueError(
                "shape and centres belong to a material; a variant has its own, in variant.shape"
            )
        return dot
    if isinstance(shape, str):
        shape = Shape(name=shape)
    if centres is not None:
        shape = replace(shape, centres=tuple(centres))
    return Variant(material=dot, shape=shape)
