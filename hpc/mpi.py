"""Ranks: who I am, a shared counter that deals out work, and one process without MPI behind the same interface.

mpi4py enters the project here and nowhere else, and only when a launcher started this process (or `-m mpi4py` already
loaded it): a laptop needs no MPI library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["SharedCounter", "World", "join_world"]

# What the launchers say about the number of ranks: MPICH and Intel (PMI), Open MPI, SLURM's step.
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


class World:
    """The ranks of this run. With `comm` None: this process alone."""

    def __init__(self, comm: Any = None) -> None:
        """Wrap a communicator of mpi4py, or nothing."""
        self._comm = comm
        self.rank: int = comm.Get_rank() if comm else 0
        self.size: int = comm.Get_size() if comm else 1
        self.local_rank = 0
        self.local_size = 1
        cores = frozenset(os.sched_getaffinity(0))
        sharers = 1
        if comm:
            from mpi4py import MPI

            node = comm.Split_type(MPI.COMM_TYPE_SHARED, key=self.rank)
            self.local_rank, self.local_size = node.Get_rank(), node.Get_size()
            # A launcher may pin every rank to cores of its own, or let all of them see all cores.
            sharers = node.allgather(cores).count(cores)
            node.Free()
        #: Cores for this rank.
        self.threads: int = max(1, len(cores) // sharers)

    def barrier(self) -> None:
        """Wait for every rank."""
        if self._comm:
            self._comm.Barrier()

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self._comm.bcast(value, root=0) if self._comm else value

    def sum_in_place(self, array: np.ndarray) -> None:
        """Replace an array by its sum over all ranks."""
        if self._comm:
            from mpi4py import MPI

            self._comm.Allreduce(MPI.IN_PLACE, array, op=MPI.SUM)

    def progress(self) -> None:
        """Let MPI serve the other ranks' one-sided calls while this rank computes."""
        if self._comm:
            self._comm.Iprobe()

    def counter(self) -> SharedCounter:
        """A new shared counter (collective)."""
        return SharedCounter(self._comm)


class SharedCounter:
    """Deals out 0, 1, 2, ... to all ranks, each number once, in the order in which they ask.

    One-sided fetch-and-add on memory of rank 0, so that ranks stay busy when items cost differently and no rank is
    spent on dealing. Collective to create and to close.
    """

    def __init__(self, comm: Any) -> None:
        """Put the counter on rank 0 of the communicator (None: this process)."""
        self._window: Any = None
        self._local = np.zeros(2, dtype=np.int64)
        if comm:
            from mpi4py import MPI

            self._mpi = MPI
            size = self._local.nbytes if comm.Get_rank() == 0 else 0
            self._window = MPI.Win.Allocate(size, self._local.itemsize, comm=comm)
            if size:
                np.frombuffer(self._window.tomemory(), dtype=np.int64)[:] = 0
            comm.Barrier()
            self._window.Lock_all()

    def _add(self, slot: int, amount: int) -> int:
        """Add to a slot and return what it held before."""
        if self._window is None:
            before = int(self._local[slot])
            self._local[slot] += amount
            return before
        before_, amount_ = np.zeros(1, dtype=np.int64), np.full(1, amount, dtype=np.int64)
        self._window.Fetch_and_op(amount_, before_, 0, slot, self._mpi.SUM)
        self._window.Flush(0)
        return int(before_[0])

    def take(self, count: int) -> Iterator[int]:
        """Numbers below `count` that fall to this rank."""
        while (item := self._add(0, 1)) < count:
            yield item

    def report(self, amount: int) -> None:
        """Add to the sum of what all ranks have finished."""
        self._add(1, amount)

    @property
    def finished(self) -> int:
        """What all ranks have reported so far."""
        return self._add(1, 0)

    def close(self) -> None:
        """Free the shared memory (collective)."""
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None


def join_world() -> World:
    """The ranks that the launcher started, or this process alone.

    Raises:
        RuntimeError: a launcher started several tasks but MPI is missing, or connects fewer ranks than there are tasks
            (every task would then silently do all the work).
    """
    sizes = {name: int(os.environ[name]) for name in _SIZE_VARIABLES if os.environ.get(name, "").isdigit()}
    expected = max(sizes.values(), default=1)
    if expected == 1 and "mpi4py.MPI" not in sys.modules:
        return World()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py found no MPI library
        raise RuntimeError(
            f"the launcher started {expected} tasks, but MPI cannot be loaded ({error}); "
            "install an MPI library (pip install 'debye-dots[mpich]', or the cluster's module) or start one process"
        ) from error
    comm = MPI.COMM_WORLD
    if comm.Get_size() != expected and sizes:
        raise RuntimeError(
            f"the launcher started {expected} tasks ({sizes}), but MPI connects {comm.Get_size()}: the launcher and "
            "the MPI library do not speak the same protocol; with SLURM try another `srun --mpi=` (MPICH: pmi2)"
        )
    return World(comm)
