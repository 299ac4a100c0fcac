"""What a person reads in ten seconds: lines of text from metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["class_lines", "posterior_lines", "stress_lines"]

_NAMES = {"diameter_nm": "size", "sigma": "dispersion"}
_MODEL = ("network", "refined")
_QUANTITIES = {"diameter_volume_nm": "D_v", "diameter_nm": "D", "sigma": "σ", "strain": "ε"}

# Widths as in `_row`.
_ABOVE = (" " * 25, f"{'rms of error / bound':^23s} ", f"{'median':^11s}  ", f"{'truth in 68 % (95 %)':^25s}")
_BELOW = (
    " " * 25,
    *(f"{name:>5s}" for name in ("D_v", "D", "σ", "ε", " D_v", "σ")),
    f"   {'D_v':^12s} {'σ':^12s}",
)
_HEAD = (
    " ".join([*_ABOVE, f"{'ranks':>8s} {'σ error':>9s}  {'right class':>15s}"]),
    " ".join([*_BELOW, f"{'p':>8s} {'/ spread':>9s}  {'size':>8s}{'σ':>7s}"]),
)


def class_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Accuracy of classes beside the exact classifier and the published numbers."""
    lines = [
        f"{metrics['samples']} patterns x {metrics['draws']} draws x {len(metrics['cells'])} noise cells"
    ]
    ceiling, published = metrics["exact_classifier"], metrics.get("published")
    for name, title in _NAMES.items():
        score, unit = metrics["network"][name], " nm" if name == "diameter_nm" else ""
        lines.append(
            f"{title:10s}  right class {100 * score['accuracy']:5.1f} %"
            f", worst cell {100 * score['worst_cell_accuracy']:5.1f} %"
            f"; mean error {score['mean_absolute_error']['mean']:.3g}{unit}"
            f"; calibration error {100 * score['expected_calibration_error']:.1f} %"
        )
        if ceiling:
            exact = ceiling[name]
            lines.append(
                f"{'':10s}  exact classifier, same patterns: {100 * exact['accuracy']:.1f} %, "
                f"worst cell {100 * exact['worst_cell_accuracy']:.1f} %"
            )
        if published:
            key = "diameter" if name == "diameter_nm" else "sigma"
            for who, values in published.items():
                overall, worst = (_percent(values[k]) for k in (key, f"worst_{key}"))
                lines.append(f"{'':10s}  {who}, reference: {overall}, worst cell {worst}")
    return lines


def posterior_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Error over the bound, coverage, ranks and classes, of network, refine and an ideal estimator."""
    n = {who: metrics["all"][who]["patterns"] for who in metrics["all"]}
    lines = [
        f"{metrics['patterns']} patterns in {len(metrics['cells'])} cells, {n.get('refined', 0)} of them refined",
        *_HEAD,
    ]
    titles = {
        "network": "network",
        "network, refined patterns": "network, those refined",
        "refined": "network + refine",
        "classical": "classical fit (qd-fit)",
        "ideal": "ideal, at the bound",
    }
    lines += [f"{t:26s}{_row(metrics['all'][who])}" for who, t in titles.items() if who in metrics["all"]]
    regular, degenerate = metrics["regular"], metrics["nearly_degenerate"]
    if degenerate:
        apart = degenerate["network"]["patterns"]
        lines.append(f"D < 3 nm & σ < 8 %, nearly degenerate: {apart} patterns apart, then the others")
        for part in (degenerate, regular):
            lines += [
                f"  {titles[who]:24s}{_row(part[who])}" for who in ("network", "refined") if who in part
            ]
    lines.append("error / bound (rms) of D_v, D, σ, ε by cell, network -> refine; right size class:")
    lines += [f"  {cell['cell']:24s}{_cell(cell)}" for cell in metrics["cells"]]
    mean = metrics["mean_over_cells"]
    lines.append(
        f"  {'mean over cells':24s}" + " -> ".join(_means(mean[who]) for who in _MODEL if who in mean)
    )
    lines.append(
        f"  {'median of each, mean':24s}"
        + " -> ".join(_ratios(mean[who]["median_error_over_bound"]) for who in _MODEL if who in mean)
    )
    guess = metrics["guess"]
    known = "" if guess["log_b_explained"] is None else f", {100 * guess['log_b_explained']:.0f} % of ln B"
    lines.append(
        f"network's guess of the rest: right shape {100 * guess['variant_accuracy']:.1f} % (-ln p "
        f"{guess['variant_log_loss']:.2f}), variance explained: {100 * guess['latents_explained']:.0f} % of latents"
        + known
    )
    lines.append(_time_and_fits(metrics["seconds_per_pattern"], metrics["fits"]))
    return lines


def _means(mean: Mapping[str, Any]) -> str:
    """Errors over the bound with their standard errors."""
    ratio, error = mean["error_over_bound"], mean["error_over_bound_error"]
    return "  ".join(
        f"{ratio[name]:.2f}" + ("" if error[name] is None else f"±{error[name]:.2f}") for name in _QUANTITIES
    )


def _time_and_fits(seconds: Mapping[str, float], fits: Mapping[str, float] | None) -> str:
    text = "each pattern: " + ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in seconds.items())
    if fits is None:
        return text
    converged, explained, right = (100 * fits[key] for key in ("converged", "explained", "right_variant"))
    return (
        f"{text}; {converged:.0f} % of the fits converged, {explained:.0f} % explain all but noise, right shape "
        f"{right:.0f} %, {fits['derivatives']:.1f} derivatives a pattern"
    )


def stress_lines(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The stress table: what is right of network, refine and an estimator at the bound; published network; goal."""
    if not rows:
        return []
    with_grid = any("on_grid" in row["network"] for row in rows.values())
    refined = any("refined" in row for row in rows.values())
    three = f"{'class':>8s}{'grid':>7s}{'D_v':>7s}"
    above = f"{'':30s}" + (f"{'network':^22s}" if with_grid else f"{'network':>8s}")
    head = f"{'stress table: right (%)':30s}" + (three if with_grid else f"{'class':>8s}")
    if refined:
        above += f"{'refined':^22s}{'at the bound':^15s}"
        head += three + f"{'class':>8s}{'D_v':>7s}"
    lines = [above.rstrip(), head + f"{'published':>11s}{'goal':>8s}"]
    for row in rows.values():
        line = f"{row['title']:30s}" + _shares(row["network"], with_grid)
        if refined:
            bound = row.get("ceiling", {})
            line += _shares(row.get("refined", {}), True)
            line += f"{_number(bound.get('nearest')):>8s}{_number(bound.get('volume')):>7s}"
        goal = (
            "-" if row["goal"] is None else f"{100 * row['goal']:.1f}{'v' if row['goal_on_volume'] else ''}"
        )
        lines.append(line + f"{100 * row['published']:>11.1f}{goal:>8s}")
    for row in rows.values():
        lines += [f"  {row['title']}: {note}" for note in row["notes"]]
    first = next(iter(rows.values()))
    text = f"{first['patterns']} patterns in each set"
    if "refined" in first:
        n, fits = first["refined"]["patterns"], [row["fits"] for row in rows.values() if "fits" in row]
        shapes = [one["right_variant"] for one in fits if one["right_variant"] is not None]
        text += (
            f", {n} refined (a share of 95 % is known to {100 * (0.05 * 0.95 / n) ** 0.5:.1f}): "
            f"{100 * _mean([one['converged'] for one in fits]):.0f} % converged, "
            f"{100 * _mean([one['explained'] for one in fits]):.0f} % explained, "
            f"{_mean([one['derivatives'] for one in fits]):.1f} derivatives, "
            f"{1e3 * _mean([one['seconds'] for one in fits]):.3g} ms a pattern"
        )
        text += f", right shape {100 * _mean(shapes):.0f} %" if shapes else ""
    lines.append(text + "; grid: of the published hypotheses; v: goal on D_v")
    return lines


def _shares(scores: Mapping[str, float], three: bool) -> str:
    text = f"{_number(scores.get('nearest')):>8s}"
    return (
        text + f"{_number(scores.get('on_grid')):>7s}{_number(scores.get('volume')):>7s}" if three else text
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _ratios(values: Mapping[str, float]) -> str:
    return "  ".join(f"{values[name]:.2f}" for name in _QUANTITIES)


def _row(scores: Mapping[str, Any]) -> str:
    ratio, median, coverage = (
        scores[name] for name in ("error_over_bound", "median_error_over_bound", "coverage")
    )
    ratios = " ".join(f"{ratio[name]:5.2f}" for name in _QUANTITIES)
    medians = " ".join(f"{median[name]:5.2f}" for name in ("diameter_volume_nm", "sigma"))
    covered = " ".join(
        f"{100 * coverage[name]['68']:5.1f} ({100 * coverage[name]['95']:4.1f})"
        for name in ("diameter_volume_nm", "sigma")
    )
    return (
        f"{ratios}  {medians}   {covered} {min(scores['rank_p_value'].values()):8.1g} "
        f"{scores['sigma_over_prior']:9.2f}  {_number(scores['size_accuracy']):>8s}"
        f"{_number(scores['dispersion_accuracy']):>7s}"
    )


def _cell(cell: Mapping[str, Any]) -> str:
    text = _ratios(cell["network"]["error_over_bound"])
    size = _percent(cell["network"]["size_accuracy"])
    if "refined" in cell:
        text += f" -> {_ratios(cell['refined']['error_over_bound'])}"
        size += f" -> {_percent(cell['refined']['size_accuracy'])}"
    return f"{text}; {size} (ideal {_percent(cell['ideal']['size_accuracy'])})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
