"""The classical fit of simulated patterns: sizes come back, and each pattern is fitted with what is known of it."""

import numpy as np
import pytest
import torch

from hpc.dots import dot_pattern
from hpc.instrument.resolution import broaden, widths
from hpc.instrument.setup import load_instrument
from hpc.liquids import liquid_profile
from hpc.structure.material import load_material
from hpc.structure.variant import Shape, Variant
from qdml.limits.classical import Conditions, classical_fits
from qdml.observation import Observation

SPHERE = Variant(material=load_material("pbs"), shape=Shape(name="sphere"))
Q = np.arange(1.0, 9.0, 0.01)
TRUTHS = ((2.4, 0.10, 0.001, "hexane"), (3.0, 0.08, -0.002, "toluene"))


def conditions(liquid: str, **changes: object) -> Conditions:
    values = {
        "instrument": "synchrotron_strip",
        "energy_kev": 22.0,
        "resolution_factor": 15.0,
        "solvents": (liquid,),
        "containers": (),
        "film": False,
    }
    return Conditions(**(values | changes))


@pytest.fixture(scope="module")
def observation() -> Observation:
    """Dots of 2.4 and 3 nm, each in its own liquid, behind a resolution of 0.04 Å⁻¹, 10⁵ photons at the peak."""
    setup = load_instrument("synchrotron_strip", energy_kev=22.0)
    sigma, gamma = widths(Q, setup.wavelength, *setup.resolution.radians(15.0))
    rng = np.random.default_rng(0)
    counts = []
    for diameter, spread, strain, liquid in TRUTHS:
        dots = dot_pattern(SPHERE, q=Q, diameter_nm=diameter, sigma=spread, strain=strain, energy_kev=22.0)
        shown = broaden(
            dots, sigma, gamma, step=0.01, sigma_max=float(sigma.max()), gamma_max=float(gamma.max())
        )
        around = liquid_profile(liquid, Q, energy_kev=22.0)
        y = shown / shown.mean() + around / around.mean()
        counts.append(rng.poisson(1e5 * y / y.max()))
    intensity = torch.tensor(np.array(counts), dtype=torch.float32)
    mask = torch.ones_like(intensity)
    mask[:, :20] = 0
    return Observation(
        intensity=intensity, noise=intensity.clamp(min=1).sqrt(), mask=mask, conditions=torch.zeros(2, 7)
    )


def test_sizes_come_back_within_their_errors(observation: Observation) -> None:
    done = []
    fits = classical_fits(
        observation,
        Q,
        [conditions(liquid) for *_, liquid in TRUTHS],
        SPHERE,
        show=lambda n, total: done.append((n, total)),
    )
    assert done == [(1, 2), (2, 2)]
    truth = np.array([[d, d * (1 + s**2) ** 3, s, e] for d, s, e, _ in TRUTHS])
    deviation = (fits.estimate.numpy() - truth) / fits.error.numpy()
    # Errors of 68 %; the fit expects correlated motion, which these dots have not: a few of them off.
    assert np.all(np.abs(deviation) < 5)
    np.testing.assert_allclose(fits.estimate[:, 1], truth[:, 1], rtol=0.02)
    assert np.all(fits.seconds.numpy() > 0) and np.all(fits.chi2.numpy() < 10)


def test_what_is_known_decides(observation: Observation) -> None:
    """Told that the instrument is sharp, a fit takes the width of the reflections for small dots."""
    first = observation.take(slice(1, 2))
    told = classical_fits(first, Q, [conditions("toluene")], SPHERE)
    sharp = classical_fits(first, Q, [conditions("toluene", resolution_factor=0.6)], SPHERE)
    assert float(sharp.estimate[0, 1]) < float(told.estimate[0, 1]) - 0.01
    with pytest.raises(ValueError, match="2 patterns need as many conditions, got 1"):
        classical_fits(observation, Q, [conditions("hexane")], SPHERE)
