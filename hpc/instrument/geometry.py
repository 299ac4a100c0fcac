"""What the geometry of a measurement does to intensities: polarisation, solid angle, absorption, slits.

A Debye sum is a cross section per solid angle and already holds the powder: rings of randomly oriented particles, wide
where particles are small. Its integral over a reflection is

    ∫ I dQ = (2π)³ m |F|² N_cells / (4π Q² V_cell),   that is, over 2θ:   m |F|² / (sin²θ cos θ) times constants,

which is the Lorentz factor of powders. So no Lorentz factor is applied here: what a detector counts is
I(Q) x polarisation x solid angle x transmission (x irradiated volume), and nothing else.

Polarisation (International Tables for Crystallography C, chapter 6.2; classical dipole scattering): the share p of the
incident intensity whose electric field lies in the scattering plane is reduced by cos²2θ,

    P = 1 - p sin²2θ

    tube                                      p = 1/2
    monochromator in the same plane           p = K/(1 + K), K = cos²2α (mosaic crystal, deflection 2α)
    synchrotron                               p = (1 + d cos 2φ)/2, d degree of linear polarisation, φ angle between the
                                              plane of the storage ring and the scattering plane
    whole Debye-Scherrer rings                p = 1/2 for any d

Compton scattering is treated the same way; fluorescence and dark counts are not polarised, hence flat.

All functions take arrays of NumPy, CuPy or torch (array API standard), with any batch axes, and answer in kind; 2θ in
radians. Absorption in a capillary: `hpc.instrument.capillary`.
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat

__all__ = [
    "constant_length",
    "in_plane_behind_monochromator",
    "in_plane_of_synchrotron",
    "polarisation",
    "ring_pixels",
    "solid_angle_flat",
    "thin_film",
]

Array = Any  # an array of any namespace that follows the array API standard


def polarisation(two_theta: Array, in_plane: Array | float = 0.5) -> Array:
    """P = 1 - p sin²2θ.

    Args:
        two_theta: (..., q) [rad].
        in_plane: p, number or (..., 1), 0 to 1: share of the incident intensity polarised in the scattering plane.
    """
    xp = array_api_compat.array_namespace(two_theta)
    return 1 - in_plane * xp.sin(two_theta) ** 2


def in_plane_of_synchrotron(degree: float, azimuth: float) -> float:
    """Share p of a linearly polarised beam.

    Args:
        degree: of linear polarisation in the plane of the ring, -1 to 1.
        azimuth: angle between that plane and the scattering plane [rad]: π/2 for a detector that moves vertically.

    Raises:
        ValueError: a degree outside -1 to 1.
    """
    if not -1 <= degree <= 1:
        raise ValueError(f"degree of polarisation must lie in -1 to 1, got {degree}")
    return 0.5 * (1 + degree * math.cos(2 * azimuth))


def in_plane_behind_monochromator(two_alpha: float) -> float:
    """Share p of a tube with a mosaic monochromator in the scattering plane, before or behind the sample.

    Args:
        two_alpha: deflection of the monochromator [rad].
    """
    k = math.cos(two_alpha) ** 2
    return k / (1 + k)


def solid_angle_flat(two_theta: Array) -> Array:
    """cos³2θ: solid angle of a pixel of a flat detector across the beam, relative to that at its centre.

    The distance grows by 1/cos 2θ and the pixel is seen at the angle 2θ. 0 from 90° on.
    """
    xp = array_api_compat.array_namespace(two_theta)
    return xp.clip(xp.cos(two_theta), min=0.0) ** 3


def ring_pixels(two_theta: Array) -> Array:
    """Pixels of a flat detector in equal steps of 2θ, whole rings, but for a constant: sin 2θ / cos³2θ.

    Times `solid_angle_flat` this is sin 2θ, the solid angle of a ring. 0 from 90° on.
    """
    xp = array_api_compat.array_namespace(two_theta)
    cosine = xp.cos(two_theta)
    seen = cosine > 0
    safe = xp.where(seen, cosine, xp.ones_like(cosine))
    return xp.where(seen, xp.sin(two_theta) / safe**3, xp.zeros_like(cosine))


def constant_length(two_theta: Array) -> Array:
    """Sine of θ: Bragg-Brentano with automatic slits that keep the irradiated length, relative to fixed slits.

    With fixed slits and a thick sample the irradiated area grows as 1/sin θ and the depth falls as sin θ: a constant.
    """
    xp = array_api_compat.array_namespace(two_theta)
    return xp.sin(two_theta / 2)


def thin_film(two_theta: Array, mu_t: Array | float) -> Array:
    """1 - exp(-2μt/sin θ): Bragg-Brentano with a layer of the thickness t, relative to a thick sample.

    Args:
        two_theta: (..., q) [rad], above 0.
        mu_t: μt, number or (..., 1).
    """
    xp = array_api_compat.array_namespace(two_theta)
    return -xp.expm1(-2 * mu_t / xp.sin(two_theta / 2))
