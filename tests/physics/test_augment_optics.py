"""Instruments of a batch against those of `hpc.instrument`, one pattern at a time in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from hpc.dots import dot_pattern
from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.recorded import Sample, factors, recorded_intensity
from hpc.instrument.resolution import fwhm, pseudo_voigt
from hpc.instrument.setup import Instrument, instrument_names, load_instrument
from hpc.structure.material import load_material
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.optics import Optics, View, windows
from qdml.augmentation.recipe import Setting
from qdml.observation import CONDITIONS

CPU = torch.device("cpu")
Q = np.arange(0.1, 22.0, 0.015)
NAMES = ("synchrotron_strip", "synchrotron_area", "lab_cu", "lab_mo", "lab_ag")


def fixed(name: str, **ranges: tuple[float, float]) -> Instrument:
    """An instrument of which every draw is the same: misaligned, with wide lines."""
    one = load_instrument(name)
    mu_r = 0.7 if one.geometry == "debye_scherrer" else 0.0
    mu_t = 0.2 if one.geometry == "bragg_brentano" else 0.0
    same = {
        "zero_deg": 0.05, "displacement_mm": 0.1, "resolution_factor": 1.0, "first_deg": one.first_deg,
        "last_deg": one.last_deg, "peak_counts": 1e4, "mu_r": mu_r, "mu_t": mu_t,
    }  # fmt: skip
    random = replace(one.random, **({key: (value, value) for key, value in same.items()} | ranges))
    return replace(one, mu_r=mu_r, mu_t=mu_t, random=random)


def optics_of(*instruments: Instrument, q: np.ndarray = Q, energies=None) -> Optics:
    own = [(one.radiation.energy_kev,) * 2 for one in instruments]
    return Optics(
        instruments,
        energies or own,
        q,
        crystal=(q, slice(0, len(q))),
        smooth=np.linspace(q[0], q[-1], 200),
        resolution_error=0.05,
        space=LatentSpace(),
        device=CPU,
    )


def middle(n: int, **chosen: float) -> dict[str, torch.Tensor]:
    """Values of the latents: what is uniform in the middle of its range."""
    values = {"zero_deg": 0.5, "displacement_mm": 0.5, "absorption": 0.5, "resolution": 0.0} | chosen
    return {name: torch.full((n, 1), value) for name, value in values.items()}


def seen_by(optics: Optics, *instruments: int) -> tuple[Setting, View]:
    setting = optics.draw(torch.tensor(instruments), generator())
    return setting, optics.view(setting, middle(len(instruments)))


NONE = torch.zeros(1, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def dots() -> np.ndarray:
    return dot_pattern(load_material("pbs"), q=Q, diameter_nm=4.0, sigma=0.1, energy_kev=22.0, tail=1e-3)


def over_bins(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Means over the bins of a grid, which is what its points stand for."""
    area, half = CubicSpline(q, y).antiderivative(), (q[1] - q[0]) / 2
    return (area(q + half) - area(q - half)) / (2 * half)


def test_every_shipped_instrument_is_in_the_recipe() -> None:
    assert sorted(NAMES) == instrument_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_is_seen_as_one_instrument_shows_it(name: str, dots: np.ndarray) -> None:
    """Doublet, zero error, displacement and resolution, in a batch with another instrument."""
    one, other = fixed(name), fixed("lab_cu")
    optics = optics_of(one, other)
    _, view = seen_by(optics, 0, 1)
    shown = optics.show(torch.tensor(dots, dtype=torch.float32).expand(2, -1), view, NONE.expand(2, -1))
    got = shown[0].double().numpy()
    low, high = one.q_window()
    inside = (max(low, 0.6) < Q) & (min(high, 20.0) - 0.2 > Q)
    angle = 2 * np.arcsin(Q[inside] * one.wavelength / (4 * np.pi))
    sample = Sample(zero_deg=0.05, displacement_mm=0.1, solvents={}, background=0.0, isotropic=0.0)
    # The reference asks for a pattern that covers all of the instrument's angles.
    short = one.with_window(*np.degrees([angle[0] * 1.001, angle[-1] * 0.999]), one.step_deg)
    wanted = recorded_intensity(Q, dots, short, sample, angle)
    seen = (short.q_window()[0] <= Q) & (short.q_window()[1] >= Q)
    wanted = over_bins(Q[inside], wanted * dots[seen].mean())
    core = slice(60, -60)
    assert np.abs(got[inside][core] - wanted[core]).max() < 3e-3 * wanted.max()
    changed = np.abs(dots[inside][core] - wanted[core]).max()
    assert changed > (3e-3 if name == "synchrotron_strip" else 1e-2) * wanted.max()


@pytest.mark.parametrize("name", NAMES)
def test_factors_and_counts_are_those_of_the_instrument(name: str) -> None:
    one = fixed(name)
    _, view = seen_by(optics_of(one), 0)
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


def test_an_aligned_perfect_instrument_shows_the_mean_over_each_bin(dots: np.ndarray) -> None:
    quiet = {"zero_deg": (0.0, 0.0), "displacement_mm": (0.0, 0.0), "resolution_factor": (0.0, 0.0)}
    optics = optics_of(fixed("synchrotron_strip", **quiet))
    _, view = seen_by(optics, 0)
    y = torch.tensor(dots, dtype=torch.float32)[None]
    # Below 1 Å⁻¹ the pattern of a single dot falls too steeply for that.
    core, got = (Q > 1.0) & (Q < 20), optics.show(y, view, NONE)[0].double().numpy()
    wanted = over_bins(Q, dots)[core]
    # A normal density stands for the bin: the same variance, of features wider than it the same means.
    assert np.abs(got[core] - wanted).max() < 2e-4 * wanted.max()
    assert np.abs(dots[core] - wanted).max() > 1e-3 * wanted.max()


def test_strain_is_a_shift_of_the_crystal_beside_that_of_the_instrument(dots: np.ndarray) -> None:
    """A crystal that is longer by 1 % shows at Q what it has at (Q + ΔQ)(1+ε)."""
    quiet = {"resolution_factor": (0.0, 0.0), "displacement_mm": (0.0, 0.0), "zero_deg": (0.04, 0.04)}
    optics = optics_of(fixed("synchrotron_strip", **quiet))
    _, view = seen_by(optics, 0)
    strain = torch.full((1, 1), 0.01)
    got = optics.show(torch.tensor(dots, dtype=torch.float32)[None], view, strain)[0].double().numpy()
    per_angle = 2 * np.pi / load_instrument("synchrotron_strip").wavelength
    angle = 2 * np.arcsin(Q / (2 * per_angle)) - np.radians(0.04)
    core = (Q > 1.0) & (Q < 20)
    wanted = over_bins(Q[core], CubicSpline(Q, dots)(2 * per_angle * np.sin(angle[core] / 2) * 1.01))
    assert np.abs(got[core] - wanted).max() < 1e-3 * wanted.max()
    assert np.abs(dots[core] - wanted).max() > 0.1 * wanted.max()


def test_widths_are_known_but_for_a_few_percent(dots: np.ndarray) -> None:
    """Conditions have the stated widths; the true ones are off by the latent."""
    optics = optics_of(fixed("lab_cu"))
    setting, view = seen_by(optics, 0)
    wider = optics.view(setting, middle(1, resolution=2.0))
    squares = [one.sigma[0].double().numpy() ** 2 - 0.015**2 / 12 for one in (wider, view)]
    assert squares[0] == pytest.approx(squares[1] * np.exp(4 * 0.05), rel=1e-3, abs=1e-9)
    known = dict(zip(CONDITIONS, optics.known(setting)[0].tolist(), strict=False))
    lab = load_instrument("lab_cu")
    gaussian, lorentzian = fwhm(
        np.array([2 * np.arcsin(5.0 * lab.wavelength / 4 / np.pi)]), *lab.resolution.radians()
    )
    per_rad = 2 * np.pi / lab.wavelength * np.sqrt(1 - (5.0 * lab.wavelength / 4 / np.pi) ** 2)
    full, _ = pseudo_voigt(gaussian, lorentzian)
    # The pseudo-Voigt function's width is another approximation.
    assert np.exp(known["log_width_5"]) == pytest.approx(float(full[0]) * per_rad, rel=5e-3)
    assert np.exp(known["log_wavelength"]) == pytest.approx(lab.wavelength, rel=1e-5)
    assert known["doublet"] == pytest.approx(0.249, abs=2e-3)
    assert known["plate"] == 1
    assert "log_counts" not in known


def test_areas_stay_and_widths_add() -> None:
    """A line of the width w on a resolution of the width s: the same area, variance w² + s²."""
    q = np.arange(1.0, 9.0, 0.01)
    optics = optics_of(fixed("lab_mo", zero_deg=(0.0, 0.0), displacement_mm=(0.0, 0.0)), q=q)
    _, view = seen_by(optics, 0)
    line = np.exp(-0.5 * ((q - 5.0) / 0.05) ** 2)
    got = optics.show(torch.tensor(line, dtype=torch.float32)[None], view, NONE)[0].double().numpy()
    assert got.sum() == pytest.approx(line.sum(), rel=5e-3)
    near = np.abs(q - 5.0) < 0.3
    mean = (q * got)[near].sum() / got[near].sum()
    # A third of the light is Kα2, λ2/λ1 - 1 = 0.6 % towards larger Q.
    share, ratio = optics._weight_IL[0, 1], optics._ratio_IL[0, 1]
    assert mean == pytest.approx(5.0 * (1 + float(share) * (float(ratio) - 1)), abs=2e-3)
    assert float(ratio) == pytest.approx(1.0060, abs=2e-4)


def test_windows_follow_the_energy() -> None:
    one = load_instrument("synchrotron_strip")
    optics = optics_of(one, energies=[(16.0, 30.0)])
    ((first, last),) = windows([one], [(16.0, 30.0)], Q)
    per_sine = 4 * np.pi / HC_KEV_ANGSTROM
    assert first == pytest.approx(
        (per_sine * 16 * np.sin(np.radians(1)), per_sine * 30 * np.sin(np.radians(4)))
    )
    seen = optics.draw(torch.zeros(2000, dtype=torch.int64), generator()).mask.bool()
    begins = torch.tensor(Q)[seen.long().argmax(dim=1)]
    ends = torch.tensor(Q)[len(Q) - 1 - seen.flip(1).long().argmax(dim=1)]
    assert first[0] - 0.02 < float(begins.min())
    assert float(begins.max()) < first[1] + 0.02
    assert last[0] - 0.02 < float(ends.min())
    assert (seen.sum(dim=1) == ((ends - begins) / 0.015 + 1).round().long()).all(), "one piece"


def test_gaps_of_a_detector_are_masked() -> None:
    one = replace(fixed("lab_mo"), gaps_deg=((20.0, 21.0), (40.0, 42.0)))
    setting, _ = seen_by(optics_of(one, fixed("lab_cu")), 0, 1)
    angle = np.degrees(2 * np.arcsin(np.clip(Q * one.wavelength / (4 * np.pi), 0, 1)))
    blind = ((angle > 20) & (angle < 21)) | ((angle > 40) & (angle < 42))
    window = (angle >= one.first_deg) & (angle <= one.last_deg)
    # In float32 a point may lie on the other side of an end.
    assert (setting.mask[0].bool().numpy() != (window & ~blind)).sum() <= 3
    lab = load_instrument("lab_cu")
    assert setting.mask[1].sum() == pytest.approx((lab.q_window()[1] - lab.q_window()[0]) / 0.015, abs=2)


def test_a_window_beyond_the_patterns() -> None:
    with pytest.raises(ValueError, match=r"windows of instrument lab_cu start at up to 1\.6.*at least"):
        windows([load_instrument("lab_cu")], [(8.05, 8.05)], np.arange(0.9, 2.5, 0.02))
