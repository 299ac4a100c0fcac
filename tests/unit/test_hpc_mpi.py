"""One process without MPI behind the interface of the ranks."""

import sys

import pytest

from hpc.mpi import SharedCounter, World, join_world

LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


@pytest.fixture
def no_launcher(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)


def test_one_process_is_rank_0_of_1(no_launcher):
    world = join_world()
    assert (world.rank, world.size, world.local_rank) == (0, 1, 0)
    assert world.threads >= 1
    assert world.broadcast({"a": 1}) == {"a": 1}
    world.barrier()
    world.progress()


def test_one_process_does_not_load_mpi(no_launcher):
    join_world()
    assert "mpi4py.MPI" not in sys.modules


def test_the_counter_deals_each_number_once():
    counter = World().counter()
    assert list(counter.take(5)) == [0, 1, 2, 3, 4]
    assert list(counter.take(5)) == []
    counter.close()


def test_the_counter_adds_up_what_is_finished():
    counter = SharedCounter(None)
    assert counter.finished == 0
    counter.report(3)
    counter.report(4)
    assert counter.finished == 7
    assert next(counter.take(10)) == 0


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_without_an_mpi_library_is_an_error(no_launcher, monkeypatch, name):
    """Else each of 4 tasks would silently do all the work."""
    monkeypatch.setenv(name, "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(RuntimeError, match=r"started 4 tasks, but MPI cannot be loaded.*debye-dots\[mpich\]"):
        join_world()
