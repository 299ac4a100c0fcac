"""Measured patterns -> mean size and size dispersion: the command `qd-predict`.

All files are read and checked before the first one is sized. Into the output folder go `results.json`,
`results.csv` and one figure per file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from qdml.measured.answer import Answer
    from qdml.measured.output import Sized
    from qdml.measured.patterns import OnGrid, Pattern, Radiation

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 after a message about the input."""
    options = _parser().parse_args(arguments)
    from qdml.measured.patterns import Radiation

    try:
        radiation = Radiation(
            wavelength=options.wavelength, energy_kev=options.energy_kev, q_unit=options.q_unit
        )
        _run(options.files, radiation, options.model, options.output, options.instrument)
    except (ValueError, OSError) as error:
        print(f"qd-predict: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qd-predict",
        description="Mean size and size dispersion of quantum dots from measured X-ray total scattering patterns.",
        epilog="A FILE is text (or gzip) of two or three columns: 2θ or Q, intensity and perhaps its standard "
        "deviation; the pattern as measured, with solvent and background. "
        "Example: qd-predict sample.xye --wavelength 0.564162 --model runs/quick/model -o sizes",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="measured pattern")
    parser.add_argument("--model", required=True, type=Path, help="folder that qd-train wrote")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUTDIR", help="folder for the results"
    )
    parser.add_argument(
        "--instrument",
        metavar="NAME",
        help="a choice of conf/instrument: resolution and lines of the simulated answer in the figure",
    )
    unit = parser.add_argument_group("what the first column is; there is no default")
    unit.add_argument("--wavelength", type=float, metavar="ANGSTROM", help="2θ in degrees at this wavelength")
    unit.add_argument("--energy-kev", type=float, metavar="KEV", help="2θ in degrees at this photon energy")
    unit.add_argument("--q-unit", metavar="UNIT", help="Q in 1/A or 1/nm (wavelength or energy may be added)")
    return parser


def _run(
    files: Sequence[Path], radiation: Radiation, model: Path, output: Path, instrument: str | None
) -> None:
    """Check everything, size every file, write the results.

    Raises:
        ValueError: model, instrument, files or output folder cannot be used; nothing has been written.
    """
    from rich.console import Console
    from rich.progress import track

    from hpc.instrument.setup import load_instrument
    from qdml.checkpoint import load_model
    from qdml.fitting.instrument import wavelength_of
    from qdml.measured.answer import answer_pattern
    from qdml.measured.figure import draw_answer
    from qdml.measured.inference import model_grid, trained_windows
    from qdml.measured.output import figure_names, make_folder, print_sizes, write_csv

    module, card = load_model(model)
    setup = None if instrument is None else load_instrument(instrument)
    if setup is not None:
        wavelength_of(setup, radiation.energy)
    window, _ = trained_windows(card)
    patterns = _read_all(files, radiation, model_grid(card), window)
    make_folder(output)
    console = Console(width=None if sys.stdout.isatty() else 120)  # a log has room for file names
    figures = figure_names(files)
    answers = []
    for (pattern, on_grid), figure in track(
        list(zip(patterns, figures, strict=True)), description="Sizing", console=console, transient=True
    ):
        answers.append(answer_pattern(module, card, pattern, on_grid, instrument=setup))
        draw_answer(output / figure, answers[-1])
    records = [
        answer.as_record() | {"figure": figure} for answer, figure in zip(answers, figures, strict=True)
    ]
    _write_json(output / "results.json", records, model, card)
    write_csv(output / "results.csv", [_csv_row(record) for record in records])
    print_sizes(console, [_shown(answer) for answer in answers])
    console.print(f"{output}: results.json, results.csv and a figure for each file", highlight=False)


def _read_all(
    files: Sequence[Path], radiation: Radiation, q: np.ndarray, window: tuple[float, float]
) -> list[tuple[Pattern, OnGrid]]:
    """Read and check every file; one message names every file that cannot be used."""
    from qdml.measured.columns import FileError
    from qdml.measured.patterns import read_pattern, regrid

    patterns, problems = [], []
    for path in files:
        try:
            pattern = read_pattern(
                path,
                wavelength=radiation.wavelength,
                energy_kev=radiation.energy_kev,
                q_unit=radiation.q_unit,
            )
            patterns.append((pattern, regrid(pattern, q, window=window)))
        except FileError as error:
            problems.append(str(error))
    if problems:
        first = "" if len(problems) == 1 else f"{len(problems)} of {len(files)} files cannot be used\n  "
        raise ValueError(first + "\n  ".join(problems))
    return patterns


def _write_json(path: Path, records: list[dict[str, Any]], model: Path, card: Mapping[str, Any]) -> None:
    content = {
        "results": records,
        "model": {
            "folder": str(model),
            "material": card["store"]["material"],
            "energy_kev": card["store"]["energy_kev"],
        },
        "intervals": "central 68 % and 95 % of the class probabilities, spread evenly over each class; "
        "what no training pattern had is not in them",
        "version": version("debye-dots"),
    }
    path.write_text(
        json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def _csv_row(record: dict[str, Any]) -> dict[str, str]:
    from qdml.measured.output import estimate_columns

    pattern, fit = record["pattern"], record["display_fit"]
    return {
        "file": record["file"],
        **estimate_columns(record, ("diameter_nm", "diameter_volume_nm", "sigma")),
        "q_min": f"{pattern['q_window'][0]:.5g}",
        "q_max": f"{pattern['q_window'][1]:.5g}",
        "rwp": f"{fit['rwp']:.4g}",
        "explained_structure": f"{fit['explained_structure']:.4g}",
        "warnings": "; ".join(record["warnings"]),
    }


def _shown(answer: Answer) -> Sized:
    """What the console shows of an answer."""
    from qdml.measured.output import Sized

    seen = answer.on_grid
    counts = f"{seen.noise_source.text}, as of {seen.counts:.1e} counts per grid point"
    window = (
        f"{seen.window[0]:.2f} to {seen.window[1]:.2f} Å⁻¹ ({100 * seen.coverage:.0f} % of the model's grid)"
    )
    return Sized(
        file=Path(answer.pattern.source),
        diameter_nm=answer.diameter_nm,
        diameter_volume_nm=answer.diameter_volume_nm,
        sigma=answer.sigma,
        lines=(f"Q {window}, {seen.n_points} points, {counts}", *(f"note: {note}" for note in answer.notes)),
        doubts=answer.doubts,
    )


if __name__ == "__main__":
    sys.exit(main())
