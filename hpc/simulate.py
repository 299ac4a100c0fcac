"""qd-simulate: a parameter grid -> a sharded zarr store of patterns.

    python -m hpc.simulate experiment=smoke                                   one process
    mpiexec -n 4 python -m mpi4py -m hpc.simulate experiment=allara2024       ranks share the work

Two phases, each dealt out piece by piece through a shared counter: the basis (pair histograms -> size-resolved partial
sums), then the shards of intensities (basis -> patterns of the samples). Run the same command again after a crash and
it continues; a finished store is left alone.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import numpy as np

    from hpc.config import SimulateConfig
    from hpc.crystal import NestedSites
    from hpc.device import Device
    from hpc.mpi import World
    from hpc.nested import NestedFamily
    from hpc.store_writing import Layout, Piece, StoreWriter

__all__ = ["main", "simulate"]

_log = logging.getLogger(__name__)
# Seconds that the other ranks leave rank 0 to say what they all refuse.
_RANK_0_FIRST = 2.0


def simulate(config: SimulateConfig, identity: dict[str, Any], world: World) -> Path:
    """Create, continue or confirm a store (collective over the ranks).

    Args:
        config: what to simulate.
        identity: the composed configuration less what does not change the result (paths); kept in the store.
        world: the ranks.

    Returns:
        The path of the complete store.

    Raises:
        ValueError: the grid cannot be simulated; the store belongs to another configuration or does not fit.
    """
    from hpc.device import select_device
    from hpc.grid import grid_samples, intensity_bytes
    from hpc.schema import BASIS_PARTIAL, INTENSITY
    from hpc.store_writing import StoreWriter, check_disk
    from hpc.synthesis import Basis, Synthesis, basis_partial

    device = select_device(config.device, local_rank=world.local_rank)
    # Before the samples: a grid that no disk holds would not fit into memory either.
    _on_rank_0(world, lambda: check_disk(config.store.path, intensity_bytes(config.grid, config.q)))
    samples = grid_samples(config.grid, config.seed)
    cut = cache(lambda: _cut(config, samples))

    layout = _on_rank_0(world, lambda: _plan(config, identity, samples, cut(), device))
    with StoreWriter(config.store.path, layout) as writer:
        if _on_rank_0(world, writer.prepare):
            if world.rank == 0:
                _log.info("%s is complete already; nothing to do", writer.path)
            return writer.path

        pending = _on_rank_0(world, lambda: writer.pending(BASIS_PARTIAL))
        if pending:
            family = _count(cut(), device, world)
            _share_out(
                world,
                device,
                writer,
                pending,
                lambda piece: basis_partial(
                    family, layout.q_fine[piece.start : piece.stop], xp=device.xp, threads=world.threads
                ),
                "basis",
                "Q points",
            )
            del family
        world.barrier()

        pending = _on_rank_0(world, lambda: writer.pending(INTENSITY))
        if pending:
            basis = Basis(
                diameter=10 * layout.basis_diameter_nm,
                n_atoms=layout.basis_n_atoms,
                partial=writer.read_basis_partial(),
                step=float(layout.q_fine[1]),
            )
            synthesis = Synthesis(basis, config, layout.q, xp=device.xp, threads=world.threads)
            synthesis.keep_tables_of(samples)
            _share_out(
                world,
                device,
                writer,
                pending,
                lambda piece: synthesis.patterns(
                    {name: v[piece.start : piece.stop] for name, v in samples.items()}
                ),
                "patterns",
                "patterns",
            )
        world.barrier()
        _on_rank_0(world, writer.finish)
    if world.rank == 0:
        _log.info("%s is complete: %d patterns of %d points", writer.path, layout.n_samples, len(layout.q))
    return writer.path


def _on_rank_0(world: World, work: Callable[[], Any]) -> Any:
    """What rank 0 gets, on every rank; what rank 0 refuses, every rank refuses."""
    result, problem = None, None
    if world.rank == 0:
        try:
            result = work()
        except ValueError as error:
            problem = error
    result, problem = world.broadcast((result, problem))
    if problem is not None:
        raise problem
    return result


def _cut(config: SimulateConfig, samples: dict[str, np.ndarray]) -> list[NestedSites]:
    """The sites of the largest particle around each cut centre."""
    import numpy as np

    from hpc.crystal import cut_nested_sites
    from hpc.ensemble import largest_diameter
    from hpc.schema import DIAMETER, SIGMA

    diameter_max = largest_diameter(10 * samples[DIAMETER], samples[SIGMA], tail=config.grid.tail)
    nyquist = np.pi / diameter_max
    if config.q.step > nyquist:
        raise ValueError(
            f"q.step is too coarse for the largest particle: {diameter_max / 10:.3g} nm needs q.step <= {nyquist:.3g} "
            f"1/Å (Nyquist, π/D), got {config.q.step:g}; choose a finer q.step, smaller sizes or a smaller σ"
        )
    return [
        cut_nested_sites(config.material, shape=config.shape.name, centre=centre, diameter_max=diameter_max)
        for centre in (config.material.labels if config.shape.centres is None else config.shape.centres)
    ]


def _plan(
    config: SimulateConfig,
    identity: dict[str, Any],
    samples: dict[str, np.ndarray],
    centres: list[NestedSites],
    device: Device,
) -> Layout:
    """Axes, sizes and attributes of the store."""
    import numpy as np

    from hpc.ensemble import OVERHANG, fine_step
    from hpc.grid import q_values
    from hpc.material import kind_pairs
    from hpc.nested import merge_shells
    from hpc.schema import STRAIN
    from hpc.store_writing import Layout

    q = q_values(config.q)
    diameter, atoms, _ = merge_shells(centres)
    step = fine_step(diameter[-1])
    n_fine = int(np.ceil(q[-1] * (1 + samples[STRAIN].max()) / step)) + OVERHANG
    return Layout(
        q=q,
        parameters=samples,
        basis_diameter_nm=diameter / 10,
        basis_n_atoms=np.cumsum(atoms, axis=0),
        q_fine=step * np.arange(n_fine),
        n_pair=len(kind_pairs(len(config.material.kinds))),
        rows_per_shard=config.store.rows_per_shard,
        rows_per_chunk=config.store.rows_per_chunk,
        attributes={
            "material": config.material.name,
            "kinds": list(config.material.labels),
            "energy_kev": config.energy_kev,
            "normalisation": "electron units per atom: sum_k w_k I_k / sum_k w_k N_k, w lognormal number weights",
            "units": {"q": "1/angstrom", "diameter": "nm", "intensity": "electron units per atom"},
            "config": {**identity, "device": device.kind},
            "seed": config.seed,
            "software": {
                name: version(name) for name in ("debye-dots", "numpy", "numba", "scipy", "xraydb", "zarr")
            },
            "git_commit": _git_commit(),
            # Not the number of cores: a rank that is pinned to one of them writes the same bytes.
            "device": "CPU" if device.kind == "cpu" else device.name,
        },
    )


def _count(centres: list[NestedSites], device: Device, world: World) -> NestedFamily:
    """Pair tables of the family. CPU ranks share the shells; a GPU counts faster than it could share."""
    from hpc.nested import average_over_centres, count_pairs

    if device.kind == "cuda":
        from hpc.cuda.nested import count_pairs_cuda

        return average_over_centres(
            centres, [device.to_host(count_pairs_cuda(sites, device)) for sites in centres]
        )
    counts = [count_pairs(sites, threads=world.threads, part=(world.rank, world.size)) for sites in centres]
    for count in counts:
        world.sum_in_place(count)
    return average_over_centres(centres, counts)


def _share_out(
    world: World,
    device: Device,
    writer: StoreWriter,
    pieces: list[Piece],
    compute: Callable[[Piece], np.ndarray],
    title: str,
    unit: str,
) -> None:
    """Compute, write and commit pieces until the shared counter has dealt all of them."""
    from hpc.progress import Progress

    counter = world.counter()
    total = sum(piece.stop - piece.start for piece in pieces)
    with (
        ThreadPoolExecutor(1, initializer=device.use) as worker,
        Progress(title, unit, total, shown=world.rank == 0) as progress,
    ):
        for index in counter.take(len(pieces)):
            started = time.perf_counter()
            future = worker.submit(compute, pieces[index])
            # Computing runs beside this loop, so that rank 0 answers the other ranks and shows their progress.
            while wait([future], timeout=0.05).not_done:
                world.progress()
                progress.show(counter.finished)
            writer.write(
                pieces[index], future.result(), rank=world.rank, seconds=time.perf_counter() - started
            )
            counter.report(pieces[index].stop - pieces[index].start)
        while world.rank == 0 and counter.finished < total:
            # Other ranks are still at work on their last piece.
            time.sleep(0.02)
            progress.show(counter.finished)
        progress.conclude()
    counter.close()


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return None
    return answer.stdout.strip() or None


def _identity(config: DictConfig) -> dict[str, Any]:
    """The composed YAML without what does not change the result: where the store lies and on what it is computed."""
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    composed["store"] = {key: value for key, value in composed["store"].items() if key != "path"}
    del composed["device"]
    return composed


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="simulate")
def main(config: DictConfig) -> None:
    """Entry point of qd-simulate."""
    rank = 0
    try:
        from hpc.config import SimulateConfig
        from hpc.mpi import join_world

        world = join_world()
        rank = world.rank
        if rank:
            logging.getLogger().setLevel(logging.WARNING)  # rank 0 speaks for all
        checked = SimulateConfig.from_mapping(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        simulate(checked, _identity(config), world)
    except (ValueError, RuntimeError) as error:
        if rank:
            # As a rule all ranks refuse alike. Rank 0 says why, and its exit ends the others while they wait
            # here; a rank that is alone with its error (a full disk, a missing GPU) says so itself.
            time.sleep(_RANK_0_FIRST)
        print(f"qd-simulate: error{f' (rank {rank})' if rank else ''}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
