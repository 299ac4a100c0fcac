"""What `qd-pattern` writes: columns behind a header of parameters, in one piece; atoms as extended .xyz."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from hpc.radiation import Beam
    from hpc.scattering import PairSums
    from hpc.structure.atoms import Atoms

__all__ = ["EXTENSIONS", "Columns", "Target", "columns_of", "places", "write_columns", "write_xyz"]

#: Kind of output -> extension of its files.
EXTENSIONS = {"iq": "xy", "sq": "sq", "fq": "fq", "gr": "gr", "partials": "partials", "recorded": "xye"}
#: Titles and columns, the first being Q or r.
Columns = tuple[list[str], "list[np.ndarray]"]


def columns_of(sums: PairSums, chosen: argparse.Namespace, *, beam: Beam, r: np.ndarray | None) -> Columns:
    """The asked quantity.

    Args:
        sums: of the particle.
        chosen: output_kind, no_compton, per_atom, lorch.
        beam: what is scattered.
        r: (r,) [Å], for G(r).
    """
    q_title, kind = "Q [1/angstrom]", chosen.output_kind
    if kind == "iq":
        unit = "fm^2" if beam["particle"] == "neutron" else "electron units"
        unit += " per atom" if chosen.per_atom else ""
        values = sums.iq(**beam, compton=not chosen.no_compton, per_atom=chosen.per_atom)
        return [q_title, f"I [{unit}]"], [sums.q, values]
    if kind == "sq":
        return [q_title, "S"], [sums.q, sums.sq(**beam)]
    if kind == "fq":
        return [q_title, "F [1/angstrom]"], [sums.q, sums.fq(**beam)]
    if kind == "gr":
        assert r is not None
        return ["r [angstrom]", "G [1/angstrom^2]"], [r, sums.gr(r, **beam, lorch=chosen.lorch)]
    partials = sums.partials()
    return [q_title, *(f"A_{a}-{b}" for a, b in partials)], [sums.q, *partials.values()]


class Target(NamedTuple):
    """A file to write."""

    path: Path
    folder: bool
    """The folder of the file is made if there is none."""


def places(sources: Sequence[str], output: str | None, kind: str) -> list[Target | None]:
    """Where the result of every source goes; None is standard output.

    Several sources, or an output that is a folder or ends in "/", give one file for each: the name of the source with
    the extension of the kind.

    Raises:
        ValueError: several sources without a folder, or two that would have one name.
    """
    if output is None and len(sources) == 1:
        return [None]
    if output is None:
        raise ValueError("several sources need a folder to write to: -o FOLDER/")
    if len(sources) == 1 and not (output.endswith("/") or Path(output).is_dir()):
        return [Target(Path(output), folder=False)]
    if Path(output).is_file():
        raise ValueError(
            f"several sources need a folder to write to, but {output} is a file; choose another -o"
        )
    named: dict[Path, str] = {}
    for source in sources:
        path = Path(output) / f"{Path(source).stem}.{EXTENSIONS[kind]}"
        if path in named:
            raise ValueError(
                f"{named[path]} and {source} would both be written to {path}; rename one, or run them apart"
            )
        named[path] = source
    return [Target(path, folder=True) for path in named]


def write_columns(columns: Columns, parameters: dict[str, object], target: Target | None) -> None:
    """Columns with 15 significant digits behind a '#' header; to a file in one piece, or to standard output.

    Raises:
        ValueError: the file cannot be written.
    """
    titles, values = columns
    lines = [f"# {name}: {value}" for name, value in parameters.items()]
    lines.append("# " + "   ".join(titles))
    lines += [f"{row[0]:.12g} " + " ".join(f"{y:.15g}" for y in row[1:]) for row in zip(*values, strict=True)]
    text = "\n".join(lines) + "\n"
    if target is None:
        sys.stdout.write(text)
    else:
        _write_whole(text, target)


def write_xyz(atoms: Atoms, comment: str, path: Path) -> None:
    """Atoms as extended .xyz with occupancies and B; `hpc.structure.files` reads it back.

    Raises:
        ValueError: the file cannot be written.
    """
    lines = [str(len(atoms)), f'Properties=species:S:1:pos:R:3:occupancy:R:1:b_iso:R:1 comment="{comment}"']
    for element, (x, y, z), occupancy, b_iso in zip(
        atoms.element, atoms.position, atoms.occupancy, atoms.b_iso, strict=True
    ):
        lines.append(f"{element} {x:.10f} {y:.10f} {z:.10f} {occupancy:.10g} {b_iso:.10g}")
    _write_whole("\n".join(lines) + "\n", Target(path, folder=False))


def _write_whole(text: str, target: Target) -> None:
    part = Path(f"{target.path}.{os.getpid()}.part")
    try:
        if target.folder:
            target.path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text)
        os.replace(part, target.path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"cannot write {target.path}: {error.strerror}; choose another -o") from error
