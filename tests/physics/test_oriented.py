"""Patterns of oriented dots (benchmarks/oriented.py) against an average of |F|² over directions."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import eval_legendre

from hpc.dots import dot_pattern
from hpc.form_factors import scattering_factor
from hpc.instrument.setup import load_instrument
from hpc.structure.sites import cut_sites
from hpc.structure.variant import Variant

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import misfits
import oriented

ENERGY, B_SCALE, STRAIN, SPREAD = 8.047, 1.3, 0.002, 20.0
# Films of ordinary dots.
FILM = {"sigma": 0.1, "strain": np.zeros(1), "energy_kev": ENERGY, "b_scale": 1.0}
# Degrees that a spread of 20° leaves; the poles of {110}, one of each pair of opposites.
DEGREES = (4, 6, 8, 10, 12)
POLES = np.array([[1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]]) / np.sqrt(2)


def weights(directions: np.ndarray) -> np.ndarray:
    """How frequent directions are, 1 in the mean."""
    cosine = directions @ POLES.T
    return 1 + sum(
        oriented.weight_of(degree, SPREAD) * eval_legendre(degree, cosine).mean(axis=1) for degree in DEGREES
    )


def directions() -> tuple[np.ndarray, np.ndarray]:
    """Of a quadrature that is exact for everything a dot of 2 nm has up to 5 Å⁻¹."""
    cosine, weight = np.polynomial.legendre.leggauss(56)
    turn = np.arange(112) * 2 * np.pi / 112
    sine = np.sqrt(1 - cosine**2)[:, None]
    axes = (sine * np.cos(turn), sine * np.sin(turn), np.broadcast_to(cosine[:, None], (56, 112)))
    return np.stack(axes, axis=-1).reshape(-1, 3), np.repeat(weight / 2 / 112, 112)


def test_an_oriented_dot_is_the_weighted_mean_over_directions() -> None:
    """One particle: an ensemble so narrow that it lies between two sizes of the sum."""
    variant = Variant.from_config({"material": "pbs", "shape": {"name": "sphere", "centres": ["Pb"]}})
    q = np.linspace(1.2, 5.0, 12)
    found = oriented.excess(
        variant,
        q=q,
        diameter_nm=1.85,
        sigma=1e-3,
        strain=np.array([STRAIN]),
        energy_kev=ENERGY,
        b_scale=B_SCALE,
        pole=(1, 1, 0),
        spread_deg=SPREAD,
    )[0]
    sites = cut_sites(variant, centre="Pb", diameter_max=18.5)
    n, weight = directions()
    more = weight * (weights(n) - 1)
    expected, random = np.empty(len(q)), np.empty(len(q))
    for index, one in enumerate(q):
        amplitude = np.array(
            [
                scattering_factor(kind.element, q[index : index + 1], energy_kev=ENERGY)[0]
                * np.exp(-B_SCALE * kind.b_iso * (one / (4 * np.pi)) ** 2)
                for kind in variant.material.kinds
            ]
        )
        phase = one * (1 + STRAIN) * (n @ sites.position.T)
        square = np.abs(np.exp(1j * phase) @ amplitude[sites.kind]) ** 2
        expected[index], random[index] = more @ square, weight @ square
    assert np.abs(found - expected).max() < 1e-6 * random.max()
    assert np.abs(expected).max() > 0.1 * random.max()


def test_dots_that_lie_in_every_way_are_a_random_sample() -> None:
    """A spread so wide that all directions are alike."""
    variant = Variant.from_config({"material": "pbs", "shape": "sphere"})
    q = np.linspace(1.2, 5.0, 12)
    more = oriented.excess(
        variant,
        q=q,
        diameter_nm=2.5,
        pole=(1, 1, 1),
        spread_deg=50.0,
        **FILM,
    )
    random = dot_pattern(
        variant, q=q, diameter_nm=2.5, sigma=0.1, energy_kev=ENERGY, per_atom=False, tail=1e-3
    )
    assert np.abs(more).max() < 0.02 * random.max()


def test_cuts_of_another_lattice_are_refused() -> None:
    variant = Variant.from_config({"material": "pbs", "shape": {"name": "sphere", "centres": ["bond"]}})
    with pytest.raises(ValueError, match="cuts of rocksalt around an atom"):
        oriented.excess(variant, q=np.array([2.0]), diameter_nm=2.0, pole=(1, 0, 0), spread_deg=15.0, **FILM)


def test_films_are_wrong_in_ways_of_their_own() -> None:
    """Kinds of misfit that only a plate in reflection can have, and one that it cannot."""
    possible = {
        name: {kind.name for kind in misfits.KINDS if kind.possible(load_instrument(name))}
        for name in ("lab_cu", "synchrotron_strip")
    }
    films = possible["lab_cu"] - possible["synchrotron_strip"]
    assert len(films) == 5
    assert all("film" in name or "tube" in name for name in films)
    (modules,) = possible["synchrotron_strip"] - possible["lab_cu"]
    assert "modules" in modules
