"""qd-simulate: a parameter grid -> a sharded zarr store of patterns.

    python -m hpc.simulate experiment=smoke                                   one process
    python -m hpc.simulate experiment=smoke material=mine.cif                 a material of one's own (.yaml or .cif)
    mpiexec -n 4 python -m mpi4py -m hpc.simulate experiment=allara2024       ranks share the work

For each structural variant its basis (pairs of all sizes -> size-resolved partial sums), then the shards of
intensities (basis -> patterns of the samples); each is dealt out piece by piece through a shared counter. Run the same
command again after a crash and it continues; a finished store is left alone.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import numpy as np

    from hpc.config import SimulateConfig
    from hpc.device import Device
    from hpc.mpi import World
    from hpc.pairs.nested import NestedFamily
    from hpc.simulation_plan import Plan
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
    from hpc.absorption import notes_near_edges
    from hpc.device import select_device
    from hpc.grid import intensity_bytes
    from hpc.sharing import on_rank_0
    from hpc.simulation_plan import Plan
    from hpc.store_writing import StoreWriter, check_disk

    device = select_device(config.device, local_rank=world.local_rank)
    # Before the samples: a grid that no disk holds would not fit into memory either.
    size = intensity_bytes(config.grid, config.q, len(config.variants))
    on_rank_0(world, lambda: check_disk(config.store.path, size))
    plan = Plan(config, device)
    layout = on_rank_0(world, lambda: plan.layout(identity, world))
    if world.rank == 0:
        kinds = [kind for variant in range(len(config.variants)) for kind in plan.kinds(variant)]
        for note in notes_near_edges(dict.fromkeys(kind.element for kind in kinds), config.beam):
            _log.info("%s", note)
    with StoreWriter(config.store.path, layout) as writer:
        if on_rank_0(world, writer.prepare):
            if world.rank == 0:
                _log.info("%s is complete already; nothing to do", writer.path)
            return writer.path
        for variant in range(len(config.variants)):
            _make_basis(variant, plan, layout, writer, world, device)
        _make_patterns(plan, layout, writer, world, device)
        on_rank_0(world, writer.finish)
    if world.rank == 0:
        _log.info("%s is complete: %d patterns of %d points", writer.path, layout.n_samples, len(layout.q))
    return writer.path


def _make_basis(
    variant: int, plan: Plan, layout: Layout, writer: StoreWriter, world: World, device: Device
) -> None:
    """What is missing of the basis of one variant (collective)."""
    import numpy as np

    from hpc.sharing import on_rank_0
    from hpc.synthesis import basis_partial

    arrays = layout.basis_arrays(variant)
    pending: list[Piece] = on_rank_0(world, lambda: [p for array in arrays for p in writer.pending(array)])
    if not pending:
        return
    name = f"variant {variant}: " if len(layout.bases) > 1 else ""
    family = _count(plan, variant, name, world, device)

    def compute(piece: Piece) -> np.ndarray:
        if piece.array == arrays[0]:
            return np.cumsum(family.atoms, axis=0)
        if piece.array == arrays[1]:
            return np.cumsum(family.near(layout.bases[variant].near_distance), axis=1)
        points = layout.bases[variant].q_fine[piece.start : piece.stop]
        return basis_partial(family, points, xp=device.xp, threads=world.threads)

    _share_pieces(pending, compute, writer, world, device, title=f"{name}basis", unit="Q points")
    world.barrier()


def _count(plan: Plan, variant: int, name: str, world: World, device: Device) -> NestedFamily:
    """The pair tables of a variant, on every rank (collective)."""
    import numpy as np

    from hpc.sharing import share_out

    counting = plan.counting(variant)
    if world.rank == 0:
        _log.info("%s%s", name, plan.describe(variant))
    tables = counting.tables()
    # Most expensive first, so that ranks end together.
    order = np.argsort(-counting.costs, kind="stable")
    share_out(
        world,
        device,
        [max(1, round(cost / 1e6)) for cost in counting.costs[order]],
        lambda index: counting.count(int(order[index]), tables, device=device, threads=world.threads),
        lambda *_: None,
        title=f"{name}pairs",
        unit="million pairs",
    )
    for table in tables:
        world.sum_in_place(table)
    return counting.family(tables)


def _make_patterns(plan: Plan, layout: Layout, writer: StoreWriter, world: World, device: Device) -> None:
    """The shards of intensities that are missing (collective)."""
    import numpy as np

    from hpc.schema import INTENSITY, VARIANT
    from hpc.sharing import on_rank_0
    from hpc.synthesis import Basis, Synthesis

    pending: list[Piece] = on_rank_0(world, lambda: writer.pending(INTENSITY))
    samples = layout.parameters

    # Shards are dealt in order and hold variants in order: the last one or two are all that is needed.
    @lru_cache(maxsize=1)
    def synthesis_of(variant: int) -> Synthesis:
        axes, (atoms, near, partial) = layout.bases[variant], layout.basis_arrays(variant)
        basis = Basis(
            kinds=plan.kinds(variant),
            diameter=10 * axes.diameter_nm,
            n_atoms=writer.read(atoms),
            partial=writer.read(partial),
            step=float(axes.q_fine[1]),
            near_distance=axes.near_distance,
            near_pairs=writer.read(near),
        )
        synthesis = Synthesis(
            basis, plan.config, layout.q, variant=variant, xp=device.xp, threads=world.threads
        )
        synthesis.keep_tables_of({name: v[samples[VARIANT] == variant] for name, v in samples.items()})
        return synthesis

    def compute(piece: Piece) -> np.ndarray:
        rows = slice(piece.start, piece.stop)
        variants = samples[VARIANT][rows]
        parts = [
            synthesis_of(int(variant)).patterns(
                {name: values[rows][variants == variant] for name, values in samples.items()}
            )
            for variant in np.unique(variants)
        ]
        return np.concatenate(parts)

    if pending:
        _share_pieces(pending, compute, writer, world, device, title="patterns", unit="patterns")
    world.barrier()


def _share_pieces(
    pieces: list[Piece],
    compute: Callable[[Piece], np.ndarray],
    writer: StoreWriter,
    world: World,
    device: Device,
    *,
    title: str,
    unit: str,
) -> None:
    """Compute, write and commit pieces (collective)."""
    from hpc.sharing import share_out

    def commit(index: int, values: np.ndarray, seconds: float) -> None:
        writer.write(pieces[index], values, rank=world.rank, seconds=seconds)

    amounts = [piece.stop - piece.start for piece in pieces]
    share_out(world, device, amounts, lambda i: compute(pieces[i]), commit, title=title, unit=unit)


def _identity(config: DictConfig) -> dict[str, Any]:
    """The composed YAML without what does not change the result: where the store lies and on what it is computed.

    A material from a file is there in full, so that the store does not depend on the file.
    """
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if file := composed.pop("material_file", None):
        from hpc.structure.material import load_material

        composed["material"] = load_material(file).to_config()
    composed["store"] = {key: value for key, value in composed["store"].items() if key != "path"}
    del composed["device"]
    return composed


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="simulate")
def _main(config: DictConfig) -> None:
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


def _word(word: str) -> str:
    """A word of the command line: `material=PATH` is a file, and Hydra knows groups by name alone."""
    key, _, value = word.partition("=")
    if key != "material" or not value.lower().endswith((".yaml", ".yml", ".cif")):
        return word
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"material_file='{escaped}'"


def main() -> None:
    """Entry point of qd-simulate."""
    sys.argv[1:] = [_word(word) for word in sys.argv[1:]]
    _main()


if __name__ == "__main__":
    main()
