"""Liquids by name and solvent files."""

from pathlib import Path

import numpy as np
import pytest

from hpc.liquids import liquid_profile, varied
from qdml.augmentation.config import SolventConfig
from qdml.augmentation.solvents import solvent_profile, solvent_profiles, solvent_terms

Q = np.arange(0.6, 15.0, 0.02)
COARSE = np.linspace(Q[0], Q[-1], 241)


def built_in(name: str) -> SolventConfig:
    return SolventConfig(name=name, file=None, wavelength=None)


@pytest.mark.parametrize("name", ["hexane", "toluene", "water"])
def test_a_liquid_is_that_of_hpc(name: str) -> None:
    """Its profile and its terms, on the grid of the patterns or on a coarser one."""
    wanted = liquid_profile(name, Q)
    assert solvent_profile(built_in(name), Q) == pytest.approx(wanted / wanted.mean())
    terms = solvent_terms(built_in(name), Q, COARSE)
    assert terms.total.mean() == pytest.approx(1)
    coarse = liquid_profile(name, COARSE)
    assert terms.total == pytest.approx(coarse / coarse.mean())
    plain = varied(terms, stretch=np.ones((1, 1)), width=np.ones((1, 1)), height=np.ones((1, 1)))
    assert plain[0] == pytest.approx(terms.total, rel=1e-9)


def test_a_measured_solvent_moves_as_a_whole(tmp_path: Path) -> None:
    q = np.arange(0.5, 16, 0.01)
    np.savetxt(tmp_path / "ring.xy", np.stack([q, 1 + 3 * np.exp(-0.5 * ((q - 1.4) / 0.2) ** 2)], axis=1))
    solvent = SolventConfig(name="ring", file=str(tmp_path / "ring.xy"), wavelength=None)
    terms = solvent_terms(solvent, Q, COARSE)
    assert terms.ring == pytest.approx(1.4, abs=0.06)
    moved = varied(terms, stretch=np.full((1, 1), 1.1), width=np.ones((1, 1)), height=np.ones((1, 1)))
    assert COARSE[moved[0].argmax()] == pytest.approx(1.54, abs=0.06)


def test_every_solvent_of_a_mixture_is_summed_to_1() -> None:
    both = solvent_profiles([built_in("hexane"), built_in("toluene")], Q)
    assert both.shape == (2, len(Q))
    assert both.sum(axis=1) == pytest.approx(1)


def test_a_file_is_put_on_the_grid(tmp_path: Path) -> None:
    q = np.arange(0.5, 16, 0.01)
    np.savetxt(tmp_path / "ether.xy", np.stack([q, 3 + np.sin(q)], axis=1))
    solvent = SolventConfig(name="ether", file=str(tmp_path / "ether.xy"), wavelength=None)
    expected = 3 + np.sin(Q)
    assert solvent_profile(solvent, Q) == pytest.approx(expected / expected.mean(), rel=1e-3)


def test_a_file_that_does_not_cover_q(tmp_path: Path) -> None:
    q = np.arange(1.0, 12, 0.01)
    np.savetxt(tmp_path / "short.xy", np.stack([q, 3 + np.sin(q)], axis=1))
    solvent = SolventConfig(name="short", file=str(tmp_path / "short.xy"), wavelength=None)
    with pytest.raises(
        ValueError, match=r"must cover the patterns' Q, 0.6 to 14.98 Å⁻¹; it has usable points from 1"
    ):
        solvent_profile(solvent, Q)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="nowhere.xy"):
        solvent_profile(SolventConfig(name="x", file="nowhere.xy", wavelength=1.5), Q)
