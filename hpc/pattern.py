"""qd-pattern: structure files and model particles -> I(Q), S(Q), F(Q), G(r) or partial structure factors.

    qd-pattern sphere --material pbs --diameter-nm 4 --energy-kev 22 --q 0.5 20 0.01 -o out.xy
    qd-pattern sphere --material pbs --diameter-nm 4 --sigma 0.1 --strain 0.002 --wavelength 1.5406 --q 1 7 0.01
    qd-pattern sphere --material pbs --diameter-nm 4 --sigma 0.1 --instrument lab_cu --solvent toluene=0.4 -o dots.xye
    qd-pattern cube --material pbs --diameter-nm 4 --set lattice.alpha_deg=89.6 --energy-kev 22 --q 1 20 0.01 -o out.xy
    qd-pattern cluster.xyz --energy-kev 22 --b-iso Pb=1.3 S=1.2 --q 0.5 20 0.01 -o out.xy
    qd-pattern cds.cif --repeat 8 8 6 --energy-kev 22 --q 0.5 20 0.01 -o block.xy
    qd-pattern cds.cif --shape sphere --diameter-nm 4 --sigma 0.1 --energy-kev 22 --q 0.5 20 0.01 -o dots.xy
    qd-pattern sphere --material pbs --diameter-nm 4 --radiation neutron --q 0.5 20 0.01 -o neutrons.xy
    qd-pattern *.xyz --energy-kev 22 --output-kind gr --q 0 20 0.01 --r 1 30 0.01 -o pdfs/
    mpiexec -n 4 python -m mpi4py -m hpc.pattern big.xyz --energy-kev 22 --q 0.5 20 0.01 -o big.xy

Model particles are exact where their pairs can be counted on the lattice; everything else goes through the moment
histogram of `hpc.pairs.single`, whose estimated error is printed. Several ranks share the pairs of a structure file.
The output is columns behind a header that holds every parameter; formulas and normalisation are in `hpc.debye`. One
source gives one file, or standard output; several go to a folder, a file each, and one that fails does not stop the
others.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.instrument.options import add_options

if TYPE_CHECKING:
    from hpc.mpi import World
    from hpc.pattern_output import Columns
    from hpc.radiation import Beam

__all__ = ["main"]

_log = logging.getLogger(__name__)
_KINDS = ("iq", "sq", "fq", "gr", "partials")
# For which other ranks leave rank 0 the word [s].
_GRACE = 5.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qd-pattern",
        description="Structure files or model particles -> scattering by the Debye equation.",
        epilog="Examples: python -c 'import hpc.pattern; help(hpc.pattern)'",
    )
    parser.add_argument(
        "source",
        nargs="+",
        help="structure files (.xyz, .cif, .pdb, .vasp, anything ASE reads), or shapes: sphere, cube, ...",
    )
    out = parser.add_argument_group("what is written")
    out.add_argument(
        "--output-kind", choices=_KINDS, default="iq", help="I(Q), S(Q), F(Q), G(r) or partials; default iq"
    )
    out.add_argument("--q", nargs=3, type=float, metavar=("MIN", "MAX", "STEP"), help="1/Å, MAX included")
    out.add_argument("--r", nargs=3, type=float, metavar=("MIN", "MAX", "STEP"), help="Å, for G(r)")
    out.add_argument("--lorch", action="store_true", help="G(r) with the window sin(πQ/Q_max)/(πQ/Q_max)")
    out.add_argument("--per-atom", action="store_true", help="divide I(Q) by the number of atoms")
    out.add_argument(
        "-o", "--output", help="file, or FOLDER/ for several sources; standard output when left out"
    )
    out.add_argument("--save-structure", metavar="FILE.xyz", help="write the atoms of the (one) source too")

    beam = parser.add_argument_group("radiation and atoms")
    beam.add_argument("--energy-kev", type=float, help="photon energy; there is no default")
    beam.add_argument("--wavelength", type=float, help="wavelength in Å, instead of the energy")
    beam.add_argument(
        "--radiation",
        metavar="NAME",
        help="cu_kalpha, mo_kalpha, ag_kalpha (at the energy of Kα1), neutron, ...: a file of conf/radiation",
    )
    beam.add_argument("--no-anomalous", action="store_true", help="leave out f' and f''")
    beam.add_argument("--no-compton", action="store_true", help="leave out incoherent scattering")
    beam.add_argument(
        "--b-iso", nargs="+", metavar="B", help="Debye-Waller factors in Å²: 0.7, or Pb=1.3 S=1.2"
    )

    crystal = parser.add_argument_group("crystal files")
    crystal.add_argument(
        "--repeat", nargs=3, type=int, metavar=("NA", "NB", "NC"), help="unit cells along a, b, c"
    )
    crystal.add_argument(
        "--shape", help="cut this shape out of the crystal; then all options of model particles apply"
    )

    model = parser.add_argument_group("model particles")
    model.add_argument(
        "--material", help="a material of the package, for example pbs, or a .yaml or .cif file"
    )
    model.add_argument("--diameter-nm", type=float, help="number-mean diameter (of the ball of equal volume)")
    model.add_argument(
        "--sigma",
        type=float,
        default=0.0,
        help="relative standard deviation of the diameter (0: one particle)",
    )
    model.add_argument("--strain", type=float, default=0.0, help="isotropic lattice strain")
    model.add_argument(
        "--centre",
        nargs="+",
        help="site labels, bond, cell or x,y,z (fractional) to cut around; averaged. Default: every site label",
    )
    for group, what in (
        ("surface", "sites of the surface that are left out or partly occupied"),
        ("lattice", "deformation of the whole crystal"),
        ("faults", "wrong stacking of {111} layers"),
        ("disorder", "relaxation, displacements, vacancies"),
        ("coating", "shell of another material"),
        ("motion", "correlated motion, halo, surface B; of structure files too"),
    ):
        model.add_argument(f"--{group}", metavar="NAME", help=f"{what}: a file of conf/{group}")
    model.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="GROUP.KEY=VALUE",
        help="single values, for example lattice.alpha_deg=89.5 shape.aspect=0.8",
    )
    model.add_argument(
        "--texture",
        nargs="+",
        metavar="HKL=GAIN",
        help="oriented samples: gain of all reflections of a direction, 111=2 200=0.5 or 1,-1,0=3 (no minus first)",
    )
    model.add_argument(
        "--texture-by",
        choices=("direction", "reflection"),
        default="direction",
        help="one gain for 111, 222, 333, ... (default), or for each reflection",
    )
    model.add_argument("--realisations", type=int, help="particles averaged over where chance has a part")
    model.add_argument("--seed", type=int, default=0, help="of those particles; default 0")

    add_options(parser)

    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--tolerance", type=float, default=1e-6, help="error asked for, relative to I(Q); default 1e-6"
    )
    engine.add_argument("--bin-width", type=float, help="width of the bins of pair distances in Å, instead")
    engine.add_argument(
        "--device",
        default="cpu",
        choices=("cpu", "cuda", "auto"),
        help="where pairs are counted; default cpu",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of qd-pattern."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    from hpc.mpi import join_world

    world = join_world()
    try:
        failures = _run(chosen, world)
    except ValueError as error:
        failures = [str(error)]
    if world.rank == 0:  # every rank meets the same errors
        for failure in failures:
            print(f"qd-pattern: error: {failure}", file=sys.stderr)
    if failures:
        if world.rank > 0:
            # The first rank that exits aborts all others: rank 0 has something to say before.
            time.sleep(_GRACE)
        sys.exit(2)


def _run(chosen: argparse.Namespace, world: World) -> list[str]:
    """Every source in turn; returns what failed.

    Raises:
        ValueError: options that no source can be computed with.
    """
    from hpc.absorption import notes_near_edges
    from hpc.device import select_device
    from hpc.instrument.options import choose_instrument, record
    from hpc.pattern_options import beam_of, check_numbers, q_of, r_of
    from hpc.pattern_output import columns_of, places, write_columns, write_xyz
    from hpc.pattern_sources import atoms_of, is_model, sums_of
    from hpc.progress import Progress

    check_numbers(chosen)
    instrument = choose_instrument(chosen)
    q, beam = q_of(chosen), beam_of(chosen)
    r = r_of(chosen) if chosen.output_kind == "gr" else None
    targets = places(chosen.source, chosen.output, chosen.output_kind if instrument is None else "recorded")
    if chosen.save_structure is not None and len(targets) > 1:
        raise ValueError("--save-structure writes the atoms of one source; run the others apart")
    device = select_device(chosen.device, local_rank=world.local_rank)
    failures: list[str] = []
    several = len(targets) > 1
    with Progress("qd-pattern", "patterns", len(targets), shown=several and world.rank == 0) as progress:
        for index, (source, target) in enumerate(zip(chosen.source, targets, strict=True)):
            progress.show(index, source)
            try:
                if world.rank > 0 and is_model(source, chosen):
                    continue
                sums, described = sums_of(source, chosen, q, beam=beam, device=device, world=world)
                columns = columns_of(sums, chosen, beam=beam, r=r)
                if world.rank > 0:
                    continue
                for note in notes_near_edges((kind.element for kind in sums.kinds), beam):
                    _log.info("%s", note)
                if instrument is not None:
                    atoms = {kind.element: 0.0 for kind in sums.kinds}
                    for kind, number in zip(sums.kinds, sums.n_atoms, strict=True):
                        atoms[kind.element] += kind.occupancy * float(number)
                    columns, recorded = record(columns, atoms, instrument, chosen)
                    described |= recorded
                write_columns(columns, {**described, **_common(chosen, beam)}, target)
                if target is not None:
                    _say_written(target.path, columns)
                if chosen.save_structure is not None:
                    write_xyz(atoms_of(source, chosen), source, Path(chosen.save_structure))
            except (ValueError, MemoryError) as error:
                failures.append(str(error) if source in str(error) else f"{source}: {error}")
        if not failures:
            progress.conclude()
    return failures


def _common(chosen: argparse.Namespace, beam: Beam) -> dict[str, object]:
    """Parameters that every source shares, for the header."""
    common: dict[str, object] = {
        "output_kind": chosen.output_kind,
        **_described(chosen, beam),
        "q": " ".join(f"{x:g}" for x in chosen.q),
        "tolerance": chosen.tolerance,
    }
    if chosen.output_kind == "iq":
        common |= {"compton": not chosen.no_compton, "per_atom": chosen.per_atom}
    if chosen.output_kind == "gr":
        common |= {"lorch": chosen.lorch}
    return common


def _described(chosen: argparse.Namespace, beam: Beam) -> dict[str, object]:
    """The radiation, for the header."""
    named = {} if chosen.radiation is None else {"radiation": chosen.radiation}
    if beam["particle"] == "neutron":
        wavelength = beam["wavelength"]
        given = {} if wavelength is None else {"wavelength_angstrom": wavelength}
        return {**named, "particle": "neutron", **given}
    return {**named, "energy_kev": beam["energy_kev"], "anomalous": not chosen.no_anomalous}


def _say_written(path: Path, columns: Columns) -> None:
    titles, values = columns
    x = values[0]
    print(f"{path}: {len(x)} points, {titles[0].split()[0]} = {x[0]:g} to {x[-1]:g}")


if __name__ == "__main__":
    main()
