"""Do intervals hold for dots that are not in the world of the training? qd-predict on patterns of known sizes.

    python benchmarks/size_misfits.py [--model MODEL] [--model-error PHI] [-o benchmarks/results]

The patterns are those of `misfits.py`, each answered as qd-predict answers a measured file. What the fit is off by,
beyond its own posterior, is the source of the numbers of `qdml.measured.unlike`, by which qd-predict widens what it
says; with the numbers from all kinds but one the errors of that one are tried. Written: size_misfits.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fit_measured import RESULTS, about
from misfits import KINDS, Misfit, misfits

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe

QUANTITIES = ("diameter_volume_nm", "diameter_nm", "sigma")
#: Size at which a number is given of what grows with the size.
UNIT_NM = 5.0


# Name of each answer: as the training has it, and as qd-predict says it.
METHODS = ("network, within training", "fit, within training", "network, widened", "fit, widened")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """One pattern, by every method."""

    misfit: Misfit
    error: Mapping[str, np.ndarray]
    """Method -> (3,) found - true, of `QUANTITIES`."""
    width: Mapping[str, np.ndarray]
    """Method -> (3,) half of the 68 % interval."""
    inside: Mapping[str, np.ndarray]
    """Method -> (2, 3) bool: the truth in the 68 %, in the 95 % interval."""
    off: np.ndarray
    """(2,) what the fit is off by: ln D_v, σ²."""
    known: np.ndarray
    """(2, 2) the covariance that it says of them."""
    doubted: bool

    def z(self, method: str) -> np.ndarray:
        """(3,) errors in units of their widths."""
        z: np.ndarray = self.error[method] / self.width[method]
        return z


def main(words: Sequence[str] | None = None) -> None:
    """Size every pattern; write the table."""
    from qdml.checkpoint import load_model
    from qdml.measured.refinement import MODEL_ERROR, load_recipe
    from qdml.shipped import shipped_model

    parser = argparse.ArgumentParser(description="Sizes of simulated patterns that are in no training.")
    parser.add_argument("--model", type=Path, help="of posteriors (default: that of the package)")
    parser.add_argument("--model-error", type=float, default=MODEL_ERROR, metavar="PHI", help="of the fit")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    folder = options.model or shipped_model()
    module, card = load_model(folder)
    recipe = load_recipe(folder, card)
    found = []
    for misfit in misfits():
        found.append(size(misfit, module, card, recipe, options.model_error))
        shown = (f"{name}: " + " ".join(f"{z:+5.1f}" for z in found[-1].z(name)) for name in METHODS)
        print(f"{misfit.pattern.source:75s} {';  '.join(shown)}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "size_misfits.md"
    file.write_text(_markdown(found, card), encoding="utf-8")
    print(file)


def size(
    misfit: Misfit, module: torch.nn.Module, card: Mapping[str, Any], recipe: Recipe, model_error: float
) -> Sized:
    """One pattern."""
    from qdml.answers import estimates, posterior_samples
    from qdml.asking import model_grid
    from qdml.files.patterns import regrid
    from qdml.measured.measurement import measurement_of
    from qdml.measured.posterior_answer import answer_posterior

    known = measurement_of(card, energy_kev=misfit.pattern.energy_kev, instrument=misfit.instrument)
    on_grid = regrid(misfit.pattern, model_grid(card), window=known.window(card))
    answer = answer_posterior(
        module, card, misfit.pattern, on_grid, measurement=known, recipe=recipe, model_error=model_error
    )
    assert answer.refined is not None
    both = (answer.network, answer.refined)
    said = [*(estimates(one.within)[0] for one in both), *(one.estimates for one in both)]
    answers = dict(zip(METHODS, said, strict=True))
    truth = np.array([getattr(misfit, name) for name in QUANTITIES])

    def of(part: str) -> dict[str, np.ndarray]:
        return {
            method: np.array([getattr(numbers[name], part) for name in QUANTITIES])
            for method, numbers in answers.items()
        }

    mean, lo68, hi68, lo95, hi95 = (of(part) for part in ("mean", "lo68", "hi68", "lo95", "hi95"))
    points = posterior_samples(answer.refined.within, 0)[:, 0, :2].numpy()
    points[:, 1] = np.exp(2 * points[:, 1])
    return Sized(
        misfit=misfit,
        error={method: mean[method] - truth for method in METHODS},
        width={method: (hi68[method] - lo68[method]) / 2 for method in METHODS},
        inside={
            method: np.array(
                [
                    (lo68[method] < truth) & (truth < hi68[method]),
                    (lo95[method] < truth) & (truth < hi95[method]),
                ]
            )
            for method in METHODS
        },
        off=points.mean(axis=0) - (np.log(misfit.diameter_volume_nm), misfit.sigma**2),
        known=np.cov(points, rowvar=False),
        doubted=bool(answer.doubts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """What fits are off by, beyond what they say: standard deviations, as `qdml.measured.unlike` has them."""

    flat: float
    """Of ln D_v, of small dots."""
    growing: float
    """Of ln D_v, what is added at 5 nm, as the square of the size."""
    variance: float
    """Of σ²."""
    correlation: float

    def log_volume(self, diameter_nm: np.ndarray | float) -> np.ndarray:
        """Standard deviation of ln D_v at some D_v."""
        spread: np.ndarray = np.hypot(self.flat, self.growing * _grown(diameter_nm))
        return spread


def _grown(diameter_nm: np.ndarray | float) -> np.ndarray:
    """What makes reflections wider, as a squared width in quadrature, counts as the square of the size."""
    return (np.asarray(diameter_nm) / UNIT_NM) ** 2


def beyond(found: Sequence[Sized]) -> Beyond:
    """What is most probable for ln D_v, normal with the variance that posteriors say and this one; means for σ²."""
    from scipy.optimize import minimize

    off = np.array([one.off for one in found])
    known = np.array([one.known for one in found])
    size = np.array([one.misfit.diameter_volume_nm for one in found])

    def surprise(logs: np.ndarray) -> float:
        spread = np.hypot(np.exp(logs[0]), np.exp(logs[1]) * _grown(size))
        variance = known[:, 0, 0] + spread**2
        return float(np.sum(np.log(variance) + off[:, 0] ** 2 / variance))

    flat, growing = np.exp(minimize(surprise, np.log([0.005, 0.005]), method="Nelder-Mead").x)
    square = off[:, :, None] * off[:, None, :] - known
    variance = float(np.sqrt(square[:, 1, 1].mean()))
    numbers = Beyond(flat=flat, growing=growing, variance=variance, correlation=0.0)
    both = square[:, 0, 1].mean() / (numbers.log_volume(size).mean() * variance)
    return replace(numbers, correlation=float(both))


def left_out(found: Sequence[Sized]) -> np.ndarray:
    """(n, 2) errors of ln D_v and σ² over what the kinds that a pattern is not of say of them."""
    z = []
    for one in found:
        others = beyond([other for other in found if other.misfit.kind != one.misfit.kind])
        spread = np.array([others.log_volume(one.misfit.diameter_volume_nm), others.variance])
        z.append(one.off / np.sqrt(np.diag(one.known) + spread**2))
    return np.array(z)


HEAD = """\
# Sizes of {n} simulated patterns that no training contains

`python benchmarks/size_misfits.py`. What is wrong with each is in `benchmarks/misfits.py`; sizes are known. z:
deviation from the truth in units of half the 68 % interval; 1 is what an honest interval has. For distributions that
are not lognormal D is the mean, D_v is <d⁴>/<d³>, σ the relative standard deviation of all dots.

Model: {model}.

| method | patterns | rms z of D_v · D · σ | in 68 % (95 %) | rms error: D_v nm · D nm · σ % |
|---|---|---|---|---|
"""


def _markdown(found: Sequence[Sized], card: Mapping[str, Any]) -> str:
    lines = [HEAD.format(n=len(found), model=about(card)).rstrip()]
    nothing = KINDS[0].name
    groups = {
        nothing: [one for one in found if one.misfit.kind == nothing],
        **{
            f"something, {name}": [
                one for one in found if one.misfit.kind != nothing and one.misfit.instrument == name
            ]
            for name in dict.fromkeys(one.misfit.instrument for one in found)
        },
    }
    for method in METHODS:
        lines += [
            f"| {method} | {name} ({len(some)}) | {_scores(some, method)} |" for name, some in groups.items()
        ]
    wrong = [one for one in found if one.misfit.kind != nothing]
    lines += ["", _beyond_text(wrong)]
    heads = ["what is wrong", "D nm", "instrument", "off by: D_v % · σ²"]
    heads += [f"z of D_v · D · σ, {m}" for m in METHODS[1::2]]
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        cells = (" · ".join(f"{z:+.1f}" for z in one.z(method)) for method in METHODS[1::2])
        lines.append(
            f"| {one.misfit.kind} | {one.misfit.diameter_nm:.2f} | {one.misfit.instrument} "
            f"| {100 * one.off[0]:+.2f} · {one.off[1]:+.4f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def _beyond_text(wrong: Sequence[Sized]) -> str:
    """What follows for `qdml.measured.unlike`."""
    z = left_out(wrong)
    rms = np.sqrt(np.mean(z**2, axis=0))
    size = np.array([one.misfit.diameter_volume_nm for one in wrong])
    small, middle, large = (
        float(np.sqrt(np.mean(z[(low < size) & (size < high), 0] ** 2)))
        for low, high in ((0, 4), (4, 6), (6, np.inf))
    )
    doubted = sum(one.doubted for one in wrong)
    groups = {"all": wrong} | {
        name: [one for one in wrong if one.misfit.instrument == name]
        for name in dict.fromkeys(one.misfit.instrument for one in wrong)
    }
    numbers = {name: beyond(some) for name, some in groups.items()}
    said = "; ".join(
        f"{name}: {one.flat:.4f}, {one.growing:.4f}, {one.variance:.4f}, {one.correlation:+.2f}"
        for name, one in numbers.items()
    )
    return (
        "What the fit is off by where something is wrong, beyond its own posterior (`qdml.measured.unlike`): standard "
        f"deviation of ln D_v, and what (D_v / {UNIT_NM:g} nm)² adds to it in quadrature; that of σ²; correlation. "
        f"{said} (no dots of 7 nm on lab_cu). Said by all other kinds, of each kind: rms z {rms[0]:.2f} of ln D_v "
        f"({small:.2f} below 4 nm, {middle:.2f} to 6 nm, {large:.2f} above), {rms[1]:.2f} of σ². qd-predict has a "
        f"doubt of {doubted} of these {len(wrong)}."
    )


def _scores(found: Sequence[Sized], method: str) -> str:
    z = np.array([one.z(method) for one in found])
    inside = np.mean([one.inside[method] for one in found], axis=(0, 2))
    error = np.sqrt(np.mean([one.error[method] ** 2 for one in found], axis=0)) * (1, 1, 100)
    rms = " · ".join(f"{value:.1f}" for value in np.sqrt(np.mean(z**2, axis=0)))
    errors = f"{error[0]:.3f} · {error[1]:.3f} · {error[2]:.1f}"
    return f"{rms} | {100 * inside[0]:.0f} % ({100 * inside[1]:.0f} %) | {errors}"


if __name__ == "__main__":
    main()
