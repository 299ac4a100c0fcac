"""Figures of posteriors beside the Cramér-Rao bound: each function draws one PNG, in the style of `qdml.charts`.

Network in blue, network + refine in orange, what an estimator at the bound would do in grey.

Symbols: B pattern, K quantity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qdml.answers import QUANTITIES
from qdml.charts import BLUE, GREY, ORANGE, STYLE, new_figure, save_figure
from qdml.metrics import rank_test, rms_ratio, rms_ratio_error

if TYPE_CHECKING:
    from qdml.evaluation.posterior import Trial
    from qdml.evaluation.scores import Scored

__all__ = ["draw_cell_errors", "draw_coverage", "draw_error_over_bound", "draw_examples", "draw_ranks"]

_NAMES = {"diameter_volume_nm": "$D_v$", "diameter_nm": "$D$", "sigma": "σ", "strain": "ε"}
_COLOURS = {"network": BLUE, "refined": ORANGE, "ideal": GREY}
_TITLES = {"network": "network", "refined": "network + refine", "ideal": "at the bound"}
# Patterns in the figure of examples.
_EXAMPLES = 6
# Most bins of D and of σ where errors over the bound are shown; fewer where one would hold fewer patterns than that.
_BINS, _LEAST = 6, 8
# Points of a network's posterior beyond these quantiles are not shown.
_SHOWN = (0.005, 0.995)


def draw_error_over_bound(answers: Mapping[str, Scored], path: Path) -> None:
    """Root mean square of error over bound, with its standard error, against D and against σ, of every quantity.

    Args:
        answers: `network` and perhaps `refined`.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 4.7)
        panels = figure.subplots(2, len(_NAMES), sharex="row", sharey=True)
        axes_of = (("number mean D (nm)", 0, 1.0), ("dispersion σ (%)", QUANTITIES.index("sigma"), 100.0))
        for row, (label, along, factor) in enumerate(axes_of):
            for axes, (name, title) in zip(panels[row], _NAMES.items(), strict=True):
                axes.axhline(1, color=GREY, lw=0.8, ls="--")
                for who in ("network", "refined"):
                    if who in answers:
                        x, y, error = _binned(answers[who], along, QUANTITIES.index(name))
                        axes.errorbar(
                            factor * x, y, error, color=_COLOURS[who], marker="o", ms=3, lw=1.2, elinewidth=0.7,
                            label=_TITLES[who],
                        )  # fmt: skip
                axes.set(xlabel=label, yscale="log")
                if row == 0:
                    axes.set_title(title)
                axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
                axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            panels[row, 0].set_ylabel("rms of error / bound")
        ticks = [0.5, 0.7, 1, 1.5, 2, 3, 5, 8, 15, 30, 100]
        low, high = panels[0, 0].get_ylim()
        panels[0, 0].set_yticks([tick for tick in ticks if low <= tick <= high])
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        save_figure(figure, path)


def _binned(scored: Scored, along: int, quantity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean position, rms of error over bound and its standard error, of bins of equally many patterns."""
    error, bound = (scored.estimate - scored.truth)[:, quantity], scored.bound[:, quantity]
    order = np.argsort(scored.truth[:, along])
    points = [
        (
            scored.truth[b, along].mean(),
            rms_ratio(error[b], bound[b]),
            rms_ratio_error(error[b], bound[b]) or 0.0,
        )
        for b in np.array_split(order, max(1, min(_BINS, len(order) // _LEAST)))
    ]
    x, y, spread = np.array(points).T
    return x, y, spread


def draw_coverage(answers: Mapping[str, Scored], path: Path) -> None:
    """How often central intervals hold the truth, less what they should, of every quantity.

    Args:
        answers: `network` and perhaps `refined`.
        path: of the PNG.
    """
    import matplotlib as mpl

    level = np.linspace(0.02, 0.98, 49)
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 2.8)
        panels = figure.subplots(1, len(_NAMES), sharey=True)
        for axes, (name, title) in zip(panels, _NAMES.items(), strict=True):
            axes.axhline(0, color=GREY, lw=0.8, ls="--")
            for who in ("network", "refined"):
                if who not in answers:
                    continue
                rank = answers[who].rank[:, QUANTITIES.index(name)]
                covered = (np.abs(rank - 0.5)[:, None] < level / 2).mean(axis=0)
                error = np.sqrt(level * (1 - level) / len(rank))
                axes.fill_between(
                    100 * level, -200 * error, 200 * error, color=_COLOURS[who], alpha=0.12, lw=0
                )
                axes.plot(
                    100 * level, 100 * (covered - level), color=_COLOURS[who], lw=1.2, label=_TITLES[who]
                )
            axes.set(xlabel="central interval (%)", title=title, xlim=(0, 100))
        panels[0].set_ylabel("truth inside,\nless nominal (points)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        save_figure(figure, path)


def draw_ranks(answers: Mapping[str, Scored], path: Path) -> None:
    """Histograms of the rank of the truth: flat for exact posteriors, U-shaped for overconfident ones.

    Args:
        answers: `network` and perhaps `refined`.
        path: of the PNG.
    """
    import matplotlib as mpl

    shown = [who for who in ("network", "refined") if who in answers]
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 1.9 * len(shown) + 0.3)
        panels = figure.subplots(len(shown), len(_NAMES), sharex=True, sharey="row", squeeze=False)
        for row, who in zip(panels, shown, strict=True):
            for axes, (name, title) in zip(row, _NAMES.items(), strict=True):
                rank = answers[who].rank[:, QUANTITIES.index(name)]
                count, p = rank_test(rank)
                relative, n = np.array(count) * len(count) / len(rank), len(count)
                axes.bar((np.arange(n) + 0.5) / n, relative, width=0.9 / n, color=_COLOURS[who])
                # Two standard deviations of a bin of a flat histogram.
                scatter = 2 * np.sqrt(n / len(rank))
                axes.axhspan(1 - scatter, 1 + scatter, color=GREY, alpha=0.25, lw=0, zorder=0)
                axes.set_title(f"{title}, {_TITLES[who]}: p = {p:.2g}")
            row[0].set_ylabel("patterns / expected")
        for axes in panels[-1]:
            axes.set(xlabel="rank of the truth", xlim=(0, 1))
        save_figure(figure, path)


def draw_cell_errors(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Error over bound of every cell.

    Args:
        cells: of the metrics.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 1.3 + 0.22 * len(cells))
        panels = figure.subplots(1, len(_NAMES), sharey=True)
        row = np.arange(len(cells))
        for axes, (name, title) in zip(panels, _NAMES.items(), strict=True):
            axes.axvline(1, color=GREY, lw=0.8, ls="--")
            for who in ("network", "refined"):
                points = [
                    (i, cell[who]["error_over_bound"][name]) for i, cell in enumerate(cells) if who in cell
                ]
                if points:
                    y, x = zip(*points, strict=True)
                    axes.plot(x, y, ls="", marker="o", ms=5, color=_COLOURS[who], label=_TITLES[who])
            axes.set(title=title, xlabel="rms of error / bound", xscale="log")
            axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, 0.8), max(high, 2.0))
            low, high = axes.get_xlim()
            axes.set_xticks([t for t in (0.5, 1, 2, 4, 8, 16, 32, 100) if low <= t <= high])
            axes.grid(axis="y", lw=0.3, color="#dddddd")
            axes.set_axisbelow(True)
        panels[0].set_yticks(row, [cell["cell"] for cell in cells])
        panels[0].set_ylim(len(cells) - 0.5, -0.5)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        save_figure(figure, path)


def draw_examples(trial: Trial, q: np.ndarray, path: Path) -> None:
    """A few patterns from small to large dots: the pattern, and the posterior of D_v and σ about the truth.

    Args:
        trial: all patterns and answers.
        q: (Q,) [Å⁻¹].
        path: of the PNG.
    """
    import matplotlib as mpl

    refined = trial.answers.get("refined")
    candidates = trial.answers["network"].index if refined is None else refined.index
    truth = trial.answers["network"].truth
    order = candidates[np.argsort(truth[candidates, 0])]
    chosen = order[np.linspace(0, len(order) - 1, min(_EXAMPLES, len(order))).astype(int)]
    volume, sigma = QUANTITIES.index("diameter_volume_nm"), QUANTITIES.index("sigma")
    with mpl.rc_context(STYLE):
        figure = new_figure(9.0, 1.7 * len(chosen))
        panels = figure.subplots(len(chosen), 2, width_ratios=(2.2, 1), squeeze=False)
        for (left, right), row in zip(panels, chosen.tolist(), strict=True):
            observed = trial.observation.take(slice(row, row + 1))
            y = observed.intensity[0].double().cpu().numpy()
            visible = observed.mask[0].cpu().numpy() > 0
            left.plot(q, np.where(visible, y / y[visible].mean(), np.nan), color="black", lw=0.6)
            left.set(yscale="log", ylabel="relative I")
            left.set_yticks([0.1, 0.3, 1, 3, 10], labels=["0.1", "0.3", "1", "3", "10"])
            left.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            left.set_ylim(
                0.9 * np.nanmin(y[visible] / y[visible].mean()), 1.2 * (y[visible] / y[visible].mean()).max()
            )
            left.set_xlim(q[0], q[-1])
            left.set_title(
                f"{trial.cells[trial.cell[row]]}: {trial.properties['counts'][row]:.3g} photons a point, dots "
                f"{100 * trial.properties['dots'][row]:.0f} %",
                loc="left",
            )
            for who in ("network", "refined"):
                density = trial.network if who == "network" else trial.refined
                if density is None:
                    continue
                at = row if who == "network" else int(np.flatnonzero(candidates == row)[0])
                points = _points(density.take(slice(at, at + 1)))
                right.plot(
                    points[0], 100 * points[1], ls="", marker=".", ms=1.5, color=_COLOURS[who], alpha=0.35
                )
                right.plot([], [], ls="", marker="o", ms=4, color=_COLOURS[who], label=_TITLES[who])
                if who == "network":
                    right.set_xlim(*np.quantile(points[0], _SHOWN))
                    right.set_ylim(*np.quantile(100 * points[1], _SHOWN))
            right.plot(
                truth[row, volume], 100 * truth[row, sigma], marker="+", ms=9, mew=0.8, color="black", ls="",
                label="truth", clip_on=False,
            )  # fmt: skip
            right.set(ylabel="σ (%)")
            right.locator_params(axis="x", nbins=5)
        panels[-1, 0].set_xlabel("Q (Å⁻¹)")
        panels[-1, 1].set_xlabel("$D_v$ (nm)")
        figure.legend(*panels[0, 1].get_legend_handles_labels(), loc="outside upper right", ncols=3)
        save_figure(figure, path)


def _points(posterior: Any) -> tuple[np.ndarray, np.ndarray]:
    """D_v and σ of points that stand for one posterior."""
    from qdml.answers import posterior_samples, quantities_of

    values = quantities_of(posterior_samples(posterior, seed=0, n=512)[:, 0])
    return values["diameter_volume_nm"].cpu().numpy(), values["sigma"].cpu().numpy()
