"""The off-lattice pair engine on CPU cores: against other programs, and against the number of atoms.

    python benchmarks/bench_pairs.py --device cpu --peers ../peers/bin/python --output results.jsonl

`--peers` names the Python of an environment with the other programs (`pip install -c constraints/cpu.txt torch
debyecalculator==1.1.1 pyausaxs`); they bring 90 packages along, so keep them out of this one. Every program computes
the same particles on the same Q, each in a process of its own, in turn, three times round.

Errors are relative to I(Q), the largest over all Q, with the form factors of each program: on the Q that were asked
for, and on those that the program says it took (DebyeCalculator has them in float32). They are against this engine at
a tolerance of 1e-11, which is itself compared with the sum over all pairs at a few Q (`reference_error`). A program
that is not there is reported as missing; debyer is not on the package index.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, emit, read_arguments
from numba import njit
from pattern_of import PROGRAMS

from hpc.pairs.moments import choose_bins
from hpc.pairs.single import memory_needed, pair_extent, partial_sums_of_positions
from hpc.scattering import intensity
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import kind_pairs, load_material

Q = np.linspace(0.5, 20.0, 1951)
ROUNDS = 3
# Pairs times Q that a direct sum may take: about ten seconds on two cores.
DIRECT = 1e9
REFERENCE_TOLERANCE = 1e-11
MISSING = {"debyer": "not on the package index"}
OPTIONS: dict[str, dict[str, Any]] = {
    "--peers": {"default": sys.executable, "help": "Python that can import the other programs"},
    "--largest": {"type": float, "default": 1e5, "help": "atoms of the largest particle (1e6: ten minutes)"},
}


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(__doc__.splitlines()[0], words, OPTIONS)
    particles = [(20, 0.05)] if arguments.quick else [(40, 0.0), (40, 0.05), (100, 0.0), (100, 0.05)]
    for diameter, displacement in particles:
        against_peers(arguments, diameter, displacement)
    for name, reason in MISSING.items():
        emit(
            "pattern_by_program", arguments, config={"program": name}, result={"missing": reason}, timing=None
        )
    largest = 1e3 if arguments.quick else arguments.largest
    for n_atoms in (n for n in (1e3, 1e4, 1e5, 1e6) if n <= largest):
        against_number(arguments, n_atoms)


def sphere(diameter: float, displacement: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions [Å] and elements of a PbS sphere, with every atom displaced at random."""
    sites = cut_nested_sites(load_material("pbs"), shape="sphere", centre="Pb", diameter_max=diameter)
    numbers = np.diff(sites.offset[:, [0, -1]], axis=1)[:, 0]
    moved = np.random.default_rng(0).normal(0, displacement, sites.position.shape)
    return sites.unit * sites.position + moved, np.repeat(["Pb", "S"], numbers)


def against_peers(arguments: Any, diameter: float, displacement: float) -> None:
    """One particle, by every program."""
    position, element = sphere(diameter, displacement)
    particle = {"diameter_nm": diameter / 10, "displacement_angstrom": displacement, "atoms": len(position)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "particle.npz", position=position, element=element, q=Q)
        rounds: dict[str, list[dict[str, Any]]] = {program: [] for program in PROGRAMS}
        for _ in range(1 if arguments.quick else ROUNDS):
            for program, records in rounds.items():
                records.append(run_program(arguments, program, folder))
        positions = [position[element == e] for e in np.unique(element)]
        check = reference_error(positions)
        for program, records in rounds.items():
            config = {"program": program, **particle, "q": len(Q)}
            if reason := records[0].get("missing"):
                emit("pattern_by_program", arguments, config=config, result={"missing": reason}, timing=None)
                continue
            with np.load(folder / f"{program}.npz") as found:
                q, values, f = (found[name] for name in ("q", "intensity", "f"))
            cpu = float(np.median(np.concatenate([record["cpu_s"] for record in records])))
            result = {
                "version": records[0]["version"],
                "max_relative_error": largest_error(positions, Q, values, f),
                "max_relative_error_on_its_q": largest_error(positions, q, values, f),
                "reference_error": check,
                "cpu_s": cpu,
                "peak_mb": max(record["peak_mb"] for record in records),
                "added_mb": max(record["added_mb"] for record in records),
            }
            wall = np.concatenate([record["wall_s"] for record in records])
            emit("pattern_by_program", arguments, config=config, result=result, timing=_timing(wall))


def run_program(arguments: Any, program: str, folder: Path, *, repeats: int = 2) -> dict[str, Any]:
    """Start `pattern_of.py` and read its record, or why there is none."""
    python = sys.executable if program.startswith("debye-dots") else arguments.peers
    script = Path(__file__).with_name("pattern_of.py")
    words = [
        python,
        "-W",
        "ignore",
        script,
        program,
        folder / "particle.npz",
        folder / f"{program}.npz",
        repeats,
    ]
    # The peers' Python may be without this project.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        if "ModuleNotFoundError" in last or "ImportError" in last:
            return {"missing": last}
        raise RuntimeError(f"{program} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def largest_error(positions: Sequence[np.ndarray], q: np.ndarray, values: np.ndarray, f: np.ndarray) -> float:
    """Of a pattern, relative to what it should be on q with form factors f."""
    close = partial_sums_of_positions(positions, q, tolerance=REFERENCE_TOLERANCE)
    return float(np.abs(values / total(close, positions, f) - 1).max())


def reference_error(positions: Sequence[np.ndarray]) -> float:
    """The same for the reference itself, for equal atoms, against all pairs at a few Q."""
    n_pairs = sum(map(len, positions)) ** 2 / 2
    few = Q[:: -(-len(Q) // max(3, int(DIRECT / n_pairs)))]
    ones = np.ones((len(positions), len(few)))
    close = partial_sums_of_positions(positions, few, tolerance=REFERENCE_TOLERANCE)
    expected = total(direct_sums(positions, few), positions, ones)
    return float(np.abs(total(close, positions, ones) / expected - 1).max())


def total(partial: np.ndarray, positions: Sequence[np.ndarray], f: np.ndarray) -> np.ndarray:
    """I(Q) from partial sums."""
    pair = np.stack([f[a] * f[b] for a, b in kind_pairs(len(f))])
    return intensity(partial, np.array([float(len(one)) for one in positions]), pair, f**2)


def direct_sums(positions: Sequence[np.ndarray], q: np.ndarray) -> np.ndarray:
    """(pair, q) float64: the sine of every pair at every Q."""

    def column(value: float) -> list[float]:
        return [_direct_sum(positions[a], positions[b], a == b, value) for a, b in kind_pairs(len(positions))]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.array(list(pool.map(column, q))).T


@njit(nogil=True)
def _direct_sum(first, second, same, q):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(first)):
        row = 0.0
        for j in range(i + 1 if same else 0, len(second)):
            dx, dy, dz = first[i] - second[j]
            x = q * np.sqrt(dx * dx + dy * dy + dz * dz)
            row += np.sin(x) / x
        total += row
    return 2 * total


def against_number(arguments: Any, n_atoms: float) -> None:
    """The engine alone, on spheres of about so many displaced atoms."""
    # 8 atoms in a cube of 5.936 Å.
    position, element = sphere(5.936 * (6 * n_atoms / (8 * np.pi)) ** (1 / 3), 0.05)
    positions = [position[element == e] for e in np.unique(element)]
    bins = choose_bins(pair_extent(positions), q_max=Q[-1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "particle.npz", position=position, element=element, q=Q)
        start = time.perf_counter()
        record = run_program(arguments, "debye-dots", folder, repeats=1 if n_atoms > 3e4 else 5)
    pairs = len(position) * (len(position) - 1) / 2
    wall = np.array(record["wall_s"])
    result = {
        "pairs_per_s": pairs / float(np.median(wall)),
        "cpu_s": float(np.median(record["cpu_s"])),
        "cpu_ns_per_pair": 1e9 * float(np.median(record["cpu_s"])) / pairs,
        "announced_mb": memory_needed(positions, bins, len(Q)) / 1e6,
        "added_mb": record["added_mb"],
        "peak_mb": record["peak_mb"],
        "with_start_s": time.perf_counter() - start,
    }
    config = {"atoms": len(position), "q": len(Q), "bin_angstrom": round(bins.width, 5)}
    emit("pattern_by_number_of_atoms", arguments, config=config, result=result, timing=_timing(wall))


def _timing(seconds: np.ndarray) -> dict[str, Any]:
    low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {"median_s": float(median), "quartiles_s": [float(low), float(high)], "repeats": len(seconds)}


if __name__ == "__main__":
    main()
