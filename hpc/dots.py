"""I(Q) of an ensemble of dots from a handful of numbers: what `qd-pattern` prints and `qd-predict` draws.

One call goes the whole way from a variant to the intensity: pair distances are counted, strained and transformed at the
asked q, without any stored basis and without interpolation. Perfect cuts of cubic crystals are exact; other variants
keep the tolerance of their sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpc.debye import PairSums, coefficients, partial_sums
from hpc.device import Device, select_device
from hpc.ensemble import number_weights
from hpc.near_part import crystal_part
from hpc.pairs.families import Sampling, Sizes, count_family, plan_counting
from hpc.radiation import Beam, Particle
from hpc.structure.material import Material
from hpc.structure.variant import Centre, Shape, Variant

__all__ = ["DEFAULT_TAIL", "dot_pattern", "dot_sums"]

#: Fraction of the atoms of an ensemble that may lie beyond the largest particle that is computed.
DEFAULT_TAIL = 1e-6


def dot_pattern(
    dot: Variant | Material,
    *,
    q: np.ndarray,
    diameter_nm: float,
    sigma: float = 0.0,
    strain: float = 0.0,
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
    """Intensity of a lognormal ensemble of dots.

    Args:
        dot: the sort of dot; a material alone is its perfect cut.
        q: (q,) float64 [Å⁻¹], >= 0.
        diameter_nm: number-mean diameter D [nm] of the unstrained dots.
        sigma: relative standard deviation; 0 is the one particle of diameter D.
        strain: isotropic strain ε.
        energy_kev: photon energy [keV]; needed with `anomalous`.
        shape: with a material: a name of `hpc.structure.shapes.SHAPES`, or one with its parameters.
        centres: with a material: cut centres to average over; every site that is mostly filled when None.
        b_scale: multiplies every Debye-Waller factor.
        anomalous: f' and f'' by energy; X-rays only.
        particle: "xray" or "neutron".
        wavelength: of neutrons [Å]; needed only where a nucleus has a resonance.
        compton: add incoherent scattering.
        per_atom: intensity per atom; otherwise per (mean) particle.
        tail: fraction of the atoms that may be neglected beyond the largest particle.
        sampling: steps, realisations and seed of particles off the perfect lattice.
        device: where pairs are counted; CPU cores when None.

    Returns:
        (q,) float64 [electron units; fm² for neutrons].

    Raises:
        ValueError: a size that is not positive, σ < 0, ε <= -1, or unknown material data.
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
    sums = dot_sums(
        variant,
        q=q,
        diameter_nm=diameter_nm,
        sigma=sigma,
        strain=strain,
        tail=tail,
        sampling=sampling,
        device=device,
    )
    return sums.iq(compton=compton, per_atom=per_atom, b_scale=b_scale, **beam)


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
    q = np.asarray(q, dtype=np.float64)
    if not (np.isfinite(diameter_nm) and diameter_nm > 0):
        raise ValueError(f"diameter_nm must be > 0, got {diameter_nm}")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    if not (np.isfinite(strain) and strain > -1):
        raise ValueError(f"strain must be > -1, got {strain}")
    sizes = Sizes(diameter=np.array([10 * diameter_nm]), sigma=np.array([sigma]), tail=tail)
    device = device or select_device("cpu")
    counting = plan_counting(
        variant, sizes, q_max=float(q.max()) * (1 + strain), device=device, sampling=sampling
    )
    family = count_family(counting, device=device)
    weights = number_weights(family.diameter, sizes.diameter, sizes.sigma)
    # A shell is in the particle with the probability that the particle is at least that large.
    present = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    stretch = 1 + strain
    n_atoms = (present @ family.atoms)[0]
    near = None
    if variant.motion.has_near_part:
        entering = family.near(counting.near_distance)
        near = crystal_part(
            variant.motion,
            variant.material,
            counting.kinds,
            distance=counting.near_distance,
            pairs=(present @ entering)[:, 0],
            n_atoms=float(n_atoms @ [kind.occupancy for kind in counting.kinds]),
            strain=strain,
        )
    return PairSums(
        kinds=counting.kinds,
        n_atoms=n_atoms,
        q=q,
        partial=np.stack(
            [partial_sums(present @ table.entering, stretch * table.distance, q)[0] for table in family.pairs]
        ),
        extent=stretch * counting.extent,
        near=near,
    )


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
