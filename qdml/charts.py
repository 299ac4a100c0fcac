"""Figures of training and evaluation: each function draws one PNG. And the style of every figure.

Colours: a sequential map (cividis) for fractions, black for measured or drawn curves, and two hues (blue, orange)
that stay apart for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "GREY",
    "ORANGE",
    "STYLE",
    "draw_activation_maps",
    "draw_cells",
    "draw_confusion",
    "draw_learning_curve",
    "draw_reliability",
    "new_figure",
    "save_figure",
]

BLUE, ORANGE, GREY = "#2f6db3", "#d9822b", "#8a8a8a"
#: Of every figure, for matplotlib's rc_context.
STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size [inch], without pyplot: no global state, no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


# Scores of a posterior that fall as it learns.
_ERRORS = (
    ("volume_diameter_mae_nm", "volume mean", BLUE),
    ("sigma_mae", "dispersion", ORANGE),
    ("strain_mae", "strain", GREY),
)


def draw_learning_curve(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, and validation accuracy of classes or errors of a posterior, over the steps.

    Args:
        lines: of metrics.jsonl.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 2.8)
        loss, right = figure.subplots(1, 2)
        step = [line["step"] for line in lines]
        marker = "o" if len(step) < 40 else ""
        for name, label, colour in (
            ("train_loss", "training", GREY),
            ("validation_loss", "validation", BLUE),
        ):
            loss.plot(
                step, [line[name] for line in lines], color=colour, marker=marker, ms=3, lw=1.2, label=label
            )
        loss.set(xlabel="step", ylabel="loss (nats)")
        if "validation_diameter_accuracy" in lines[0]:
            loss.set_ylim(bottom=0)
            for name, label, colour in (("diameter", "size", BLUE), ("sigma", "dispersion", ORANGE)):
                values = [100 * line[f"validation_{name}_accuracy"] for line in lines]
                right.plot(step, values, color=colour, marker=marker, ms=3, lw=1.2, label=label)
            right.set(ylabel="validation patterns in the right class (%)", ylim=(0, 101))
        else:
            for name, label, colour in _ERRORS:
                values = [line[f"validation_{name}"] / lines[0][f"validation_{name}"] for line in lines]
                right.plot(step, values, color=colour, marker=marker, ms=3, lw=1.2, label=label)
            right.set(ylabel="mean |error| in validation, first look = 1", yscale="log")
        loss.legend()
        right.set(xlabel="step")
        right.legend()
        for axes in (loss, right):
            axes.xaxis.get_major_locator().set_params(integer=True)
        save_figure(figure, path)


def draw_confusion(
    matrices: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]], path: Path
) -> None:
    """Confusion matrices side by side, rows normalised.

    Args:
        matrices: title -> (K, K) counts, row = true class.
        labels: title -> K names.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(4.2 * len(matrices), 3.7)
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
            share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            image = axes.imshow(share, vmin=0, vmax=1, cmap="cividis")
            names, every = list(labels[title]), max(1, len(matrix) // 9)
            ticks = np.arange(0, len(names), every)
            axes.set_xticks(ticks, [names[i] for i in ticks])
            axes.set_yticks(ticks, [names[i] for i in ticks])
            axes.set(xlabel="answer", ylabel="truth", title=title)
            for i, j in zip(*np.nonzero(share >= 0.01), strict=True):
                if len(matrix) <= 8 or i == j:
                    colour = "black" if share[i, j] > 0.6 else "white"
                    size = 7 if len(matrix) <= 8 else 4.5
                    axes.text(
                        j,
                        i,
                        f"{100 * share[i, j]:.0f}",
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=size,
                    )
            figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
        save_figure(figure, path)


def draw_cells(cells: Sequence[str], curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Accuracy of every noise cell, one panel per quantity.

    Args:
        cells: names.
        curves: panel title -> name of a classifier -> accuracy of each cell.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(7.5, max(2.0, 0.9 + 0.17 * len(cells)))
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(panels, curves.items(), strict=True):
            row = np.arange(len(cells))
            for (name, values), colour, marker in zip(
                lines.items(), (BLUE, ORANGE), ("o", "|"), strict=False
            ):
                axes.plot(100 * np.array(values), row, ls="", marker=marker, color=colour, ms=5, label=name)
            axes.set_title(title)
            axes.set_xlabel("right class (%)")
            axes.grid(axis="y", lw=0.3, color="#dddddd")
            axes.set_axisbelow(True)
            lowest = min(min(values) for values in lines.values())
            axes.set_xlim(max(0.0, 100 * lowest - 3), 101)
        panels[0].set_yticks(np.arange(len(cells)), cells)
        panels[0].set_ylim(len(cells) - 0.5, -0.5)
        if len(next(iter(curves.values()))) > 1:
            # Above the panels: inside, there is a point in every corner.
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
        save_figure(figure, path)


def draw_reliability(bins: Mapping[str, Sequence[tuple[int, float, float]]], path: Path) -> None:
    """How often the chosen class is right, against the probability it was given.

    Args:
        bins: name -> (patterns, mean confidence, accuracy) of each bin.
        path: of the PNG.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure = new_figure(3.4, 3.2)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--")
        for (name, values), colour in zip(bins.items(), (BLUE, ORANGE), strict=False):
            # A handful of patterns says nothing about a frequency.
            n, confidence, right = np.array([entry for entry in values if entry[0] >= 10], dtype=float).T
            axes.plot(confidence, right, color=colour, lw=1, label=name)
            # The area of a point is its share of the patterns.
            axes.scatter(confidence, right, s=4 + 120 * n / n.sum(), color=colour, alpha=0.8, lw=0)
        axes.set(
            xlabel="probability of the chosen class", ylabel="it is right", xlim=(0, 1.02), ylim=(0, 1.05)
        )
        axes.legend(loc="upper left")
        save_figure(figure, path)


def draw_activation_maps(
    q: np.ndarray, patterns: np.ndarray, maps: np.ndarray, titles: Sequence[str], path: Path
) -> None:
    """Patterns coloured by how much each Q speaks for the answer.

    Args:
        q: (Q,) [Å⁻¹].
        patterns: (n, Q) as the network sees them.
        maps: (n, Q) activation for the chosen class, less the mean over all classes.
        titles: of each pattern.
        path: of the PNG.
    """
    import matplotlib as mpl
    from matplotlib.collections import LineCollection

    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 1.5 * len(patterns) + 0.4)
        panels = figure.subplots(len(patterns), 1, sharex=True, squeeze=False)[:, 0]
        for axes, y, activation, title in zip(panels, patterns, maps, titles, strict=True):
            bound = float(np.abs(activation).max()) or 1.0
            points = np.stack([q, y], axis=1)
            segments = np.stack([points[:-1], points[1:]], axis=1)
            line = LineCollection(list(segments), array=activation[:-1], cmap="coolwarm", lw=0.9)
            line.set_clim(-bound, bound)
            axes.add_collection(line)
            margin = 0.05 * float(np.ptp(y))
            axes.set(xlim=(q[0], q[-1]), ylim=(y.min() - margin, y.max() + margin), ylabel="input")
            axes.set_title(title, loc="left")
            figure.colorbar(line, ax=axes, label="for (+), against (-)", pad=0.01)
        panels[-1].set_xlabel("Q (Å⁻¹)")
        save_figure(figure, path)
