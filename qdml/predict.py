"""Measured patterns -> volume and number mean size, size dispersion: the command `qd-predict`.

All files are read and checked before the first one is sized. Into the output folder go `results.json`,
`results.csv` and one figure per file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdml.files import command

if TYPE_CHECKING:
    from torch import nn

    from qdml.files.patterns import OnGrid, Pattern, Radiation
    from qdml.measured.answer import Answer
    from qdml.measured.posterior_answer import PosteriorAnswer

__all__ = ["main"]

_INTERVALS = {
    "classes": "central 68 % and 95 % of the class probabilities, spread evenly over each class; what no training "
    "pattern had is not in them",
    "posterior": "central 68 % and 95 % of the posterior of the fit (of the network where `answer_of` says so), over "
    "all shapes by their probability; widened for real dots, which are like none of the training "
    "(`within_training`: without that), and by a residual beyond noise and model error",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 after a message about the input."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
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
        "Example: qd-predict sample.xye --wavelength 0.564162 -o sizes",
    )
    command.add_file_options(parser)
    parser.add_argument(
        "--model", type=Path, help="folder that qd-train wrote (default: the PbS model of this package)"
    )
    parser.add_argument(
        "--instrument",
        metavar="NAME",
        help="what measured: a choice of conf/instrument that the model knows (default: from the radiation, said in "
        "the output); for a model of classes, resolution and lines of the simulated answer in the figure",
    )
    parser.add_argument(
        "--resolution",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="of your instrument, relative to the widths in conf/instrument (default: 1)",
    )
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether a fit goes on from the network's posterior (default: yes, where the model is one of posteriors)",
    )
    parser.add_argument(
        "--q-min",
        type=float,
        default=1.2,
        metavar="Q",
        help="a model of posteriors is not shown what lies below: neighbouring dots interfere there (default: 1.2 1/Å)",
    )
    parser.add_argument(
        "--shape",
        metavar="NAME",
        help="of the dots, where it is known; a choice of conf/shape that the model knows (default: every one that the "
        "pattern allows, by its probability)",
    )
    command.add_unit_options(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    """Check everything, size every file, write the results.

    Raises:
        ValueError: model, instrument, files or output folder cannot be used; nothing has been written.
    """
    from rich.progress import track

    from qdml.asking import model_grid
    from qdml.checkpoint import load_model
    from qdml.files.patterns import regrid
    from qdml.shipped import shipped_model

    radiation = command.radiation_of(options)
    folder = options.model or shipped_model()
    module, card = load_model(folder)
    prepare = _posteriors if card["task"] == "posterior" else _classes
    window, size_and_draw = prepare(options, radiation, folder, module, card)
    q = model_grid(card)
    patterns = command.read_all(
        options.files, radiation, lambda pattern: (pattern, regrid(pattern, q, window=window))
    )
    command.make_folder(options.output)
    console, figures = command.new_console(), command.figure_names(options.files)
    answers = [
        size_and_draw(pattern, on_grid, options.output / figure)
        for (pattern, on_grid), figure in track(
            list(zip(patterns, figures, strict=True)), description="Sizing", console=console, transient=True
        )
    ]
    records = [
        answer.as_record() | {"figure": figure} for answer, figure in zip(answers, figures, strict=True)
    ]
    content = {
        "results": records,
        "model": {
            "folder": str(folder),
            "task": card["task"],
            "material": card["store"]["material"],
            "energy_kev": card["store"]["energy_kev"],
        },
        "intervals": _INTERVALS[card["task"]],
    }
    command.write_results(options.output, content, [_csv_row(record) for record in records])
    command.print_sizes(console, [_shown(answer) for answer in answers], options.output)


_Sizer = Callable[["Pattern", "OnGrid", Path], "Answer | PosteriorAnswer"]


def _classes(
    options: argparse.Namespace,
    radiation: Radiation,
    folder: Path,
    module: nn.Module,
    card: Mapping[str, Any],
) -> tuple[tuple[float, float], _Sizer]:
    """What a model of classes has seen of Q, and how it answers one pattern."""
    from hpc.instrument.setup import load_instrument
    from qdml.fitting.instrument import wavelength_of
    from qdml.measured.answer import answer_pattern
    from qdml.measured.figure import draw_answer
    from qdml.measured.inference import trained_windows

    for name, given in (("--refine", options.refine), ("--shape", options.shape)):
        if given:
            raise ValueError(f"{name} is for a model of posteriors; {folder} is one of classes")
    setup = None if options.instrument is None else load_instrument(options.instrument)
    if setup is not None:
        wavelength_of(setup, radiation.energy)

    def size_and_draw(pattern: Pattern, on_grid: OnGrid, figure: Path) -> Answer:
        answer = answer_pattern(module, card, pattern, on_grid, instrument=setup)
        draw_answer(figure, answer)
        return answer

    return trained_windows(card)[0], size_and_draw


def _posteriors(
    options: argparse.Namespace,
    radiation: Radiation,
    folder: Path,
    module: nn.Module,
    card: Mapping[str, Any],
) -> tuple[tuple[float, float], _Sizer]:
    """What a posterior model has seen of Q with this instrument, and how it answers one pattern."""
    from qdml.measured.measurement import measurement_of
    from qdml.measured.posterior_answer import answer_posterior
    from qdml.measured.posterior_figure import draw_posterior
    from qdml.measured.refinement import load_recipe, shape_index

    measurement = measurement_of(
        card,
        energy_kev=radiation.energy,
        instrument=options.instrument,
        resolution_factor=options.resolution,
    )
    recipe = None if options.refine is False else load_recipe(folder, card)
    variants = None if options.shape is None else shape_index(card, options.shape)
    if variants is not None and recipe is None:
        raise ValueError(
            "--shape is for the fit, which --no-refine leaves out; the network answers for every shape"
        )
    answer_of = partial(
        answer_posterior,
        module,
        card,
        measurement=measurement,
        recipe=recipe,
        variants=variants,
    )

    def size_and_draw(pattern: Pattern, on_grid: OnGrid, figure: Path) -> PosteriorAnswer:
        answer = answer_of(pattern, on_grid)
        draw_posterior(figure, answer)
        return answer

    return measurement.window(card, options.q_min), size_and_draw


def _csv_row(record: dict[str, Any]) -> dict[str, str]:
    pattern, fit = record["pattern"], record["display_fit"]
    names = ("diameter_nm", "diameter_volume_nm", "sigma", "strain")
    return {
        "file": record["file"],
        **command.estimate_columns(record, [name for name in names if record[name] is not None]),
        "sized": "yes" if record["sized"] else "no",
        "q_min": f"{pattern['q_window'][0]:.5g}",
        "q_max": f"{pattern['q_window'][1]:.5g}",
        "rwp": f"{fit['rwp']:.4g}",
        "explained_structure": f"{fit['explained_structure']:.4g}",
        "warnings": "; ".join(record["warnings"]),
    }


def _shown(answer: Answer | PosteriorAnswer) -> command.Sized:
    """What the console shows of an answer."""
    seen = answer.on_grid
    noise = f"{seen.noise_source.text}, as of {seen.counts:.1e} counts per grid point"
    window = (
        f"{seen.window[0]:.2f} to {seen.window[1]:.2f} Å⁻¹ ({100 * seen.coverage:.0f} % of the model's grid)"
    )
    return command.Sized(
        file=Path(answer.pattern.source),
        diameter_nm=answer.diameter_nm,
        diameter_volume_nm=answer.diameter_volume_nm,
        sigma=answer.sigma,
        lines=(
            f"Q {window}, {seen.n_points} points, {noise}",
            *answer.lines,
            *(f"note: {note}" for note in answer.notes),
        ),
        refusals=answer.refusals,
        doubts=answer.doubts,
    )


if __name__ == "__main__":
    sys.exit(main())
