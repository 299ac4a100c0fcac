"""Run on three ranks: what `hpc.mpi` promises, asserted collectively."""

import sys
import time

from mpi4py import MPI

from hpc.mpi import join_world

comm = MPI.COMM_WORLD
world = join_world()
assert (world.rank, world.size) == (comm.rank, comm.size)
assert world.local_rank == comm.rank
assert world.threads >= 1
assert world.broadcast(f"from {world.rank}") == "from 0"

for _ in range(3):  # a new counter starts at 0
    counter = world.counter()
    taken = []
    for item in counter.take(40):
        taken.append(item)
        time.sleep(0.002 * world.rank)  # ranks of different speed
        counter.report(10)
    world.barrier()
    assert counter.finished == 400
    everything = [item for part in comm.allgather(taken) for item in part]
    assert sorted(everything) == list(range(40)), everything
    assert taken == sorted(taken)
    counter.close()
if world.rank == 0:
    sys.stdout.write("fine\n")
