"""Work that the ranks share: rank 0 decides for all, a shared counter deals out the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.device import Device
    from hpc.mpi import World

__all__ = ["on_rank_0", "share_out"]


def on_rank_0(world: World, work: Callable[[], Any]) -> Any:
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


def share_out(
    world: World,
    device: Device,
    amounts: Sequence[int],
    compute: Callable[[int], Any],
    commit: Callable[[int, Any, float], None],
    *,
    title: str,
    unit: str,
) -> None:
    """Compute and commit items until the shared counter has dealt all of them (collective).

    Args:
        world: the ranks.
        device: of this rank.
        amounts: how much each item counts in the progress line; items are dealt in their order.
        compute: number of an item -> its result; runs in a thread of its own.
        commit: number of an item, its result, seconds that it took.
        title: what is being done.
        unit: what the amounts are, in the plural.
    """
    from hpc.progress import Progress

    counter = world.counter()
    total = sum(amounts)
    with (
        ThreadPoolExecutor(1, initializer=device.use) as worker,
        Progress(title, unit, total, shown=world.rank == 0) as progress,
    ):
        for index in counter.take(len(amounts)):
            started = time.perf_counter()
            future = worker.submit(compute, index)
            # Computing runs beside this loop, so that rank 0 answers the other ranks and shows their progress.
            while wait([future], timeout=0.05).not_done:
                world.progress()
                progress.show(counter.finished)
            commit(index, future.result(), time.perf_counter() - started)
            counter.report(amounts[index])
        while world.rank == 0 and counter.finished < total:
            # Other ranks are still at work on their last piece.
            time.sleep(0.02)
            progress.show(counter.finished)
        progress.conclude()
    counter.close()
