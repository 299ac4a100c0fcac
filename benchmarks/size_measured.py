"""Sizes of measured patterns by three methods: the network's posterior, the fit that goes on from it, and qd-fit.

    python benchmarks/size_measured.py PATTERN... [--model MODEL] [-o benchmarks/results]

The name of a pattern says its wavelength in Å and its size in nm, as in `PbS_wl0p564162A_5p03nm.xye`. Instruments are
assumed from the wavelength, as qd-predict does; qd-fit gets the same one, modelled hexane and toluene, and free gains
of directions for films. Written: size_measured.md, and the figures of qd-predict into --figures. Nothing of the
patterns is copied but what the figures show.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fit_measured import RESULTS, about, parse_name

if TYPE_CHECKING:
    from qdml.answers import Estimate
    from qdml.augmentation.recipe import Recipe
    from qdml.files.patterns import Pattern
    from qdml.measured.measurement import Measurement

METHODS = ("network", "network + fit", "qd-fit")
# How far the names themselves may be off [nm]: one sample on two beam times differs by 0.01 to 0.03, and they are
# results of fits with a model of their own.
NAME_ERROR = 0.05
# Zero errors of laboratory instruments [degrees]: conf/instrument/lab_cu.yaml.
_FILM_ZERO = 0.3
_SOLUTION = {"correlation_shells": 1, "correlation_tail": 25.0}
_FILM = {"correlation_shells": 2, "texture": "direction", "zero_deg": _FILM_ZERO}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of one method for one pattern."""

    diameter_nm: Estimate
    diameter_volume_nm: Estimate
    sigma: Estimate
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """One pattern."""

    name: str
    size: float
    """From the name [nm]."""
    instrument: str
    answers: Mapping[str, Answer]
    model_error: float
    """That the fit's residual shows."""
    shape: str
    """Probabilities."""
    doubts: tuple[str, ...]


def main(words: Sequence[str] | None = None) -> None:
    """Size every file with every method; write the table."""
    from qdml.checkpoint import load_model
    from qdml.measured.refinement import load_recipe
    from qdml.shipped import shipped_model

    parser = argparse.ArgumentParser(description="Sizes of measured PbS patterns by network, fit and qd-fit.")
    parser.add_argument("files", nargs="+", type=Path, metavar="PATTERN", help="2θ, intensity and perhaps σ")
    parser.add_argument("--model", type=Path, help="of posteriors (default: that of the package)")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="of qd-predict; none when not given")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    folder = options.model or shipped_model()
    module, card = load_model(folder)
    recipe = load_recipe(folder, card)
    found = []
    for path in options.files:
        found.append(size(path, module, card, recipe, options.figures))
        for method, answer in found[-1].answers.items():
            print(f"{found[-1].name:44s} {method:14s} {_numbers(answer, found[-1].size)}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "size_measured.md"
    file.write_text(_markdown(found, card), encoding="utf-8")
    print(file)


def size(
    path: Path, module: torch.nn.Module, card: Mapping[str, Any], recipe: Recipe, figures: Path | None
) -> Sized:
    """One pattern with every method."""
    from qdml.asking import ask, model_grid
    from qdml.files.patterns import read_pattern, regrid
    from qdml.measured.measurement import measurement_of
    from qdml.measured.posterior_answer import answer_posterior
    from qdml.measured.posterior_figure import draw_posterior

    wavelength, named = parse_name(path)
    pattern = read_pattern(path, wavelength=wavelength)
    known = measurement_of(card, energy_kev=pattern.energy_kev, instrument=None)
    on_grid = regrid(pattern, model_grid(card), window=known.window(card))
    answer = answer_posterior(module, card, pattern, on_grid, measurement=known, recipe=recipe)
    observation = known.observe(on_grid)
    started = time.process_time()
    ask(module, card, observation)
    of_network = time.process_time() - started
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        draw_posterior(figures / f"{path.name}.png", answer)
    assert answer.refinement is not None
    return Sized(
        name=path.stem,
        size=named,
        instrument=known.instrument.name,
        answers={
            "network": _answer(answer.network.estimates, of_network),
            "network + fit": _answer(
                answer.refinement.inferred.estimates, of_network + answer.refinement.seconds
            ),
            "qd-fit": _fit(pattern, known),
        },
        model_error=answer.refinement.model_error,
        shape=answer.refinement.likely,
        doubts=answer.doubts,
    )


def _answer(estimates: Mapping[str, Estimate], seconds: float) -> Answer:
    return Answer(
        **{name: estimates[name] for name in ("diameter_nm", "diameter_volume_nm", "sigma")}, seconds=seconds
    )


def _fit(pattern: Pattern, known: Measurement) -> Answer:
    """qd-fit with the same instrument."""
    from hpc.structure.variant import Variant
    from qdml.fitting.fit import fit_pattern
    from qdml.fitting.settings import fit_settings

    film = known.instrument.geometry == "bragg_brentano"
    settings = fit_settings(
        (Variant.from_config({"material": "pbs", "shape": "sphere"}),),
        solvents=("hexane", "toluene"),
        instrument=known.instrument,
        **(_FILM if film else _SOLUTION),
    )
    found = fit_pattern(pattern, settings)
    return Answer(
        diameter_nm=found.diameter_nm,
        diameter_volume_nm=found.diameter_volume_nm,
        sigma=found.sigma,
        seconds=found.seconds,
    )


def _z(estimate: Estimate, size: float, *, name_error: float = 0.0) -> float:
    """Deviation from a size in units of half the 68 % interval, and of the error of the name."""
    spread = (estimate.hi68 - estimate.lo68) / 2
    return float((estimate.mean - size) / np.hypot(spread, name_error))


def _numbers(answer: Answer, size: float) -> str:
    number, volume = answer.diameter_nm, answer.diameter_volume_nm
    seconds = f"{1e3 * answer.seconds:.3g}"
    return (
        f"| {volume.text(2)} | {number.text(2)} | {answer.sigma.text(1, factor=100)} | {number.mean - size:+.2f} "
        f"| {_z(number, size):+.1f} | {_z(number, size, name_error=NAME_ERROR):+.1f} | {_z(volume, size):+.1f} "
        f"| {seconds} |"
    )


HEAD = """\
# Sizes of {n} measured PbS patterns by network, fit and qd-fit

`python benchmarks/size_measured.py PATTERN...`. Patterns and the sizes in their names: QDots-sizer, University of
Insubria (npj Comput. Mater. 2024, 10.1038/s41524-024-01241-6).

**The sizes in the names are themselves fits of the Debye equation by their authors, with a model of their own: no
truth, perhaps {error} nm from it. They are taken for number means D here; the files do not say which mean they are, and
D_v is larger by 1 to 6 % at these dispersions. And n = {n}: this table can show that intervals are much too narrow, not
that they are right.**

In brackets: central 68 %. z: deviation of D, or of D_v, from the name, in units of half the 68 % interval; *z with
name*: an error of {error} nm of the name added in quadrature. ms: of one core. *network + fit* is what qd-predict
answers where the fit converges; both are widened by what is wrong with simulated dots that no training contains
(`size_misfits.md`, `qdml.measured.unlike`); qd-fit has hexane and toluene as modelled liquids, correlated motion, and
free gains of directions for films.

Model: {model}.

| method | mean \\|D - name\\| nm: solutions | films | rms z of D | rms z with name | rms z of D_v |
|---|---|---|---|---|---|
"""


def _markdown(found: Sequence[Sized], card: Mapping[str, Any]) -> str:
    lines = [HEAD.format(n=len(found), error=NAME_ERROR, model=about(card)).rstrip()]
    lines += [f"| {method} | {_summary(found, method)} |" for method in METHODS]
    for one in found:
        lines += [
            "",
            f"### `{one.name}`: {one.size:g} nm, {one.instrument}",
            "",
            "| method | D_v nm | D nm | σ % | D - name | z | z with name | z of D_v | ms |",
            "|---|---|---|---|---|---|---|---|---|",
            *(f"| {method} {_numbers(answer, one.size)}" for method, answer in one.answers.items()),
            "",
            f"Shape: {one.shape}. Residual as of {100 * one.model_error:.1f} % of model error.",
            *(f"- {doubt}" for doubt in one.doubts),
        ]
    return "\n".join(lines) + "\n"


def _summary(found: Sequence[Sized], method: str) -> str:
    cells = []
    for film in (False, True):
        errors = [
            abs(one.answers[method].diameter_nm.mean - one.size)
            for one in found
            if one.instrument.startswith("lab") == film
        ]
        cells.append(f"{np.mean(errors):.3f} (n = {len(errors)})" if errors else "-")
    for quantity, error in (("diameter_nm", 0.0), ("diameter_nm", NAME_ERROR), ("diameter_volume_nm", 0.0)):
        z = [_z(getattr(one.answers[method], quantity), one.size, name_error=error) for one in found]
        cells.append(f"{np.sqrt(np.mean(np.square(z))):.1f}")
    return " | ".join(cells)


if __name__ == "__main__":
    main()
