"""What a person reads in ten seconds: lines of text from metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["class_lines", "posterior_lines", "stress_lines"]

_NAMES = {"diameter_nm": "size", "sigma": "dispersion"}
_QUANTITIES = {"diameter_volume_nm": "D_v", "diameter_nm": "D", "sigma": "σ", "strain": "ε"}


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
        f"{'':24s}{'error over bound':^31s}  {'in 68 / 95 % interval':^23s}  {'ranks':^7s}  σ error  right class",
        f"{'':24s}{'':2s}D_v     D     σ     ε  median       {'D_v':^11s} {'σ':^11s}  smallest  / prior  size / σ",
    ]
    titles = {
        "network": "network",
        "network, refined patterns": "network (those refined)",
        "refined": "network + refine",
        "ideal": "ideal, at the bound",
    }
    for who, title in titles.items():
        if who not in metrics["all"]:
            continue
        lines.append(f"{title:24s}{_row(metrics['all'][who])}")
    for part, title in (("regular", "all but"), ("nearly_degenerate", "only")):
        for who in ("network", "refined"):
            if who in metrics[part]:
                scores = metrics[part][who]
                lines.append(
                    f"{who + ', ' + title:24s}{_row(scores)}  D < 3 nm & σ < 8 %: {scores['patterns']}"
                )
    lines.append("error over bound of D_v / D / σ / ε by cell, network -> refine; right size class:")
    lines += [f"  {cell['cell']:22s}{_cell(cell)}" for cell in metrics["cells"]]
    seconds = ", ".join(
        f"{name} {1e3 * value:.3g} ms" for name, value in metrics["seconds_per_pattern"].items()
    )
    converged = metrics["converged"]
    tail = "" if converged is None else f"; {100 * converged:.0f} % of the fits converged"
    lines.append(f"each pattern: {seconds}{tail}")
    return lines


def stress_lines(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The stress table: right size class of the model, with refine, of the published network, and the goal."""
    if not rows:
        return []
    with_grid = any("on_grid" in row["network"] for row in rows.values())
    refined = any("refined" in row for row in rows.values())
    head = f"{'stress table: right size class (%)':36s}{'network':>8s}"
    if with_grid:
        head += f"{'on grid':>9s}{'D_v':>7s}"
    if refined:
        head += f"{'refined':>9s}{'on grid':>9s}{'D_v':>7s}"
    lines = [head + f"{'published':>11s}{'goal':>7s}"]
    for row in rows.values():
        network = row["network"]
        line = f"{row['title']:36s}{_number(network['nearest']):>8s}"
        if with_grid:
            line += f"{_number(network.get('on_grid')):>9s}{_number(network.get('volume')):>7s}"
        if refined:
            found = row.get("refined", {})
            line += f"{_number(found.get('nearest')):>9s}{_number(found.get('on_grid')):>9s}"
            line += f"{_number(found.get('volume')):>7s}"
        goal = (
            "-" if row["goal"] is None else f"{100 * row['goal']:.1f}{'v' if row['goal_on_volume'] else ''}"
        )
        lines.append(line + f"{100 * row['published']:>11.1f}{goal:>7s}")
    for row in rows.values():
        lines += [f"  {row['title']}: {note}" for note in row["notes"]]
    first = next(iter(rows.values()))
    fitted = f", {first['refined']['patterns']} refined" if "refined" in first else ""
    lines.append(f"{first['patterns']} patterns in each set{fitted}; v: goal on D_v")
    return lines


def _row(scores: Mapping[str, Any]) -> str:
    ratio, coverage = scores["error_over_bound"], scores["coverage"]
    median = max(scores["median_error_over_bound"].values())
    ratios = " ".join(f"{ratio[name]:5.2f}" for name in _QUANTITIES)
    covered = " ".join(
        f"{100 * coverage[name]['68']:4.1f} / {100 * coverage[name]['95']:4.1f}"
        for name in ("diameter_volume_nm", "sigma")
    )
    smallest = min(scores["rank_p_value"].values())
    return (
        f"{ratios} {median:6.2f}   {covered}  {smallest:8.1g}  {scores['sigma_over_prior']:7.2f}  "
        f"{_number(scores['size_accuracy'])} / {_number(scores['dispersion_accuracy'])}"
    )


def _cell(cell: Mapping[str, Any]) -> str:
    def ratios(who: str) -> str:
        values = cell[who]["error_over_bound"]
        return " / ".join(f"{values[name]:.2f}" for name in _QUANTITIES)

    text = ratios("network")
    size = _percent(cell["network"]["size_accuracy"])
    if "refined" in cell:
        text += f" -> {ratios('refined')}"
        size += f" -> {_percent(cell['refined']['size_accuracy'])}"
    return f"{text}; {size} (ideal {_percent(cell['ideal']['size_accuracy'])})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
