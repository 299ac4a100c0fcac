"""The figure of one posterior: the pattern and its simulated answer, the joint posterior of (D_v, σ), the sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from qdml.answers import size_distribution
from qdml.charts import STYLE
from qdml.measured.figure import (
    ANSWER,
    MEASURED,
    draw_pattern,
    draw_residual,
    shade_unseen,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qdml.densities import GaussianMixture
    from qdml.measured.posterior import Inferred
    from qdml.measured.posterior_answer import PosteriorAnswer

__all__ = ["draw_posterior"]

_NETWORK, _REFINED = "#4a7fb5", ANSWER
# Points of each axis of the density of (D_v, σ).
_GRID = 90
# Components of less do not show.
_LEAST_WEIGHT = 1e-5
# Probabilities inside the contours.
_INSIDE = (0.95, 0.68)
# Letters of a line above them.
_LINE = 44
# Of the size distribution, as a share of its maximum: where the axis ends.
_TAIL = 3e-3


def draw_posterior(path: Path, answer: PosteriorAnswer) -> None:
    """Draw one answer into a PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.9), layout="constrained")
        grid = figure.add_gridspec(1, 2, width_ratios=(1.9, 1))
        left = grid[0].subgridspec(2, 1, height_ratios=(2.6, 1))
        top = figure.add_subplot(left[0])
        below = figure.add_subplot(left[1], sharex=top)
        for axes in (top, below):
            shade_unseen(axes, answer.q, answer.on_grid.mask)
        draw_pattern(top, answer.q, answer.on_grid, answer.comparison)
        top.legend(
            loc="upper right",
            title=f"R$_\\mathrm{{wp}}$ {100 * answer.comparison.rwp:.1f} %",
            title_fontsize=7,
            alignment="left",
        )
        top.tick_params(labelbottom=False)
        draw_residual(below, answer.q, answer.on_grid, answer.comparison)
        below.set_xlim(answer.q[0], answer.q[-1])
        below.set_xlabel("Q (Å$^{-1}$)")
        figure.align_ylabels([top, below])
        right = grid[1].subgridspec(2, 1, height_ratios=(1.25, 1))
        if answer.refusals:
            _write_refusals(figure.add_subplot(grid[1]), answer.refusals)
        else:
            _draw_joint(figure.add_subplot(right[0]), answer)
            _draw_sizes(figure.add_subplot(right[1]), answer.final)
        name = Path(answer.pattern.source).name
        figure.suptitle(name, fontsize=9, x=0.01, ha="left", parse_math=False)
        figure.savefig(path, dpi=200)


def _draw_joint(axes: Axes, answer: PosteriorAnswer) -> None:
    """68 % and 95 % regions of (D_v, σ): network filled, fit as lines."""
    found = [(answer.network, _NETWORK, "network")]
    if answer.refined is not None:
        found.append((answer.refined, _REFINED, "fit"))
    for inferred, color, name in found:
        x, y, density, levels = _density(inferred)
        if inferred is answer.network:
            axes.contourf(x, 100 * y, density, [*levels, density.max()], colors=[color], alpha=0.25)
        axes.contour(x, 100 * y, density, levels, colors=[color], linewidths=(0.7, 1.3))
        mean = inferred.estimates
        axes.plot(
            mean["diameter_volume_nm"].mean,
            100 * mean["sigma"].mean,
            "o",
            ms=3.5,
            color=color,
            mec="white",
            mew=0.5,
            label=name,
        )
    final = answer.final.estimates
    axes.set_xlabel("Volume-mean diameter D$_v$ (nm)")
    axes.set_ylabel("Size dispersion σ (%)")
    axes.legend(loc="best", handletextpad=0.2, borderaxespad=0.2)
    shapes = "" if answer.refinement is None else "\n" + fill(answer.refinement.likely, _LINE)
    axes.set_title(
        f"D$_v$ = {final['diameter_volume_nm'].text(2)} nm\nD = {final['diameter_nm'].text(2)} nm\n"
        f"σ = {final['sigma'].text(1, factor=100)} %\nε = {final['strain'].text(2, factor=100)} %"
        f"{shapes}",
        fontsize=7,
        loc="left",
    )


def _write_refusals(axes: Axes, refusals: Sequence[str]) -> None:
    """Instead of sizes: why there are none."""
    axes.set_axis_off()
    axes.set_title("not sized", fontsize=9, loc="left", fontweight="bold")
    text = "\n\n".join(fill(one, _LINE) for one in refusals)
    axes.text(0.0, 1.0, text, transform=axes.transAxes, va="top", fontsize=7, parse_math=False)


def _density(inferred: Inferred) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """D_v [nm], σ, the density of (ln D_v, ln σ) over both, and its values at the borders of the regions."""
    points = np.log([inferred.samples["diameter_volume_nm"], inferred.samples["sigma"]])
    density_at = _marginal(inferred.density)
    low, high = np.quantile(points, (0.005, 0.995), axis=1)
    room = 0.3 * (high - low)
    x, y = (np.linspace(a, b, _GRID) for a, b in zip(low - room, high + room, strict=True))
    density = density_at(np.stack(np.meshgrid(x, y)).reshape(2, -1)).reshape(_GRID, _GRID)
    levels = np.quantile(density_at(points), [1 - inside for inside in _INSIDE])
    return np.exp(x), np.exp(y), density, levels.tolist()


def _marginal(density: GaussianMixture) -> Callable[[np.ndarray], np.ndarray]:
    """(2, n) values of (ln D_v, ln σ) -> (n,) their density."""
    from scipy.stats import multivariate_normal

    weight = density.logits[0].double().softmax(dim=0).numpy()
    tril = density.scale_tril[0].double()
    mean, covariance = density.mean[0, :, :2].double().numpy(), (tril @ tril.mT)[:, :2, :2].numpy()
    some = np.flatnonzero(weight > _LEAST_WEIGHT)
    normals = [(weight[one], multivariate_normal(mean[one], covariance[one])) for one in some]
    return lambda at: np.sum([share * one.pdf(at.T) for share, one in normals], axis=0)


def _draw_sizes(axes: Axes, inferred: Inferred) -> None:
    """The lognormal number density of diameters, with its bands."""
    sizes = size_distribution(inferred.density)
    x, density = sizes.diameter_nm, sizes.density[0]
    axes.fill_between(x, sizes.lo95[0], sizes.hi95[0], color=MEASURED, alpha=0.12, lw=0, label="95 %")
    axes.fill_between(x, sizes.lo68[0], sizes.hi68[0], color=MEASURED, alpha=0.25, lw=0, label="68 %")
    axes.plot(x, density, color=MEASURED, lw=1.0)
    shown = x[sizes.hi95[0] > _TAIL * sizes.hi95[0].max()]
    axes.set(xlim=(shown[0], shown[-1]), ylim=(0, None))
    axes.set_xlabel("Diameter (nm)")
    axes.set_ylabel("Number density (nm$^{-1}$)")
    axes.legend(loc="upper right")
