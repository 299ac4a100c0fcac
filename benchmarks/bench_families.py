"""What all sizes of a family cost, by engine, against the largest particle alone; and the pair engine on several ranks.

    python benchmarks/bench_families.py --device cpu --output results.jsonl

`pairs_of_family`: the tables of every particle up to a diameter (one cut centre). `one_particle_s` is the time of the
largest one by itself, pair by pair: what the number of sizes would multiply if nothing were shared.
`pattern_on_ranks`: `qd-pattern` on one structure file, whole command, one rank on one core and two ranks on two.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_pairs import sphere
from common import emit, measure, read_arguments

from hpc.pairs.families import Sampling, Sizes, count_family, plan_counting
from hpc.pairs.moments import choose_bins
from hpc.pairs.single import pair_extent, pair_weights
from hpc.structure.material import load_material
from hpc.structure.variant import Disorder, Faults, Lattice, Shape, Variant

VARIANTS: dict[str, dict[str, Any]] = {
    "perfect sphere": {},
    "rhombohedral": {"lattice": Lattice(alpha_deg=89.6)},
    "deformation faults": {"faults": Faults(deformation=0.02)},
    "relaxed surface": {"disorder": Disorder(relaxation=0.1)},
}
Q_MAX = 20.0


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(__doc__.splitlines()[0], words)
    for title in VARIANTS:
        for diameter_nm in (2.0,) if arguments.quick else (4.0, 6.0, 8.0):
            all_sizes(arguments, title, diameter_nm)
    for ranks in (1, 2):
        on_ranks(arguments, ranks, atoms_of_nm=2.0 if arguments.quick else 16.0)


def all_sizes(arguments: Any, title: str, diameter_nm: float) -> None:
    """Count a family whose largest particle has about this diameter."""
    shape = Shape(name="sphere", centres=("Pb",))
    variant = Variant(material=load_material("pbs"), shape=shape, **VARIANTS[title])
    # One wide distribution that ends near the diameter: every size below it is asked for.
    sizes = Sizes(diameter=np.array([5.0 * diameter_nm]), sigma=np.array([0.2]), tail=1e-3)
    counting = plan_counting(
        variant, sizes, q_max=Q_MAX, device=arguments.device, sampling=Sampling(realisations=1)
    )
    positions, elements = sphere(counting.diameter[-1], 0.0)
    one = [positions[elements == element] for element in ("Pb", "S")]
    bins = choose_bins(pair_extent(one), q_max=Q_MAX)
    alone = measure(lambda: pair_weights(one, bins), arguments)
    timing = measure(lambda: count_family(counting, device=arguments.device), arguments)
    emit(
        "pairs_of_family",
        arguments,
        config={"variant": title, "engine": counting.engine, "largest_nm": float(counting.diameter[-1]) / 10},
        result={
            "sizes": len(counting.diameter),
            "atoms_of_the_largest": len(positions),
            "one_particle_s": alone["median_s"],
            "all_over_one": timing["median_s"] / alone["median_s"],
        },
        timing=timing,
    )


def on_ranks(arguments: Any, ranks: int, *, atoms_of_nm: float) -> None:
    """`qd-pattern` as a whole, its pairs shared by ranks."""
    positions, elements = sphere(10 * atoms_of_nm, 0.05)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "dot.xyz"
        rows = (f"{e} {x:.9f} {y:.9f} {z:.9f}" for e, (x, y, z) in zip(elements, positions, strict=True))
        file.write_text(f"{len(elements)}\n\n" + "\n".join(rows) + "\n")
        command = [
            *("mpiexec", "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "hpc.pattern", str(file)),
            *("--energy-kev", "22", "--q", "0.5", "20", "0.01", "-o", str(file.with_suffix(".xy"))),
        ]
        cores = sorted(os.sched_getaffinity(0))[:ranks]

        def run() -> None:
            subprocess.run(
                command, check=True, capture_output=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
            )

        timing = measure(run, arguments)
    emit(
        "pattern_on_ranks",
        arguments,
        config={"atoms": len(positions), "q": 1951, "ranks": ranks},
        result={"pairs_per_s": len(positions) * (len(positions) - 1) / 2 / timing["median_s"]},
        timing=timing,
    )


if __name__ == "__main__":
    main()
