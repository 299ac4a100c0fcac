"""The radial displacement of a coherent core and shell."""

import numpy as np
import pytest

from hpc.structure.elasticity import misfit_stretch


def displacement(r, **settings):
    return r * misfit_stretch(r, **settings)


@pytest.mark.parametrize("poisson_ratio", [0.1, 0.29, 0.45])
@pytest.mark.parametrize("core_radius", [5.0, 19.0])
def test_it_is_in_equilibrium(core_radius, poisson_ratio):
    """Radial stress by finite differences, with shear modulus 1: continuous, balanced, zero at the surface."""
    misfit, outer = -0.031, 20.0
    settings = {
        "core_radius": core_radius,
        "outer_radius": outer,
        "misfit": misfit,
        "poisson_ratio": poisson_ratio,
    }
    lame = 2 * poisson_ratio / (1 - 2 * poisson_ratio)

    def stress(r):
        """Radial and tangential; the shell is stress-free when strained by the misfit."""
        h = 1e-4
        radial = (displacement(r + h, **settings) - displacement(r - h, **settings)) / (2 * h)
        tangential = displacement(r, **settings) / r
        free = np.where(r > core_radius, misfit, 0.0)
        trace = radial + 2 * tangential - 3 * free
        return lame * trace + 2 * (radial - free), lame * trace + 2 * (tangential - free)

    near = np.array([core_radius - 0.001, core_radius + 0.001])
    below, above = stress(near)[0]
    assert below == pytest.approx(above, rel=2e-3)
    assert abs(stress(np.array([outer]))[0][0]) < 1e-6 * abs(below)
    r = np.linspace(core_radius + 0.1, outer - 0.01, 7)
    h = 1e-3
    slope = (stress(r + h)[0] - stress(r - h)[0]) / (2 * h)
    radial, tangential = stress(r)
    np.testing.assert_allclose(slope + 2 * (radial - tangential) / r, 0, atol=1e-4 * abs(below))


def test_limits():
    r = np.array([0.0, 3.0, 10.0, 10.0 + 1e-9, 12.0])
    thin = misfit_stretch(r, core_radius=12.0, outer_radius=12.0, misfit=0.03, poisson_ratio=0.3)
    np.testing.assert_allclose(thin, 0, atol=1e-15)
    no_core = misfit_stretch(r, core_radius=-2.0, outer_radius=12.0, misfit=0.03, poisson_ratio=0.3)
    np.testing.assert_array_equal(no_core, 0.03)
    # A small core in a large shell takes up 1 - γ of the misfit, γ = 1.3 / 2.1.
    far = misfit_stretch(
        np.array([0.5, 900.0]), core_radius=1, outer_radius=1e3, misfit=0.03, poisson_ratio=0.3
    )
    np.testing.assert_allclose(far, [0.03 * (1 - 1.3 / 2.1), 0.03], rtol=1e-8)
    # Continuous at the interface.
    inside, outside = misfit_stretch(r[2:4], core_radius=10, outer_radius=12, misfit=0.03, poisson_ratio=0.3)
    assert inside == pytest.approx(outside, abs=1e-10)
