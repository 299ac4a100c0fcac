"""Speed of the numerical kernels of `hpc`: pair histograms, float64 matrix products, patterns of a grid.

    python benchmarks/bench_kernels.py --device cuda --output results.jsonl

Each result stands beside its ceiling: what the device could do at most, computed (shared-memory atomics) or measured in
the same run (a large matrix product).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from common import emit, measure, read_arguments
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.config import SimulateConfig
from hpc.cuda.nested import WorkList, count_pairs_cuda, plan_work, prepare_launch
from hpc.ensemble import OVERHANG, fine_step, largest_diameter
from hpc.grid import grid_samples, q_values
from hpc.pairs.nested import average_over_centres, count_pairs
from hpc.structure.crystal import neighbour_distances
from hpc.structure.lattice_sites import cut_nested_sites
from hpc.structure.material import load_material
from hpc.structure.variant import read_group
from hpc.synthesis import Basis, Synthesis, basis_partial

# Of the inner loop of nested.cu for a warp's 32 visits, as compiled for compute capability 9.0, and how many of them a
# multiprocessor issues per clock.
INSTRUCTIONS, ISSUED_PER_CLOCK = 20, 4
# Of the NVIDIA H100: the shared-memory limit for which a work list is planned where no GPU says otherwise.
SHARED_LIMIT = 227 * 1024


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(__doc__.splitlines()[0], words)
    for diameter_nm in (4, 8) if arguments.quick else (4, 8, 10, 16, 20):
        pair_histograms(arguments, diameter_nm)
    if arguments.device.kind == "cuda" and not arguments.quick:
        pair_histograms(arguments, 40, check=False)
    basis_and_patterns(arguments, product_flops=matrix_product(arguments))


def pair_histograms(arguments: Any, diameter_nm: float, *, check: bool = True) -> None:
    """Every PbS sphere up to a diameter: all pairs by shell and distance."""
    device = arguments.device
    sites = cut_nested_sites(
        load_material("pbs"), shape="sphere", centre="Pb", diameter_max=10.0 * diameter_nm
    )
    work = plan_work(sites, shared_limit=SHARED_LIMIT)
    passes = bank_passes(work)
    result: dict[str, Any] = {
        "visits": work.visits,
        "items": len(work.items),
        "bank_passes_per_warp": round(passes, 2),
    }
    timing: dict[str, Any] = {}
    if device.kind == "cpu":
        timing = measure(lambda: count_pairs(sites), arguments)
        result["visits_per_s"] = work.visits / timing["median_s"]
    else:
        xp = device.xp
        counts = count_pairs_cuda(sites, device)
        if check and not np.array_equal(device.to_host(counts), count_pairs(sites)):
            raise RuntimeError(f"the counts of the GPU differ from those of the CPU at {diameter_nm} nm")
        total = xp.zeros(work.shape, dtype=xp.uint64)
        launch = prepare_launch(work, device)
        timing = measure(lambda: launch(total), arguments)
        gpu = xp.cuda.Device(device.index).attributes
        # At the boost clock; see the header of nested.cu.
        clocks_per_warp = max(INSTRUCTIONS / ISSUED_PER_CLOCK, passes)
        ceiling = gpu["MultiProcessorCount"] * gpu["ClockRate"] * 1e3 * 32 / clocks_per_warp
        result |= {
            "visits_per_s": work.visits / timing["median_s"],
            "ceiling_visits_per_s": ceiling,
            "share_of_ceiling": work.visits / timing["median_s"] / ceiling,
            "with_planning_and_upload": measure(lambda: count_pairs_cuda(sites, device), arguments),
            "with_copy_to_host": measure(lambda: device.to_host(count_pairs_cuda(sites, device)), arguments),
            "equals_cpu": check,
        }
    config = {"material": "pbs", "centre": "Pb", "diameter_nm": diameter_nm, "shape": work.shape}
    emit("pair_histograms", arguments, config=config, result=result, timing=timing)


def bank_passes(work: WorkList, *, samples: int = 2000) -> float:
    """Mean number of passes that a warp's 32 shared-memory atomics take: distinct bins in the fullest of 32 banks.

    From a random sample of warps, each with the weight of its item; lanes that meet in one bin share a pass.
    """
    rng = np.random.default_rng(0)
    width = work.items["site_end"] - work.items["site_begin"]
    visits = (work.items["rep_end"] - work.items["rep_begin"]).astype(float) * width
    chosen = work.items[rng.choice(len(visits), size=samples, p=visits / visits.sum())]
    passes = np.empty(samples)
    for index, item in enumerate(chosen):
        rep = work.representatives[rng.integers(item["rep_begin"], item["rep_end"]), :3].astype(int)
        begin = item["site_begin"] + rng.integers(0, -(-(item["site_end"] - item["site_begin"]) // 32)) * 32
        sites = work.sites[begin : min(begin + 32, item["site_end"]), :3]
        n = np.unique(((sites - rep) ** 2).sum(axis=1))
        passes[index] = np.bincount((n ^ (n >> 5)) % 32).max()
    return float(passes.mean())


def matrix_product(arguments: Any) -> float:
    """A large float64 product [flop/s]: the ceiling of everything that `hpc.debye` and `hpc.synthesis` do."""
    device = arguments.device
    n = 512 if arguments.quick else 8192 if device.kind == "cuda" else 2048
    rng = np.random.default_rng(0)
    a, b = (device.xp.asarray(rng.standard_normal((n, n))) for _ in range(2))
    timing = measure(lambda: a @ b, arguments)
    flops = 2 * n**3 / timing["median_s"]
    emit("matrix_product_f64", arguments, config={"n": n}, result={"flop_per_s": flops}, timing=timing)
    return flops


def basis_and_patterns(arguments: Any, product_flops: float) -> None:
    """A Cartesian grid of PbS spheres on 2000 points of Q, in memory: size-resolved partial sums, then patterns.

    Patterns also with correlated motion, by both laws.
    """
    device = arguments.device
    overrides = [
        "energy_kev=22",
        "q={min: 0.5, max: 20.49, step: 0.01}",
        f"grid.diameter_nm={'2.0 to 4.0 step 0.5' if arguments.quick else '2.0 to 10.0 step 0.1'}",
        "grid.sigma=0.01 to 0.2 in 20",
        "grid.strain=-0.002 to 0.002 in 5",
        "grid.tail=1e-4",
        f"device={device.kind}",
    ]
    with initialize_config_module(config_module="conf", version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("simulate", overrides=overrides), resolve=True)
    config = SimulateConfig.from_mapping(composed)
    q, samples = q_values(config.q), grid_samples(config.grid, config.seed)
    largest = largest_diameter(10 * samples["diameter"], samples["sigma"], tail=config.grid.tail)
    sites = cut_nested_sites(config.material, shape="sphere", centre="Pb", diameter_max=largest)
    family = average_over_centres([sites], [count_pairs(sites)])
    step = fine_step(family.diameter[-1])
    q_fine = step * np.arange(int(q[-1] * 1.01 / step) + OVERHANG)

    threads = len(os.sched_getaffinity(0))
    timing = measure(lambda: basis_partial(family, q_fine, xp=device.xp, threads=threads), arguments)
    flop = sum(2 * table.entering.size * len(q_fine) for table in family.pairs)
    result = {
        "flop_per_s": flop / timing["median_s"],
        "share_of_matrix_product": flop / timing["median_s"] / product_flops,
    }
    size = {"largest_nm": largest / 10, "particles": len(family.diameter), "q_fine": len(q_fine)}
    emit("basis_f64", arguments, config=size, result=result, timing=timing)

    near_distance = neighbour_distances(config.material)
    basis = Basis(
        kinds=config.material.kinds,
        diameter=family.diameter,
        n_atoms=np.cumsum(family.atoms, axis=0),
        partial=basis_partial(family, q_fine, xp=device.xp, threads=threads),
        step=step,
        near_distance=near_distance,
        near_pairs=np.cumsum(family.near(near_distance), axis=1),
    )
    synthesis = Synthesis(basis, config, q, xp=device.xp, threads=threads)
    timing = measure(lambda: synthesis.keep_tables_of(samples), arguments)
    n_sizes = len(np.unique(np.stack([samples["diameter"], samples["sigma"]]), axis=1).T)
    emit(
        "size_tables",
        arguments,
        config=size,
        result={"sizes_per_s": n_sizes / timing["median_s"]},
        timing=timing,
    )

    rows = len(samples["diameter"])
    for motion in ("independent", "neighbours", "smooth"):
        moving = replace(config.variants[0], motion=read_group("motion", motion))
        synthesis = Synthesis(basis, replace(config, variants=(moving,)), q, xp=device.xp, threads=threads)
        synthesis.keep_tables_of(samples)
        timing = measure(lambda: synthesis.patterns(samples), arguments)  # noqa: B023  # called at once
        result = {
            "patterns_per_s": rows / timing["median_s"],
            "bytes_per_s": 4 * rows * len(q) / timing["median_s"],
        }
        settings = {"patterns": rows, "q": len(q), "motion": motion}
        emit("grid_patterns", arguments, config=settings, result=result, timing=timing)


if __name__ == "__main__":
    main()
