"""What D of measured patterns depends on: the fit of qd-predict under other hypotheses about instrument and sample.

    python benchmarks/film_hypotheses.py PATTERN... [-o benchmarks/results]

Names of patterns as in `size_measured.py`. Each hypothesis changes one thing of what qd-predict assumes. Of films
(`lab_cu`) all are tried, of solutions those that can be true of them. The evidence says how much better a pattern is
described, not that its size is. Written: film_hypotheses.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fit_measured import RESULTS, parse_name

from hpc.radiation import load_radiation
from qdml.augmentation.config import InstrumentChoice, InstrumentRecipeConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hpc.instrument.setup import Instrument
    from hpc.radiation import Radiation
    from qdml.augmentation.recipe import Recipe
    from qdml.basis import DotBasis
    from qdml.files.patterns import Pattern
    from qdml.refine import Refined

# Kβ of copper [Å]: Deslattes et al., Rev. Mod. Phys. 75, 35 (2003).
_K_BETA = 1.39225
# FWHM of a normal distribution over its standard deviation.
_FWHM = math.sqrt(8 * math.log(2))
# Around 220 of PbS, where no other reflection is [Å⁻¹]; what is taken for its background at both ends, and the width of
# a smooth that leaves it as it is.
_LONE, _END, _SMOOTH = (2.45, 3.28), 0.06, 0.015


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What is different from what qd-predict assumes."""

    name: str
    k_alpha2: bool = True
    k_beta: float = 0.0
    """Over Kα1."""
    resolution: float = 1.0
    q_min: float = 1.2
    q_max: float = math.inf
    model_error: float = 0.02
    layer: float | None = None
    """μt of a film; None: any, as the world has it."""
    strains: float = 0.0
    """Standard deviation of ε within a sample: widths of reflections grow with Q."""
    of_films: bool = True
    """Whether it can be true of films alone."""

    def radiation(self, told: Radiation) -> Radiation:
        """The lines of the tube."""
        if not self.k_alpha2:
            return load_radiation("cu_kalpha1")
        if not self.k_beta:
            return told
        weights = np.array([*told.weights, self.k_beta * told.weights[0]])
        return replace(
            told,
            wavelengths=(*told.wavelengths, _K_BETA),
            weights=tuple(float(one) for one in weights / weights.sum()),
        )


HYPOTHESES = (
    Hypothesis(name="as assumed", of_films=False),
    Hypothesis(name="Kα1 alone", k_alpha2=False),
    Hypothesis(name="1 % of Kβ", k_beta=0.01),
    Hypothesis(name="widths × 0.6", resolution=0.6),
    Hypothesis(name="widths × 1.6", resolution=1.6),
    Hypothesis(name="from 1.6 Å⁻¹ on", q_min=1.6, of_films=False),
    Hypothesis(name="up to 5 Å⁻¹", q_max=5.0, of_films=False),
    Hypothesis(name="model error 1 %", model_error=0.01),
    Hypothesis(name="model error 4 %", model_error=0.04),
    Hypothesis(name="a thick powder", layer=10.0),
    Hypothesis(name="a film of μt = 0.3", layer=0.3),
    Hypothesis(name="a film of μt = 0.1", layer=0.1),
    Hypothesis(name="a film of μt = 0.03", layer=0.03),
    Hypothesis(name="strain differs by 0.2 %", strains=0.002, of_films=False),
    Hypothesis(name="strain differs by 0.4 %", strains=0.004, of_films=False),
    Hypothesis(name="strain differs by 0.8 %", strains=0.008, of_films=False),
    Hypothesis(name="a film of μt = 0.1, strain differs by 0.4 %", layer=0.1, strains=0.004),
)


def main(words: Sequence[str] | None = None) -> None:
    """Fit every pattern under every hypothesis; write the table."""
    from qdml.basis_file import read_basis
    from qdml.checkpoint import load_model
    from qdml.shipped import shipped_model

    parser = argparse.ArgumentParser(description="What sizes of measured patterns depend on.")
    parser.add_argument("files", nargs="+", type=Path, metavar="PATTERN", help="2θ, intensity and perhaps σ")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    folder = shipped_model()
    module, card = load_model(folder)
    basis = read_basis(folder, torch.device("cpu"))
    lines = [HEAD.rstrip()]
    for path in options.files:
        lines += _table(path, module, card, basis)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "film_hypotheses.md"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(file)


HEAD = """\
# Sizes of measured PbS patterns under other hypotheses

`python benchmarks/film_hypotheses.py PATTERN...`: the fit of qd-predict, one thing changed at a time. b: factor on the
Debye-Waller factors of bulk, 0.8 to 2.5 (1.0 to 1.5 in solutions); χ²: of all points, with what latents cost; ln E: of
the evidence, over that of *as assumed*, where the points are the same. Strains that differ: reflections become wider by
2.36 × that × Q. The breadth of 220 is that of the file, over a straight line, without any model.

D of these patterns is in their names, by their authors' own fits.
"""


def _table(path: Path, module: torch.nn.Module, card: Mapping[str, Any], basis: DotBasis) -> list[str]:
    """Lines of one pattern."""
    from qdml.files.patterns import read_pattern
    from qdml.measured.measurement import measurement_of
    from qdml.measured.posterior import inferred_of

    wavelength, named = parse_name(path)
    pattern = read_pattern(path, wavelength=wavelength)
    instrument = measurement_of(card, energy_kev=pattern.energy_kev, instrument=None).instrument
    lines = [
        "",
        f"### `{path.stem}`: {named:g} nm, {instrument.name}, 220 is {breadth(pattern):.4f} Å⁻¹ wide",
        "",
        "| hypothesis | D_v nm | D nm | D - name | σ % | b | χ² | ln E |",
        "|---|---|---|---|---|---|---|---|",
    ]
    film, first = instrument.geometry == "bragg_brentano", None
    for hypothesis in HYPOTHESES:
        if hypothesis.of_films and not film:
            continue
        found = _fit(pattern, hypothesis, module, card, basis)
        first = first or found
        said = inferred_of(found.posterior, card["store"]["ranges"]["sigma"][0]).estimates
        number, volume, sigma = (said[name] for name in ("diameter_nm", "diameter_volume_nm", "sigma"))
        same = (hypothesis.q_min, hypothesis.q_max, hypothesis.model_error) == (1.2, math.inf, 0.02)
        better = f"{_log_evidence(found, first) - _log_evidence(first, first):+.1f}" if same else ""
        lines.append(
            f"| {hypothesis.name} | {volume.mean:.2f} | {number.text(2)} | {number.mean - named:+.2f} "
            f"| {100 * sigma.mean:.1f} | {math.exp(float(found.values[0, 3])):.2f} "
            f"| {float(found.cost[0] * found.unit[0]):.0f} | {better} |"
        )
        print(path.stem, lines[-1], flush=True)
    return lines


def _log_evidence(found: Refined, first: Refined) -> float:
    """As if the residual were as much larger than noise as it is with the first."""
    prior = float(found.z.double().square().sum())
    log_det = float(-2 * found.log_evidence[0] - found.cost[0])
    points = float(found.cost[0]) - prior
    return -0.5 * (points * float(found.unit[0] / first.unit[0]) + prior + log_det)


def breadth(pattern: Pattern) -> float:
    """FWHM of 220 [Å⁻¹], over a straight line between both sides."""
    from scipy.ndimage import gaussian_filter1d

    inside = (pattern.q > _LONE[0]) & (pattern.q < _LONE[1])
    q, y = pattern.q[inside], pattern.intensity[inside]
    ends = [np.median(y[q < _LONE[0] + _END]), np.median(y[q > _LONE[1] - _END])]
    line = np.interp(q, (_LONE[0] + _END / 2, _LONE[1] - _END / 2), ends)
    smooth = gaussian_filter1d(y - line, _SMOOTH / float(np.median(np.diff(q))))
    top = int(smooth.argmax())
    left = np.interp(smooth[top] / 2, smooth[: top + 1], q[: top + 1])
    right = np.interp(-smooth[top] / 2, -smooth[top:], q[top:])
    return float(right - left)


def _fit(
    pattern: Pattern,
    hypothesis: Hypothesis,
    module: torch.nn.Module,
    card: Mapping[str, Any],
    basis: DotBasis,
) -> Refined:
    """The most probable shape."""
    from qdml.asking import ask, model_grid
    from qdml.files.patterns import regrid
    from qdml.measured.measurement import measurement_of
    from qdml.refine import refine

    known = measurement_of(
        card,
        energy_kev=pattern.energy_kev,
        instrument=None,
        resolution_factor=hypothesis.resolution if hypothesis.resolution > 1 else 1.0,
    )
    first, last = known.window(card, hypothesis.q_min)
    q = model_grid(card)
    on_grid = regrid(pattern, q, window=(first, min(last, hypothesis.q_max)))
    observation, setting = known.observe(on_grid), known.setting(on_grid, float(q[1] - q[0]))
    start, nuisance = ask(module, card, observation)
    return refine(
        _world(card, basis, hypothesis, known.instrument.name),
        observation,
        setting,
        start,
        nuisance=nuisance,
        variants=tuple(range(len(card["variants"]))),
        model_error=hypothesis.model_error,
        steps=40,
    )


def _world(card: Mapping[str, Any], basis: DotBasis, hypothesis: Hypothesis, name: str) -> Recipe:
    """The world of the training, one instrument changed."""
    from qdml.augmentation.recipes import build_recipe
    from qdml.checkpoint import training_config

    class Changed(InstrumentChoice):
        """An instrument with other lines and widths, or samples of one thickness."""

        def load(self, energy_kev: float | None = None) -> Instrument:
            one = InstrumentChoice.load(self, energy_kev)
            layer = hypothesis.layer
            narrow, width = min(hypothesis.resolution, 1.0), one.resolution
            # Widths of 2 ε tan θ.
            of_strain = math.degrees(2 * _FWHM * hypothesis.strains) ** 2
            return replace(
                one,
                radiation=hypothesis.radiation(one.radiation),
                random=one.random if layer is None else replace(one.random, mu_t=(layer, layer)),
                resolution=replace(
                    width,
                    u=width.u * narrow**2 + of_strain,
                    v=width.v * narrow**2,
                    w=width.w * narrow**2,
                    x=width.x * narrow,
                    y=width.y * narrow,
                ),
            )

    config, device = training_config(card).augment, torch.device("cpu")
    assert isinstance(config, InstrumentRecipeConfig)  # as models of posteriors are trained with
    choices = tuple(
        Changed(**{field.name: getattr(one, field.name) for field in fields(one)})
        if one.name == name
        else one
        for one in config.instruments
    )
    return build_recipe(replace(config, instruments=choices), basis, device)


if __name__ == "__main__":
    main()
