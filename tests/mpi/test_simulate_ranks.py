"""One grid on 1, 2 and 3 ranks, with and without accidents: the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DISTURBED = Path(__file__).with_name("disturbed.py")


@pytest.mark.parametrize("n_ranks", [0, 1, 2, 3])
def test_the_number_of_ranks_does_not_change_a_byte(tmp_path, simulate, reference, store_bytes, n_ranks):
    simulate(n_ranks)
    assert store_bytes(tmp_path / "store.zarr") == reference


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_variants_of_every_engine_have_the_same_bytes_on_any_number_of_ranks(
    tmp_path, simulate, variants, reference_of_variants, store_bytes, n_ranks
):
    simulate(n_ranks, *variants)
    assert store_bytes(tmp_path / "store.zarr") == reference_of_variants


@pytest.mark.parametrize(
    ("victim", "part"),
    [
        (0, ".shards/basis-0001"),  # the piece is there, its record is not
        (1, "basis/0002/partial/c"),
    ],
)
def test_kill_9_between_variants_and_the_same_command_again(
    tmp_path, simulate, simulate_here, variants, reference_of_variants, store_bytes, victim, part
):
    path = tmp_path / "store.zarr"
    simulate(2, *variants, program=(DISTURBED, str(victim), "kill", part), returncode=None, timeout=60)
    assert list(path.rglob("*.part"))
    simulate_here(path, *variants)
    assert store_bytes(path) == reference_of_variants


def test_every_rank_takes_its_part(tmp_path, simulate):
    simulate(3, program=(DISTURBED, "9", "slow", ""))
    records = [
        json.loads(f.read_text())["content"] for f in (tmp_path / "store.zarr/.shards").glob("intensity*")
    ]
    assert {record["rank"] for record in records} == {0, 1, 2}


@pytest.mark.parametrize(
    ("n_ranks", "victim", "part"),
    [
        (2, 0, "basis/partial/c"),  # half a file of the basis
        (3, 1, ".shards/basis"),  # the file is there, its record is not
        (3, 2, "intensity/c"),
        (2, 0, ".shards/intensity"),
        (2, 0, ".manifest"),
        (2, 0, "store.zarr/zarr.json"),  # everything but `complete`
    ],
)
def test_kill_9_and_the_same_command_again(
    tmp_path, simulate, simulate_here, reference, store_bytes, n_ranks, victim, part
):
    path = tmp_path / "store.zarr"
    simulate(n_ranks, program=(DISTURBED, str(victim), "kill", part), returncode=None, timeout=60)
    assert list(path.rglob("*.part"))
    committed = {f.name: f.stat().st_mtime_ns for f in (path / ".shards").glob("*.json")}
    simulate_here(path)
    assert store_bytes(path) == reference
    # What was committed was not computed again.
    assert all((path / ".shards" / name).stat().st_mtime_ns == moment for name, moment in committed.items())


def test_kill_9_out_of_the_blue(tmp_path, grid, simulate, reference, store_bytes):
    """From outside, as soon as the first patterns are committed; then continued by another number of ranks."""
    path = tmp_path / "store.zarr"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI_", "SLURM_", "HYDRA_"))}
    environment |= {"ACCIDENT": str(tmp_path), "GIT_DIR": "/nowhere"}
    command = [
        Path(sys.executable).with_name("mpiexec"),
        "-n",
        "2",
        sys.executable,
        "-m",
        "mpi4py",
        DISTURBED,
        "9",
        "slow",
        "",
    ]
    run = subprocess.Popen(
        [*command, *grid], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while len(list((path / ".shards").glob("intensity*.json"))) < 3:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(rank_process(1, str(tmp_path)), signal.SIGKILL)
        assert run.wait(timeout=30) != 0
    finally:
        run.kill()
        run.wait()
    assert not (path / ".manifest.json").exists()
    simulate(3)
    assert store_bytes(path) == reference


def rank_process(rank, accident):
    """The process with this rank among those that this test started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"PMI_RANK={rank}".encode() in environment and f"ACCIDENT={accident}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_finished_store_is_not_computed_again(tmp_path, simulate, simulate_here):
    path = simulate_here(tmp_path / "store.zarr")
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    answer = simulate(3)
    assert "complete already; nothing to do" in answer.stdout + answer.stderr
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*")} == before


@pytest.mark.parametrize(
    ("victim", "accident", "message"),
    [
        (1, "bug", "a bug on rank 1"),
        (1, "value-error", "cannot store"),
        (1, "os-error", "No space left on device"),
    ],
)
def test_one_failing_rank_ends_all_with_its_message(tmp_path, simulate, victim, accident, message):
    started = time.monotonic()
    answer = simulate(
        3, program=(DISTURBED, str(victim), accident, "intensity/c"), returncode=None, timeout=60
    )
    assert time.monotonic() - started < 30
    assert message in answer.stderr
    assert not (tmp_path / "store.zarr/.manifest.json").exists()


def test_a_refusal_is_said_once_and_always(tmp_path, simulate):
    """All ranks refuse alike: none may be quicker to end the job than rank 0 is to say why."""
    answer = simulate(3, "grid.sigma=[-0.1]", returncode=None)
    assert answer.stderr.count("grid.sigma must be >= 0") == 1
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "store.zarr").exists()


def test_another_configuration_is_refused_on_all_ranks(tmp_path, simulate, simulate_here, store_bytes):
    before = store_bytes(simulate_here(tmp_path / "store.zarr"))
    answer = simulate(2, "grid.sigma=[0.05,0.2]", "energy_kev=8.048", returncode=None)
    assert "belongs to another configuration" in answer.stderr
    assert "grid.sigma: the store has [0.05, 0.1], this run asks for [0.05, 0.2]" in answer.stderr
    assert "energy_kev: the store has 22.0, this run asks for 8.048" in answer.stderr
    assert "grid.diameter_nm" not in answer.stderr
    assert "Traceback" not in answer.stderr
    assert store_bytes(tmp_path / "store.zarr") == before


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_tasks_that_do_not_find_each_other_are_an_error(tmp_path, simulate, variable):
    """The wrong `srun --mpi=` starts N processes that each believe to be alone."""
    answer = simulate(0, env={variable: "4"}, returncode=None)
    assert "the launcher started 4 tasks" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "store.zarr").exists()


def test_a_second_run_at_the_same_time_is_refused(tmp_path, grid, simulate, reference, store_bytes):
    path = tmp_path / "store.zarr"
    run = subprocess.Popen(
        [sys.executable, DISTURBED, "9", "slow", "", *grid],
        cwd=tmp_path,
        env=os.environ | {"GIT_DIR": "/nowhere"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not list((path / ".shards").glob("*.json")) if path.exists() else True:
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGSTOP)  # until the other one had its say
        answer = simulate(2, returncode=None)
        assert "another qd-simulate is writing" in answer.stderr
        assert "Traceback" not in answer.stderr
        run.send_signal(signal.SIGCONT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, errors
    assert store_bytes(path) == reference
