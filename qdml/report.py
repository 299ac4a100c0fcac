"""One run as one HTML file: `python -m qdml.report RUNDIR`.

Reads what the commands wrote into the run's folder and computes nothing itself:

    RUNDIR/store.zarr     qd-simulate
    RUNDIR/model          qd-train
    RUNDIR/evaluation     qd-evaluate
    RUNDIR/sizes          qd-predict

Every figure is embedded, so the file can be sent around on its own. Parts that the run does not have are named.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["main", "write_report"]

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 66rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ddd }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem } p { max-width: 46rem } .quiet { color: #66707c }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e6e8eb; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th { font-weight: 600; border-color: #9aa3ad }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0 } ul { margin: .3rem 0; padding-left: 1.2rem }
.doubt { color: #9a3412 } summary { color: #66707c; cursor: pointer } pre { font-size: .75rem; overflow-x: auto }
"""

_EXPLANATION = (
    "D: number-mean diameter; σ: its relative standard deviation; D_vol = D(1 + σ²)³; in brackets 68 %: "
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m qdml.report",
        description="Write the report of a run: one HTML file with all its figures.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUNDIR", help="folder with store.zarr, model, evaluation, sizes"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the report (default: RUNDIR/report.html)"
    )
    options = parser.parse_args(arguments)
    output = options.output or options.run / "report.html"
    try:
        write_report(options.run, output)
    except ValueError as error:
        print(f"qdml.report: error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


def write_report(run: Path, output: Path) -> None:
    """Collect a run into one HTML file.

    Args:
        run: the folder of the run.
        output: the file to write.

    Raises:
        ValueError: the folder holds no part of a run, a part is damaged, or the file cannot be written.
    """
    makers = {
        "Sizes": (run / "sizes" / "results.json", _sizes),
        "How good the model is": (run / "evaluation" / "metrics.json", _evaluation),
        "Training": (run / "model" / "card.json", _training),
        "Simulation": (run / "store.zarr" / "zarr.json", _simulation),
    }
    if not any(file.is_file() for file, _ in makers.values()):
        raise ValueError(
            f"{run} holds no run: expected one of "
            + ", ".join(str(file.relative_to(run)) for file, _ in makers.values())
            + "; give the folder that the commands wrote into"
        )
    title = escape(f"Sizes of quantum dots: run {run.resolve().name}")
    body = [f"<h1>{title}</h1>"]
    for heading, (file, make) in makers.items():
        body.append(f"<h2>{heading}</h2>")
        missing = [f'<p class="quiet">Not in this run: there is no {escape(str(file))}.</p>']
        body += make(file) if file.is_file() else missing
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write {output}: {error.strerror}; name another file with -o") from None


def _sizes(file: Path) -> list[str]:
    """Table and figures of `qd-predict`; beside the truth of patterns that `qdml.example` wrote into the run."""
    content = _read(file)
    records = content["results"]
    truth = {
        one["file"]: one for known in sorted(file.parent.parent.glob("*/truth.json")) for one in _read(known)
    }
    known = any(Path(record["file"]).name in truth for record in records)
    head = [
        "file",
        *(cell for name in ("D_vol (nm)", "D (nm)", "σ (%)") for cell in (name, *["true"] * known)),
    ]
    rows = []
    for record in records:
        entry = truth.get(Path(record["file"]).name, {})
        row = [Path(record["file"]).name]
        for name, factor, decimals in (
            ("diameter_volume_nm", 1, 2),
            ("diameter_nm", 1, 2),
            ("sigma", 100, 1),
        ):
            mean, low, high = (
                f"{factor * record[name][part]:.{decimals}f}" for part in ("mean", "lo68", "hi68")
            )
            row.append(f"{mean} [{low}, {high}]" if record.get("sized", True) else "not sized")
            if known:
                row.append(f"{factor * entry[name]:.{decimals}f}" if entry else "-")
        rows.append([*row, f"{record['pattern']['q_window'][0]:.2f}-{record['pattern']['q_window'][1]:.2f}"])
    parts = [
        _table([*head, "Q (Å⁻¹)"], rows),
        f'<p class="quiet">{_EXPLANATION}{escape(content["intervals"])}.</p>',
    ]
    for record in records:
        parts.append(_image(file.parent / record["figure"]))
        parts += _bullets(record["warnings"], "doubt") + _bullets(record["notes"], "quiet")
    return parts


def _evaluation(file: Path) -> list[str]:
    """Numbers and figures of `qd-evaluate`."""
    from qdml.evaluation.summary import class_lines, posterior_lines, stress_lines

    metrics = _read(file)
    lines = [
        *(posterior_lines(metrics["posterior"]) if "posterior" in metrics else []),
        *(class_lines(metrics["classes"]) if "classes" in metrics else []),
        *stress_lines(metrics["stress"]),
    ]
    split = "all patterns" if metrics["split"] == "all" else f"the {metrics['split']} split"
    return [
        f"<p>Of {escape(split)}; 1 is an error at the Cramér-Rao bound.</p>",
        f"<pre>{escape(chr(10).join(lines))}</pre>",
        *map(_image, sorted(file.parent.glob("*.png"))),
        _details(file.name, metrics),
    ]


def _training(file: Path) -> list[str]:
    """The learning curve and the card of `qd-train`."""
    card = _read(file)
    answers = "posterior of (ln D_v, ln σ, ε)"
    if card["task"] == "classes":
        sizes, dispersions = (len(card["classes"][name]) for name in ("diameter_nm", "sigma"))
        answers = f"{sizes} classes of size, {dispersions} of dispersion"
    facts = {
        "network": card["architecture"]["name"],
        "answers": answers,
        **(card["trained"] or {}),
        **(card["metrics"] or {}),
    }
    return [*map(_image, sorted(file.parent.glob("*.png"))), _facts(facts), _details(file.name, card)]


def _simulation(file: Path) -> list[str]:
    """The attributes of the store of `qd-simulate`."""
    from hpc.store import open_store

    store = open_store(file.parent)
    parameters = {
        name: f"{values.min():.4g} to {values.max():.4g}, {len(set(values))} value{'s' * (len(set(values)) > 1)}"
        for name, values in store.parameters.items()
    }
    return [
        _facts(
            {
                "material": store.attrs["material"],
                "photon energy (keV)": store.attrs["energy_kev"],
                "patterns": store.n_samples,
                **parameters,
                "Q (Å⁻¹)": f"{store.q[0]:g} to {store.q[-1]:g}, {len(store.q)} points",
                "device": store.attrs["device"],
            }
        )
    ]


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); run the command that writes it again") from None


def _details(name: str, content: Any) -> str:
    """All of a JSON file, folded away."""
    text = escape(json.dumps(content, indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>"


def _facts(facts: Mapping[str, Any]) -> str:
    """A two-column table."""
    shown = [
        [key, f"{value:.4g}" if isinstance(value, float) else str(value)] for key, value in facts.items()
    ]
    return _table([], shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<table>" + (line("th", head) if head else "") + "".join(line("td", row) for row in rows) + "</table>"
    )


def _bullets(items: Sequence[str], kind: str) -> list[str]:
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return [f'<ul class="{kind}">{lines}</ul>'] if items else []


def _image(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<img alt="{escape(file.stem)}" src="data:image/png;base64,{data}">'


if __name__ == "__main__":
    sys.exit(main())
