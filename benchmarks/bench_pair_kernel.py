"""Speed of the CUDA kernel of pair moments (`hpc.cuda.pairs`): perfect and disordered particles, and its macros.

    python benchmarks/bench_pair_kernel.py --device cuda --output results.jsonl

Pairs are counted once (i < j). Two ceilings stand beside each rate, both at the clock that the device names, for a
random sample of the work: *instructions* that a multiprocessor issues, and *banks*, passes of atomic functions through
shared memory. The smaller of them is the kernel's limit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import emit, measure, read_arguments

from hpc.cuda.pairs import MACROS, PairPlan, pair_moments_cuda, plan_pairs, prepare_launch
from hpc.pairs.moments import Bins, choose_bins
from hpc.pairs.single import pair_weights

# Instructions of pairs.cu for 32 pairs, as compiled for compute capability 9.0: to visit them, and (by the number of
# moments) to count those in the window; and how many of them a multiprocessor issues per clock.
VISIT, COUNT = 22, {4: 27, 6: 40}
ISSUED_PER_CLOCK = 4
Q_MAX = 20.0
# Against the CPU, of I(Q) per atom: what pairs.cu rounds (see `hpc.cuda.pairs`), and the CPU's sums.
AGREEMENT = 1e-7

# What the sweep tries, each in place of the default; wider bins hold the same tolerance with more moments.
VARIANTS: tuple[dict[str, Any], ...] = (
    {"TILE": 64},
    {"TILE": 256, "THREADS": 512},
    {"THREADS": 768},
    {"THREADS": 512},
    {"FRACTION_BITS": 22},
    {"MOMENTS": 6, "wider": 2},
    {"MOMENTS": 6, "wider": 4},
    {"chunks_per_multiprocessor": 1},
    {"chunks_per_multiprocessor": 4},
    {"chunks_per_multiprocessor": 64},
    {"windows": 2},
    {"windows": 8},
)


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(__doc__.splitlines()[0], words)
    if arguments.device.kind != "cuda":
        raise SystemExit("error: this benchmark needs a GPU; benchmarks/bench_pairs.py is for CPU cores")
    sizes = (150,) if arguments.quick else (20_000, 82_000, 300_000)
    for n_atoms in sizes:
        for displacement in (0.0, 0.1):
            measure_pairs(arguments, n_atoms, displacement, check=n_atoms <= 20_000)
    for changes in VARIANTS[:: 4 if arguments.quick else 1]:
        measure_pairs(arguments, sizes[len(sizes) // 2], 0.1, changes)


def measure_pairs(
    arguments: Any,
    n_atoms: int,
    displacement: float,
    changes: dict[str, Any] | None = None,
    *,
    check: bool = False,
) -> None:
    """One particle, with the kernel and its plan as they are or with `changes`."""
    device, changes = arguments.device, changes or {}
    gpu = device.xp.cuda.Device(device.index).attributes
    positions = rocksalt_ball(n_atoms, displacement)
    bins = choose_bins(2.0 * np.sqrt((np.concatenate(positions) ** 2).sum(axis=1).max()) + 0.1, q_max=Q_MAX)
    whole = bins
    if wider := changes.get("wider"):
        bins = Bins(width=bins.width * wider, fine=1, count=-(-bins.count // wider))
    macros = {**MACROS, **{name: value for name, value in changes.items() if name in MACROS}}
    plan = plan_pairs(
        positions,
        bins,
        shared_limit=min(
            gpu["MaxSharedMemoryPerBlockOptin"], _limit_for(changes.get("windows", 1), bins, macros)
        ),
        multiprocessors=gpu["MultiProcessorCount"],
        macros=macros,
        **{name: value for name, value in changes.items() if name == "chunks_per_multiprocessor"},
    )
    sums = device.xp.zeros(plan.shape, dtype=device.xp.uint64)
    launch = prepare_launch(plan, device)
    timing = measure(lambda: launch(sums), arguments)

    pairs = n_atoms * (n_atoms - 1) // 2
    rate = pairs / timing["median_s"]
    clocks, visits = clocks_per_pair(plan)
    clock_rate = gpu["MultiProcessorCount"] * gpu["ClockRate"] * 1e3
    result: dict[str, Any] = {"pairs_per_s": rate, "visits_per_pair": round(visits, 2)}
    for name, of in clocks.items():
        result[f"{name}_ceiling_pairs_per_s"] = clock_rate / of
        result[f"share_of_{name}"] = rate * of / clock_rate
    if not changes:
        result["to_the_host"] = measure(lambda: pair_moments_cuda(positions, bins, device), arguments)
    if check:
        result["equals_cpu"] = require_equal(positions, whole, device)
    config = {
        "atoms": n_atoms,
        "displacement_angstrom": displacement,
        "bins": bins.count,
        "windows": -(-bins.count // plan.window),
        "chunks": len(plan.chunks),
        **changes,
    }
    emit("pair_moments", arguments, config=config, result=result, timing=timing)


def rocksalt_ball(n_atoms: int, displacement: float) -> list[np.ndarray]:
    """A ball of PbS, (n, 3) float64 [Å] for each of the two kinds, displaced at random."""
    reach = np.arange(-int(0.7 * n_atoms ** (1 / 3)) - 1, int(0.7 * n_atoms ** (1 / 3)) + 2)
    index = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    index = index[np.argsort((index**2).sum(axis=1), kind="stable")[:n_atoms]]
    position = 2.968 * index + displacement * np.random.default_rng(0).standard_normal(index.shape)
    return [position[index.sum(axis=1) % 2 == kind] for kind in (0, 1)]


def _limit_for(windows: int, bins: Bins, macros: dict[str, int]) -> int:
    """Shared memory [bytes] with which the bins need at least so many windows."""
    return 4 * (macros["MOMENTS"] + 1) * -(-bins.count // windows) + 4


def require_equal(positions: list[np.ndarray], bins: Bins, device: Any) -> bool:
    """Compare with the CPU engine in what counts: sums over the pairs, by Q."""
    q = np.linspace(0.5, Q_MAX, 40)
    difference = bins.node_weights(pair_moments_cuda(positions, bins, device)) - pair_weights(positions, bins)
    error = np.abs(difference @ np.sinc(np.outer(bins.nodes, q) / np.pi)).max() / sum(map(len, positions))
    if not error < AGREEMENT:
        raise RuntimeError(f"the GPU differs from the CPU by {error:.1e} of the intensity per atom")
    return True


def clocks_per_pair(plan: PairPlan, *, samples: int = 4000) -> tuple[dict[str, float], float]:
    """What a pair costs a multiprocessor at least, from a random sample of warps.

    A warp has 32 atoms of a tile and one of another. Additions go through the banks of shared memory one after another
    where lanes meet in a bank; the count merges lanes that meet in one bin.

    Returns:
        Clocks by ceiling, and how often a pair is visited: in each window that its atom reaches from the other's tile.
    """
    rng = np.random.default_rng(0)
    tile, n_moments = plan.macros["TILE"], plan.macros["MOMENTS"]
    tiles = plan.atoms.reshape(-1, tile, 4)[:, :, :3]
    work = (plan.chunks["end"] - plan.chunks["begin"]).astype(float)
    counted = visits = passes = instructions = 0.0
    for chunk in plan.chunks[rng.choice(len(work), size=samples, p=work / work.sum())]:
        k = int(rng.integers(chunk["begin"], chunk["end"]))
        b, a = divmod(
            k, int(chunk["tiles_a"])
        )  # as tile_pair() of pairs.cu, but for the few that it leaves out
        if chunk["tile_a"] == chunk["tile_b"]:
            b = (a + b) % int(chunk["tiles_a"])
        first, second = int(chunk["tile_a"]) + a, int(chunk["tile_b"]) + b
        atom = tiles[first, rng.integers(0, tile)]
        apart, half = np.abs(atom - plan.boxes[second, :3]), plan.boxes[second, 3:]
        nearest, farthest = (np.sqrt((d**2).sum()) for d in (np.maximum(apart - half, 0), apart + half))
        if farthest < chunk["first_bin"] or nearest > chunk["end_bin"]:
            continue
        lanes = tiles[second].reshape(-1, 32, 3)[rng.integers(0, tile // 32)]
        bins = np.sqrt(((lanes - atom) ** 2).sum(axis=1)).astype(int)
        visits += np.count_nonzero(bins < plan.shape[2])
        bins = bins[(bins >= chunk["first_bin"]) & (bins < chunk["end_bin"])]
        counted += len(bins)
        instructions += VISIT + (COUNT[n_moments] if len(bins) else 0)
        if len(bins):
            words = (n_moments + 1) * bins
            adding, counting = (np.bincount(of % 32).max() for of in (words, np.unique(words)))
            passes += (n_moments - 1) * adding + counting
    clocks = {"instructions": instructions / ISSUED_PER_CLOCK / counted, "banks": passes / counted}
    return clocks, visits / counted


if __name__ == "__main__":
    main()
