"""What qd-predict and qd-fit share: how they ask for files and read them, what they write and say."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qdml.answers import Estimate

if TYPE_CHECKING:
    from rich.console import Console

    from qdml.files.patterns import Pattern, Radiation

__all__ = [
    "Sized",
    "add_file_options",
    "add_unit_options",
    "estimate_columns",
    "figure_names",
    "make_folder",
    "new_console",
    "print_sizes",
    "radiation_of",
    "read_all",
    "write_results",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """What the console shows of one file."""

    file: Path
    diameter_nm: Estimate
    diameter_volume_nm: Estimate
    sigma: Estimate
    lines: tuple[str, ...]
    """What was seen, one line each."""
    refusals: tuple[str, ...]
    """Why there is no size; then none is shown."""
    doubts: tuple[str, ...]


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Measured files, and the folder of the results."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="measured pattern")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUTDIR", help="folder for the results"
    )


def add_unit_options(parser: argparse.ArgumentParser) -> None:
    """What the first column of the files is."""
    unit = parser.add_argument_group("what the first column is; there is no default")
    unit.add_argument("--wavelength", type=float, metavar="ANGSTROM", help="2θ in degrees at this wavelength")
    unit.add_argument("--energy-kev", type=float, metavar="KEV", help="2θ in degrees at this photon energy")
    unit.add_argument("--q-unit", metavar="UNIT", help="Q in 1/A or 1/nm (wavelength or energy may be added)")


def radiation_of(options: argparse.Namespace) -> Radiation:
    """The options of `add_unit_options`.

    Raises:
        ValueError: they contradict each other.
    """
    from qdml.files.patterns import Radiation

    return Radiation(wavelength=options.wavelength, energy_kev=options.energy_kev, q_unit=options.q_unit)


def read_all(files: Sequence[Path], radiation: Radiation, use: Callable[[Pattern], T]) -> list[T]:
    """Read and check every file.

    Args:
        files: measured patterns.
        radiation: what their first column means.
        use: what each pattern becomes; it refuses one by a `FileError`.

    Raises:
        ValueError: one message that names every file that cannot be used.
    """
    from qdml.files.columns import FileError
    from qdml.files.patterns import read_pattern

    found, problems = [], []
    for path in files:
        try:
            pattern = read_pattern(
                path,
                wavelength=radiation.wavelength,
                energy_kev=radiation.energy_kev,
                q_unit=radiation.q_unit,
            )
            found.append(use(pattern))
        except FileError as error:
            problems.append(str(error))
    if problems:
        first = "" if len(problems) == 1 else f"{len(problems)} of {len(files)} files cannot be used\n  "
        raise ValueError(first + "\n  ".join(problems))
    return found


def new_console() -> Console:
    """Where sizes are shown."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)  # a log has room for file names


def write_results(output: Path, content: dict[str, Any], rows: Sequence[dict[str, str]]) -> None:
    """Write results.json, with the version of this program, and results.csv; rows share their columns."""
    content = {**content, "version": version("debye-dots")}
    (output / "results.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    with (output / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_folder(output: Path) -> None:
    """Make the folder of the results.

    Raises:
        ValueError: it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {output}: {error.strerror}; name another with -o") from None


def figure_names(files: Sequence[Path]) -> list[str]:
    """A PNG name for every file; files of one name in several folders are numbered."""
    names: list[str] = []
    for path in files:
        name, number = f"{path.name}.png", 2
        while name in names:
            name, number = f"{path.name}-{number}.png", number + 1
        names.append(name)
    return names


def estimate_columns(record: dict[str, Any], names: Sequence[str]) -> dict[str, str]:
    """The numbers of some estimates of a record, as columns `diameter_nm_mean`, `diameter_nm_lo68`, ...

    Empty for a pattern that has no size: what a column is made of must be sizes.
    """
    sized = record.get("sized", True)
    return {
        f"{name}_{part}": f"{value:.5g}" if sized else ""
        for name in names
        for part, value in record[name].items()
    }


def print_sizes(console: Console, sized: Sequence[Sized], output: Path) -> None:
    """The sizes as a table; then for each file what was seen, and every doubt; and where everything is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), caption_justify="left", caption_style="dim")
    table.caption = Text(
        "mean [central 68 % interval]; D: number mean, D_vol = D(1 + σ²)³; !: see the doubts below"
    )
    table.add_column("file", overflow="fold")
    # What patterns know best comes first.
    for heading in ("D_vol (nm)", "D (nm)", "σ (%)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in sized:
        numbers = (
            ("not sized", "", "")
            if one.refusals
            else (
                one.diameter_volume_nm.text(2),
                one.diameter_nm.text(2),
                one.sigma.text(1, factor=100),
            )
        )
        doubted = bool(one.doubts or one.refusals)
        table.add_row(Text(one.file.name + " !" * doubted), *map(Text, numbers))
    console.print(table)
    for one in sized:
        console.print(Text(one.file.name, style="bold"))
        for line in one.lines:
            console.print(Text(f"  {line}"))
        for refusal in one.refusals:
            console.print(Text(f"  NOT SIZED: {refusal}", style="red"))
        for doubt in one.doubts:
            console.print(Text(f"  DOUBT: {doubt}", style="yellow"))
    console.print(f"{output}: results.json, results.csv and a figure for each file", highlight=False)
