"""Instruments of a batch against those of `hpc.instrument`, one pattern at a time in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpc.dots import dot_pattern
from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.recorded import Sample, factors, recorded_intensity
from hpc.instrument.setup import Instrument, instrument_names, load_instrument
from hpc.structure.material import load_material
from qdml.augmentation.optics import Optics

CPU = torch.device("cpu")
Q = np.arange(0.1, 22.0, 0.015)
NAMES = ("synchrotron_strip", "synchrotron_area", "lab_cu", "lab_mo", "lab_ag")


def fixed(name: str, **ranges: tuple[float, float]) -> Instrument:
    """An instrument of which every draw is the same: misaligned, with wide lines."""
    one = load_instrument(name)
    mu_r = 0.7 if one.geometry == "debye_scherrer" else 0.0
    same = {
        "zero_deg": 0.05, "displacement_mm": 0.1, "resolution_factor": 1.0, "first_deg": one.first_deg,
        "last_deg": one.last_deg, "peak_counts": 1e4, "mu_r": mu_r,
    }  # fmt: skip
    random = replace(one.random, **({key: (value, value) for key, value in same.items()} | ranges))
    return replace(one, mu_r=mu_r, random=random)


def optics_of(*instruments: Instrument, q: np.ndarray = Q) -> Optics:
    return Optics(
        instruments,
        [None] * len(instruments),
        q,
        smooth=np.linspace(q[0], q[-1], 200),
        extent=80.0,
        device=CPU,
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def dots() -> np.ndarray:
    return dot_pattern(load_material("pbs"), q=Q, diameter_nm=4.0, sigma=0.1, energy_kev=22.0, tail=1e-3)


def test_every_shipped_instrument_is_in_the_recipe() -> None:
    assert sorted(NAMES) == instrument_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_is_seen_as_one_instrument_shows_it(name: str, dots: np.ndarray) -> None:
    """Doublet, zero error, displacement and resolution, in a batch with another instrument."""
    one, other = fixed(name), fixed("lab_cu")
    optics = optics_of(one, other)
    view = optics.draw(torch.tensor([0, 1]), generator())
    got = optics.show(torch.tensor(dots, dtype=torch.float32).expand(2, -1), view)[0].double().numpy()
    low, high = one.q_window()
    inside = (max(low, 0.6) < Q) & (min(high, 20.0) - 0.2 > Q)
    angle = 2 * np.arcsin(Q[inside] * one.wavelength / (4 * np.pi))
    sample = Sample(zero_deg=0.05, displacement_mm=0.1, solvents={}, background=0.0, isotropic=0.0)
    # The reference asks for a pattern that covers all of the instrument's angles.
    short = one.with_window(*np.degrees([angle[0] * 1.001, angle[-1] * 0.999]), one.step_deg)
    wanted = recorded_intensity(Q, dots, short, sample, angle)
    seen = (short.q_window()[0] <= Q) & (short.q_window()[1] >= Q)
    wanted = wanted * dots[seen].mean()
    core = slice(60, -60)
    assert np.abs(got[inside][core] - wanted[core]).max() < 3e-3 * wanted.max()
    changed = np.abs(dots[inside][core] - wanted[core]).max()
    assert changed > (3e-3 if name == "synchrotron_strip" else 1e-2) * wanted.max()


@pytest.mark.parametrize("name", NAMES)
def test_factors_and_counts_are_those_of_the_instrument(name: str) -> None:
    one = fixed(name)
    view = optics_of(one).draw(torch.zeros(1, dtype=torch.int64), generator())
    low, high = one.q_window()
    inside = (max(low, 0.3) < Q) & (min(0.97 * high, 20.7) > Q)
    angle = 2 * np.arcsin(Q[inside] * one.wavelength / (4 * np.pi))
    efficiency, pixels, unit = factors(one, angle)
    shown = view.factor[0].double().numpy()[inside]
    assert shown == pytest.approx(efficiency / unit, rel=2e-3)
    # Photons of one step per intensity shown; up to a constant.
    per_step = view.per_step[0].double().numpy()[inside]
    assert per_step / per_step.mean() == pytest.approx(unit / unit.mean(), rel=2e-3)
    # Steps of the instrument in one of the grid.
    slope = 2 * np.pi / one.wavelength * np.cos(angle / 2)
    steps = 0.015 / (np.radians(one.step_deg) * slope)
    assert view.efficiency[0].double().numpy()[inside] / per_step == pytest.approx(steps, rel=5e-3)
    smooth = np.linspace(Q[0], Q[-1], 200)
    at = (smooth > Q[inside][0]) & (smooth < Q[inside][-1])
    flat = np.interp(smooth[at], Q[inside], pixels / unit)
    assert view.unpolarised_smooth[0].double().numpy()[at] == pytest.approx(flat, rel=5e-3)


def test_an_aligned_perfect_instrument_changes_nothing(dots: np.ndarray) -> None:
    quiet = {"zero_deg": (0.0, 0.0), "displacement_mm": (0.0, 0.0), "resolution_factor": (0.0, 0.0)}
    optics = optics_of(fixed("synchrotron_strip", **quiet))
    view = optics.draw(torch.zeros(1, dtype=torch.int64), generator())
    y = torch.tensor(dots, dtype=torch.float32)[None]
    assert torch.allclose(optics.show(y, view), y, atol=2e-6 * float(y.max()))


def test_areas_stay_and_widths_add() -> None:
    """A line of the width w on a resolution of the width s: the same area, variance w² + s²."""
    q = np.arange(1.0, 9.0, 0.01)
    optics = optics_of(fixed("lab_mo", zero_deg=(0.0, 0.0), displacement_mm=(0.0, 0.0)), q=q)
    view = optics.draw(torch.zeros(1, dtype=torch.int64), generator())
    line = np.exp(-0.5 * ((q - 5.0) / 0.05) ** 2)
    got = optics.show(torch.tensor(line, dtype=torch.float32)[None], view)[0].double().numpy()
    assert got.sum() == pytest.approx(line.sum(), rel=5e-3)
    near = np.abs(q - 5.0) < 0.3
    mean = (q * got)[near].sum() / got[near].sum()
    # A third of the light is Kα2, λ2/λ1 - 1 = 0.6 % towards larger Q.
    share, ratio = optics._weight_IL[0, 1], optics._ratio_IL[0, 1]
    assert mean == pytest.approx(5.0 * (1 + float(share) * (float(ratio) - 1)), abs=2e-3)
    assert float(ratio) == pytest.approx(1.0060, abs=2e-4)


def test_windows_follow_the_energy() -> None:
    one = load_instrument("synchrotron_strip")
    optics = Optics([one], [(16.0, 30.0)], Q, smooth=Q[::10], extent=80.0, device=CPU)
    ((first, last),) = optics.windows
    per_sine = 4 * np.pi / HC_KEV_ANGSTROM
    assert first == pytest.approx(
        (per_sine * 16 * np.sin(np.radians(1)), per_sine * 30 * np.sin(np.radians(4)))
    )
    view = optics.draw(torch.zeros(2000, dtype=torch.int64), generator())
    seen = view.mask.bool()
    begins = torch.tensor(Q)[seen.long().argmax(dim=1)]
    ends = torch.tensor(Q)[len(Q) - 1 - seen.flip(1).long().argmax(dim=1)]
    assert first[0] - 0.02 < float(begins.min())
    assert float(begins.max()) < first[1] + 0.02
    assert last[0] - 0.02 < float(ends.min())
    assert (seen.sum(dim=1) == ((ends - begins) / 0.015 + 1).round().long()).all(), "one piece"


def test_gaps_of_a_detector_are_masked() -> None:
    one = replace(fixed("lab_mo"), gaps_deg=((20.0, 21.0), (40.0, 42.0)))
    view = optics_of(one, fixed("lab_cu")).draw(torch.tensor([0, 1]), generator())
    angle = np.degrees(2 * np.arcsin(np.clip(Q * one.wavelength / (4 * np.pi), 0, 1)))
    blind = ((angle > 20) & (angle < 21)) | ((angle > 40) & (angle < 42))
    window = (angle >= one.first_deg) & (angle <= one.last_deg)
    # In float32 a point may lie on the other side of an end.
    assert (view.mask[0].bool().numpy() != (window & ~blind)).sum() <= 3
    lab = load_instrument("lab_cu")
    assert view.mask[1].sum() == pytest.approx((lab.q_window()[1] - lab.q_window()[0]) / 0.015, abs=2)


def test_a_window_beyond_the_patterns() -> None:
    with pytest.raises(ValueError, match=r"windows of instrument lab_cu start at up to 1\.6.*at least"):
        optics_of(load_instrument("lab_cu"), q=np.arange(0.9, 2.5, 0.02))
