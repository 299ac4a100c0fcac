"""Radial relaxation of a coherent core in a shell whose crystal has another lattice constant.

A sphere of radius R₁ sits in a shell up to R; both are isotropic, with the same elastic constants and Poisson ratio ν.
Seen from the core's lattice the stress-free shell is larger by the misfit f = a_shell / a_core - 1. The displacement is
radial:

    core   u = A r                σ_rr = 3 K A
    shell  u = B r + C / r²       σ_rr = 3 K (B - f) - 4 G C / r³

(K bulk, G shear modulus; the shell's elastic strain is its total strain less f). Continuity of u and σ_rr at R₁ and a
free surface, σ_rr(R) = 0, give with γ = (1 + ν) / (3 (1 - ν)) and x = (R₁/R)³

    A = f (1 - γ) (1 - x),   B = f (1 - (1 - γ) x),   C = -γ f R₁³

γ is Eshelby's constant (Proc. R. Soc. A 241, 376 (1957)): a small core in a large shell takes up 1 - γ of the misfit.
A thin shell keeps the core's lattice in its plane and is strained by 3 γ f = f (1 + ν) / (1 - ν) across. Valid for
small f.
"""

from __future__ import annotations

import numpy as np

__all__ = ["misfit_stretch"]


def misfit_stretch(
    radius: np.ndarray, *, core_radius: float, outer_radius: float, misfit: float, poisson_ratio: float
) -> np.ndarray:
    """u(r) / r of every site, relative to the core's lattice.

    Args:
        radius: (site,) float64 [Å], distance from the centre.
        core_radius: R₁ [Å]; 0 or less for a dot that is all shell.
        outer_radius: R [Å].
        misfit: f = a_shell / a_core - 1.
        poisson_ratio: ν.

    Returns:
        (site,) float64.
    """
    if core_radius <= 0:
        return np.full(len(radius), misfit)
    gamma = (1 + poisson_ratio) / (3 * (1 - poisson_ratio))
    filling = (core_radius / outer_radius) ** 3
    core = misfit * (1 - gamma) * (1 - filling)
    # r <= R₁ is the core, where the same expression holds at r = R₁.
    beyond = (core_radius / np.maximum(radius, core_radius)) ** 3
    return np.where(
        radius <= core_radius, core, misfit * (1 - (1 - gamma) * filling) - gamma * misfit * beyond
    )
