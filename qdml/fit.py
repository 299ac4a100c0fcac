"""Measured patterns -> sizes by least squares: the command `qd-fit`.

All files are read and checked before the first one is fitted. Into the output folder go `results.json`,
`results.csv` and one figure per file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdml.files import command

if TYPE_CHECKING:
    from hpc.structure.variant import Variant
    from qdml.files.patterns import Pattern, Radiation
    from qdml.fitting.settings import FitSettings

__all__ = ["main"]

_INTERVALS = (
    "central 68 % and 95 % of the profile of χ² along σ, scaled by the residual and its correlation; an error of the "
    "model that looks like another size is not in them"
)
# Groups of a variant that have an option of their own; the shape has a default.
_GROUPS = ("surface", "lattice", "faults", "disorder", "coating", "motion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 2 after a message about the input."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        print(f"qd-fit: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qd-fit",
        description="Mean size, size dispersion and strain of quantum dots from measured X-ray total scattering "
        "patterns, by a least-squares fit of the Debye scattering equation.",
        epilog="A FILE is text (or gzip) of two or three columns: 2θ or Q, intensity and perhaps its standard "
        "deviation; the pattern as measured, with solvent and background. "
        "Example: qd-fit sample.xye --wavelength 0.564162 --material pbs --solvent hexane -o sizes",
    )
    command.add_file_options(parser)
    command.add_unit_options(parser)
    dots = parser.add_argument_group("the dots (as for qd-pattern)")
    dots.add_argument(
        "--material", required=True, metavar="NAME", help="a material of conf/material, or a .cif file"
    )
    dots.add_argument("--shape", default="sphere", metavar="NAME", help="default: sphere")
    for group in _GROUPS:
        dots.add_argument(f"--{group}", metavar="NAME", help=f"a choice of conf/{group}")
    dots.add_argument("--centre", nargs="+", metavar="WHERE", help="cut centres to average over")
    dots.add_argument("--b-iso", nargs="+", metavar="B", help="tabulated B [Å²], around which B is free")
    dots.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="one value of a group, for example faults.growth=0.02",
    )
    dots.add_argument(
        "--also",
        nargs="+",
        action="append",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="a second sort of dots that differs by these, in a free fraction; may be repeated",
    )
    rest = parser.add_argument_group("what else is in the pattern")
    rest.add_argument(
        "--instrument", metavar="NAME", help="resolution and lines of a choice of conf/instrument"
    )
    rest.add_argument(
        "--solvent",
        action="append",
        default=[],
        metavar="NAME|FILE[@ANGSTROM]",
        help="a liquid of conf/liquid, or a measured file (at another wavelength after @); may be repeated",
    )
    rest.add_argument(
        "--container",
        action="append",
        default=[],
        metavar="NAME",
        help="a wall of conf/container; may be repeated",
    )
    rest.add_argument(
        "--texture",
        nargs="?",
        const="direction",
        choices=("direction", "reflection"),
        help="an oriented (dried) sample: free gains of directions 111, 100, ..., or of single reflections",
    )
    rest.add_argument(
        "--halo", type=int, metavar="N", help="free terms of a disordered shell, at the first N shells"
    )
    how = parser.add_argument_group("how it is fitted (defaults: conf/fit/default.yaml)")
    how.add_argument(
        "--q-range", nargs=2, type=float, metavar=("MIN", "MAX"), help="Q that is compared [1/Å]"
    )
    how.add_argument(
        "--model-error", type=float, metavar="PART", help="relative error of the model in the weights"
    )
    how.add_argument(
        "--correlation", type=int, metavar="N", help="free correlated motion of the first N shells"
    )
    how.add_argument(
        "--tail",
        nargs="?",
        const=25.0,
        type=float,
        metavar="ANGSTROM",
        help="correlated motion: free for the first shell, beyond it ~ 1/r up to this distance (25)",
    )
    how.add_argument("--start", nargs="+", type=float, metavar="NM", help="sizes to start from [nm]")
    how.add_argument(
        "--fix",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="hold a parameter: sigma=0.1, strain=0, b_Pb=1.3, correlation_1=0.3, zero_deg=0, ...",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    """Check everything, fit every file, write the results.

    Raises:
        ValueError: options, files or output folder cannot be used; nothing has been written.
    """
    from rich.progress import track

    from qdml.fitting.figure import draw_fit
    from qdml.fitting.fit import fit_pattern
    from qdml.fitting.ingredients import ingredients
    from qdml.fitting.points import points_of
    from qdml.fitting.record import csv_row, record_of, shown

    radiation = command.radiation_of(options)
    settings = _settings(options, radiation)
    patterns = command.read_all(
        options.files, radiation, lambda pattern: (pattern, points_of(pattern, settings))
    )
    for pattern, points in patterns:  # whether solvents cover it
        ingredients(points.q, settings, energy_kev=pattern.energy_kev)
    command.make_folder(options.output)
    console, figures = command.new_console(), command.figure_names(options.files)
    fits = []
    for (pattern, _), figure in track(
        list(zip(patterns, figures, strict=True)), description="Fitting", console=console, transient=True
    ):
        fits.append(fit_pattern(pattern, settings))
        draw_fit(options.output / figure, fits[-1])
    records = [record_of(fit) | {"figure": figure} for fit, figure in zip(fits, figures, strict=True)]
    content = {"results": records, "settings": settings.as_record(), "intervals": _INTERVALS}
    command.write_results(options.output, content, [csv_row(record) for record in records])
    command.print_sizes(console, [shown(fit) for fit in fits], options.output)


def _settings(options: argparse.Namespace, radiation: Radiation) -> FitSettings:
    """The options as settings of the fits."""
    from hpc.pattern_options import variant_of
    from qdml.fitting.settings import fit_settings

    variants = [variant_of(options, shape=options.shape, material=options.material)]
    for words in options.also:
        other = argparse.Namespace(**{**vars(options), "set": [*options.set, *words]})
        variants.append(variant_of(other, shape=options.shape, material=options.material))
    changes: dict[str, Any] = {
        "solvents": tuple(_solvent(word, radiation) for word in options.solvent),
        "containers": tuple(options.container),
        "texture": options.texture,
        "fixed": _fixed(options.fix),
    }
    if options.instrument is not None:
        from hpc.instrument.setup import load_instrument
        from qdml.fitting.instrument import wavelength_of

        changes["instrument"] = load_instrument(options.instrument)
        wavelength_of(changes["instrument"], radiation.energy)
    given = {
        "q_range": options.q_range and tuple(options.q_range),
        "model_error": options.model_error,
        "correlation_shells": 1 if options.tail and options.correlation is None else options.correlation,
        "correlation_tail": options.tail,
        "halo_shells": options.halo,
        "start_diameters_nm": options.start and tuple(options.start),
    }
    changes |= {name: value for name, value in given.items() if value is not None}
    _apply_motion(variants[0], changes)
    return fit_settings(tuple(variants), **changes)


def _apply_motion(variant: Variant, changes: dict[str, Any]) -> None:
    """A motion that is given is held: its correlations are fixed, its halo has that many free terms."""
    from qdml.fitting.forward import correlation_name

    motion = variant.motion
    if motion.smooth:
        raise ValueError(
            "motion.smooth is not fitted; use motion.correlation, or --correlation N for free values"
        )
    if motion.correlation:
        changes["correlation_shells"] = len(motion.correlation)
        for shell, value in enumerate(motion.correlation):
            changes["fixed"].setdefault(correlation_name(shell), value)
    if motion.halo:
        changes.setdefault("halo_shells", len(motion.halo))
        changes["halo_b"] = motion.halo_b


def _fixed(words: Sequence[str]) -> dict[str, float]:
    fixed = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            fixed[name] = float(value)
        except ValueError:
            raise ValueError(f"--fix takes NAME=VALUE with a number, got {word!r}") from None
    return fixed


def _solvent(word: str, radiation: Radiation) -> str | Pattern:
    """The name of a liquid, or a measured file; its columns mean what those of the patterns mean, unless @ says."""
    from hpc.liquids import liquid_names
    from qdml.files.patterns import read_pattern

    if word in liquid_names():
        return word
    name, at, wavelength = word.rpartition("@")
    if not at and not Path(word).exists():
        raise ValueError(f"--solvent takes a file or one of {liquid_names()}, got {word!r}")
    if not at:
        return read_pattern(
            word, wavelength=radiation.wavelength, energy_kev=radiation.energy_kev, q_unit=radiation.q_unit
        )
    try:
        return read_pattern(name, wavelength=float(wavelength))
    except ValueError as error:
        raise ValueError(f"--solvent {word}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
