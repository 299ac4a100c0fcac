"""Built-in liquids and solvent files."""

from pathlib import Path

import numpy as np
import pytest

from qdml.augmentation.solvents import LIQUIDS, liquid_profile, solvent_profile
from qdml.config import SolventConfig

Q = np.arange(0.6, 15.0, 0.02)


def built_in(name: str) -> SolventConfig:
    return SolventConfig(name=name, file=None, wavelength=None)


@pytest.mark.parametrize("name", LIQUIDS)
def test_a_liquid_has_its_ring_and_tends_to_free_atoms(name: str) -> None:
    from hpc.form_factors import compton, scattering_factor

    profile = solvent_profile(built_in(name), Q)
    assert profile.min() > 0
    assert profile.mean() == pytest.approx(1)
    assert 1.25 < Q[profile.argmax()] < 1.45
    atoms = {"hexane": (6, 14), "toluene": (7, 8)}[name]
    far = np.array([14.9])
    free = sum(
        n * (scattering_factor(element, far, anomalous=False).real ** 2 + compton(element, far))
        for n, element in zip(atoms, "CH", strict=True)
    )
    assert liquid_profile(name, far) == pytest.approx(free, rel=0.05)


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


@pytest.mark.parametrize(("name", "file"), [("hexane", "Hexane.xye"), ("toluene", "Toluene.xye")])
def test_built_in_liquids_resemble_measured_ones(name: str, file: str, shared_data: Path) -> None:
    path = shared_data / "solvents" / file
    measured = solvent_profile(SolventConfig(name=name, file=str(path), wavelength=0.564162), Q)
    model = solvent_profile(built_in(name), Q)
    # The model's docstring: 10 % rms, 30 % on the flank of the ring.
    ratio = model / measured
    assert np.sqrt(np.mean((ratio / ratio.mean() - 1) ** 2)) < 0.12
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.45
