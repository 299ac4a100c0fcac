"""The figure of one fit: the pattern and its parts, the residual, the profile along σ, the size distribution."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qdml.answers import Estimate
from qdml.charts import STYLE
from qdml.fitting.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_fit"]

_MEASURED, _FIT, _BAND, _GUIDE = "#222222", "#c8402f", "#ececec", "#9a9a9a"
_DOTS, _MORE_DOTS, _BACKGROUND, _HALO = "#2f6f9f", ("#54b0c7", "#1f3f7f"), "#9a7fb5", "#d08f3f"
_SOLVENT = ("#3f8f5f", "#8fb04f", "#b0a03f")


def draw_fit(path: Path, fit: Fit) -> None:
    """Draw one fit into a PNG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(2.3, 1), height_ratios=(2.6, 1))
        top = figure.add_subplot(grid[0, 0])
        bottom = figure.add_subplot(grid[1, 0], sharex=top)
        _draw_pattern(top, fit)
        _draw_residual(bottom, fit)
        top.tick_params(labelbottom=False)
        figure.align_ylabels([top, bottom])
        right = grid[:, 1].subgridspec(2, 1)
        _draw_profile(figure.add_subplot(right[0]), fit)
        _draw_sizes(figure.add_subplot(right[1]), fit)
        figure.suptitle(Path(fit.pattern.source).name, fontsize=9, x=0.01, ha="left", parse_math=False)
        figure.savefig(path, dpi=200)


def _seen(fit: Fit, values: np.ndarray) -> np.ndarray:
    """Values at the compared points -> on the whole grid, with gaps where nothing was compared."""
    full = np.full(len(fit.points.q), np.nan)
    full[fit.points.mask] = values
    return full


def _draw_pattern(axes: Axes, fit: Fit) -> None:
    q, unit = fit.points.q, float(fit.points.y.max())
    axes.plot(q, _seen(fit, fit.points.y) / unit, color=_MEASURED, lw=1.6, label="measured")
    axes.plot(q, _seen(fit, fit.total) / unit, color=_FIT, lw=0.7, label="fit")
    solvents, dots = itertools.cycle(_SOLVENT), itertools.chain([_DOTS], itertools.cycle(_MORE_DOTS))
    lowest = 0.0
    for name, curve in fit.contributions.items():
        if name.startswith("dots"):
            color, label = next(dots), name
        elif name == "background":
            color, label = _BACKGROUND, "smooth background"
        elif name == "halo":
            color, label = _HALO, "halo"
        else:
            color, label = next(solvents), Path(name).name
        if not curve.any():
            continue
        share = 100 * float(curve.sum()) / float(fit.total.sum())
        axes.plot(q, _seen(fit, curve) / unit, color=color, lw=0.8, label=f"{label} ({share:.0f} %)")
        lowest = min(lowest, float(curve.min()) / unit)
    axes.axhline(0, color=_GUIDE, lw=0.4, zorder=0)
    axes.set_ylim(1.1 * lowest, 1.05)
    axes.set_ylabel("Intensity / maximum")
    best = fit.best
    b = ", ".join(f"B$_\\mathrm{{{n[2:]}}}$ {v:.2f}" for n, v in best.items() if n.startswith("b_"))
    c = ", ".join(f"{v:.2f}" for n, v in best.items() if n.startswith("correlation_"))
    title = [
        f"R$_\\mathrm{{wp}}$ {100 * fit.rwp:.2f} %, explains {100 * max(fit.explained, 0):.1f} %",
        f"ε {100 * best['strain']:+.2f} %, {b} Å$^2$",
    ]
    if c:
        title.append(f"correlated motion {c}")
    if fit.gains:
        gains = list(fit.gains.items())[:5]
        title.append("gains " + ", ".join(f"{name}: {gain:.1f}" for name, gain in gains))
    axes.legend(loc="upper right", title="\n".join(title), title_fontsize=7, alignment="left")


def _draw_residual(axes: Axes, fit: Fit) -> None:
    """Measured over fitted, within what the weights expect."""
    q, y = fit.points.q, fit.points.y
    residual = 100 * (y - fit.total) / fit.total
    expected = _seen(fit, 100 / (fit.points.weight * y))
    limit = 1.15 * max(float(np.percentile(np.abs(residual), 99.8)), float(np.nanmedian(expected)))
    axes.fill_between(q, -expected, expected, color=_BAND, lw=0, label="± σ of the weights")
    axes.axhline(0, color=_FIT, lw=0.8)
    axes.plot(q, _seen(fit, residual), color=_MEASURED, lw=0.6)
    axes.set_ylim(-limit, limit)
    axes.set_xlim(q[0], q[-1])
    axes.set_xlabel("Q (Å$^{-1}$)")
    axes.set_ylabel("Residual (%)")
    axes.legend(loc="upper right", handlelength=1.2)


def _draw_profile(axes: Axes, fit: Fit) -> None:
    """Rise of χ² along σ, and the size that belongs to each σ."""
    profile = fit.profile
    sigma = 100 * profile.values
    rise = (profile.cost - profile.cost.min()) / profile.unit
    axes.set_title(
        f"σ = {fit.sigma.text(1, factor=100)} %\nD = {fit.diameter_nm.text(2)} nm\n"
        f"D$_\\mathrm{{vol}}$ = {fit.diameter_volume_nm.text(2)} nm",
        fontsize=7,
    )
    axes.set_xlabel("Size dispersion σ (%)")
    if len(sigma) < 3:
        axes.text(0.5, 0.5, "σ was held", transform=axes.transAxes, ha="center", color=_GUIDE)
        axes.set_axis_off()
        return
    from scipy.interpolate import PchipInterpolator

    fine = np.linspace(sigma[0], sigma[-1], 300)
    best = int(np.argmin(rise))
    root = PchipInterpolator(sigma, np.where(np.arange(len(rise)) < best, -1, 1) * np.sqrt(rise))
    for level in (1, 4):
        axes.axhline(level, color=_GUIDE, lw=0.5, ls=":")
    axes.plot(fine, root(fine) ** 2, color=_FIT, lw=1)
    axes.plot(sigma, rise, "o", ms=3, color=_FIT)
    _mark(axes, fit.sigma, 100, -0.55)
    axes.set_ylim(-1, min(12.0, 1.05 * float(rise.max())) + 0.6)
    axes.set_ylabel("Rise of χ² / s²τ", color=_FIT)
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    other.plot(fine, PchipInterpolator(sigma, fit.profile_diameter_nm)(fine), color=_DOTS, lw=0.9, ls="--")
    other.set_ylabel("best D (nm)", color=_DOTS)


def _draw_sizes(axes: Axes, fit: Fit) -> None:
    """Number and volume distribution of the diameters at the minimum."""
    d, sigma = fit.best["diameter_nm"], max(fit.best["sigma"], 1e-3)
    s = np.sqrt(np.log1p(sigma**2))
    mu = np.log(d) - s**2 / 2
    x = np.linspace(np.exp(mu - 3.3 * s), np.exp(mu + 3 * s**2 + 3.3 * s), 400)
    for shift, color, label in ((0.0, _FIT, "numbers"), (3.0, _DOTS, "volumes")):
        density = np.exp(-0.5 * ((np.log(x) - mu - shift * s**2) / s) ** 2) / (x * s * np.sqrt(2 * np.pi))
        axes.fill_between(x, density, color=color, alpha=0.15, lw=0)
        axes.plot(x, density, color=color, lw=1, label=label)
    top = axes.get_ylim()[1]
    _mark(axes, fit.diameter_nm, 1, 1.05 * top, color=_FIT)
    _mark(axes, fit.diameter_volume_nm, 1, 1.14 * top, color=_DOTS)
    axes.set_ylim(0, 1.4 * top)
    axes.set_xlabel("Diameter (nm)")
    axes.set_ylabel("Density (1/nm)")
    axes.legend(
        loc="upper center", handlelength=0.9, handletextpad=0.4, columnspacing=0.9, ncols=2, fontsize=6.5
    )


def _mark(axes: Axes, estimate: Estimate, factor: float, height: float, color: str = _MEASURED) -> None:
    """Mean, 68 % and 95 % interval as a bar."""
    for low, high, width in ((estimate.lo95, estimate.hi95, 0.8), (estimate.lo68, estimate.hi68, 2.4)):
        axes.plot([factor * low, factor * high], [height] * 2, color=color, lw=width, solid_capstyle="butt")
    axes.plot(factor * estimate.mean, height, "o", ms=2.6, color="white", mec=color)
