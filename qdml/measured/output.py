"""What the commands that size measured patterns write and say: files by name, CSV rows, the table on the console."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdml.answers import Estimate

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Sized", "estimate_columns", "figure_names", "make_folder", "print_sizes", "write_csv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """What the console shows of one file."""

    file: Path
    diameter_nm: Estimate
    diameter_volume_nm: Estimate
    sigma: Estimate
    lines: tuple[str, ...]
    """What was seen, one line each."""
    doubts: tuple[str, ...]


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
    """The numbers of some estimates of a record, as columns `diameter_nm_mean`, `diameter_nm_lo68`, ..."""
    return {f"{name}_{part}": f"{value:.5g}" for name in names for part, value in record[name].items()}


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write rows that share their columns."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def print_sizes(console: Console, sized: Sequence[Sized]) -> None:
    """The sizes as a table; then for each file what was seen, and every doubt."""
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
        table.add_row(
            Text(one.file.name + " !" * bool(one.doubts)),
            Text(one.diameter_volume_nm.text(2)),
            Text(one.diameter_nm.text(2)),
            Text(one.sigma.text(1, factor=100)),
        )
    console.print(table)
    for one in sized:
        console.print(Text(one.file.name, style="bold"))
        for line in one.lines:
            console.print(Text(f"  {line}"))
        for doubt in one.doubts:
            console.print(Text(f"  DOUBT: {doubt}", style="yellow"))
