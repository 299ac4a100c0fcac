"""The ranks and their shared counter."""

from pathlib import Path


def test_ranks_share_a_counter(run_command):
    script = Path(__file__).with_name("world_of_ranks.py")
    answer = run_command(["mpiexec", "-n", "3", "python", "-m", "mpi4py", script], timeout=60)
    assert answer.stdout == "fine\n"
