"""The figure of one answer: what the network saw, the simulated answer, the class probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qdml.answers import Estimate
from qdml.charts import STYLE
from qdml.measured.inference import class_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qdml.files.patterns import OnGrid
    from qdml.measured.answer import Answer
    from qdml.measured.comparison import Comparison

__all__ = [
    "ANSWER",
    "MEASURED",
    "draw_answer",
    "draw_pattern",
    "draw_residual",
    "shade_unseen",
]

MEASURED, ANSWER, _BACKGROUND, _UNSEEN, _BAR = "#222222", "#c8402f", "#4a7fb5", "#ececec", "#b9c9da"


def draw_answer(path: Path, answer: Answer) -> None:
    """Draw one answer into a PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    classes, sigma = answer.classes, answer.sigma
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        grid = figure.add_gridspec(3, 2, width_ratios=(2.4, 1), height_ratios=(2.6, 0.9, 1.5))
        top = figure.add_subplot(grid[0, 0])
        middle = figure.add_subplot(grid[1, 0], sharex=top)
        bottom = figure.add_subplot(grid[2, 0], sharex=top)
        for axes in (top, middle, bottom):
            shade_unseen(axes, answer.q, answer.on_grid.mask)
        draw_pattern(top, answer.q, answer.on_grid, answer.comparison)
        _tell_display_fit(top, answer)
        draw_residual(middle, answer.q, answer.on_grid, answer.comparison)
        _draw_input(bottom, answer)
        for axes in (top, middle):
            axes.tick_params(labelbottom=False)
        figure.align_ylabels([top, middle, bottom])
        right = grid[:, 1].subgridspec(2, 1)
        upper, lower = figure.add_subplot(right[0]), figure.add_subplot(right[1])
        _draw_classes(upper, classes.diameter_nm, classes.of_diameter, answer.diameter_nm, percent=False)
        upper.set_xlabel("Mean diameter D (nm)")
        upper.set_title(
            f"D = {answer.diameter_nm.text(2)} nm\nD$_\\mathrm{{vol}}$ = {answer.diameter_volume_nm.text(2)} nm",
            fontsize=7,
        )
        _draw_classes(lower, classes.sigma, classes.of_sigma, sigma, percent=True)
        lower.set_xlabel("Size dispersion σ (%)")
        lower.set_title(f"σ = {sigma.text(1, factor=100)} %", fontsize=7)
        name = Path(answer.pattern.source).name
        figure.suptitle(name, fontsize=9, x=0.01, ha="left", parse_math=False)
        figure.savefig(path, dpi=200)


def _tell_display_fit(axes: Axes, answer: Answer) -> None:
    """The legend, with what was fitted for display."""
    comparison = answer.comparison
    axes.legend(
        loc="upper right",
        title=f"scale, background and strain ({100 * comparison.strain:+.2f} %)\nfitted for display: "
        f"R$_\\mathrm{{wp}}$ {100 * comparison.rwp:.1f} %, explains {100 * max(comparison.explained, 0):.0f} %"
        + "\ngrey: not seen by the network"
        * bool(not answer.on_grid.mask.all()),
        title_fontsize=6.5,
        alignment="left",
    )


def draw_pattern(axes: Axes, q: np.ndarray, on_grid: OnGrid, comparison: Comparison) -> None:
    """Measured intensity, the answer laid over it, and what of the answer is not dots."""
    seen = np.where(on_grid.mask, on_grid.intensity, np.nan)
    unit = np.nanmax(seen)
    axes.plot(q, seen / unit, color=MEASURED, lw=1.5, label="measured")
    axes.plot(q, comparison.total / unit, color=ANSWER, lw=0.7, label="simulated answer")
    axes.plot(
        q, comparison.background / unit, color=_BACKGROUND, lw=0.8, ls="--", label="background, solvent"
    )
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("Intensity / maximum")


def draw_residual(axes: Axes, q: np.ndarray, on_grid: OnGrid, comparison: Comparison) -> None:
    """Measured over simulated."""
    residual = 100 * (on_grid.intensity / comparison.total - 1)
    limit = 1.1 * np.nanpercentile(np.abs(residual), 99.5)
    axes.axhline(0, color=ANSWER, lw=0.8)
    axes.plot(q, residual, color=MEASURED, lw=0.5)
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("Residual (%)")


def _draw_input(axes: Axes, answer: Answer) -> None:
    """What enters the network, for the measured pattern and for the simulated answer."""
    for values, color, width in ((answer.seen, MEASURED, 1.3), (answer.seen_comparison, ANSWER, 0.6)):
        axes.plot(answer.q, np.where(answer.on_grid.mask, values, np.nan), color=color, lw=width)
    axes.set_xlim(answer.q[0], answer.q[-1])
    axes.set_xlabel("Q (Å$^{-1}$)")
    axes.set_ylabel("Network input")


def shade_unseen(axes: Axes, q: np.ndarray, mask: np.ndarray) -> None:
    """Grey where nothing was measured."""
    edges = np.append(q, 2 * q[-1] - q[-2]) - (q[1] - q[0]) / 2
    change = np.flatnonzero(np.diff(np.concatenate([[1], mask, [1]])))
    for start, stop in change.reshape(-1, 2):
        axes.axvspan(edges[start], edges[stop], color=_UNSEEN, lw=0, zorder=0)


def _draw_classes(
    axes: Axes, centres: np.ndarray, probability: np.ndarray, estimate: Estimate, *, percent: bool
) -> None:
    """Bars of the class probabilities; above them the mean and the 68 % and 95 % intervals."""
    factor = 100 if percent else 1
    edges, top = factor * class_edges(centres), probability.max()
    axes.bar(
        edges[:-1], probability, width=np.diff(edges), align="edge", color=_BAR, edgecolor="white", lw=0.8
    )
    for low, high, width in ((estimate.lo95, estimate.hi95, 0.8), (estimate.lo68, estimate.hi68, 2.6)):
        axes.plot(
            [factor * low, factor * high], [1.1 * top] * 2, color=MEASURED, lw=width, solid_capstyle="butt"
        )
    axes.plot(factor * estimate.mean, 1.1 * top, "o", ms=4, color="white", mec=MEASURED)
    if len(centres) <= 6:
        axes.set_xticks(factor * centres)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.18 * top), ylabel="Class probability")
