"""The templates on a real two-node SLURM: several ranks, dependent jobs, requeued jobs, and jobs that must fail.

Results are compared with the same commands run without SLURM and without interruption.
"""

import re
from pathlib import Path

import pytest

# 2400 patterns in 600 shards: seconds of work, so that a job can be met in the middle of it.
GRID = (
    "experiment=smoke",
    "device=cpu",
    "grid.strain=-0.002 to 0.004 in 400",
    "store.rows_per_shard=4",
    "store.rows_per_chunk=4",
)
ONE_CORE = ("--cpus-per-task=1",)  # fewer threads than the template's tasks would start here


def intensity(store: Path) -> dict[str, bytes]:
    """Every file of the intensities: their metadata and their shards."""
    files = [path for path in (store / "intensity").rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def shards_done(store: Path) -> int:
    return len(list(store.glob(".shards/intensity-*.json")))


@pytest.fixture(scope="module")
def reference_store(cluster) -> Path:
    """The grid, simulated by one process without SLURM."""
    cluster.run("python", "-m", "hpc.simulate", *GRID, "store.path=reference.zarr", timeout=120)
    return cluster.folder / "reference.zarr"


@pytest.fixture(scope="module")
def four_ranks(cluster) -> tuple[int, Path]:
    """The job that simulates the grid as the template asks for it: on 2 nodes with 2 ranks each."""
    job = cluster.submit("simulate.sh", *GRID, "store.path=four.zarr", options=ONE_CORE)
    return job, cluster.folder / "four.zarr"


def test_four_ranks_on_two_nodes_equal_one_process(cluster, four_ranks, reference_store: Path) -> None:
    job, store = four_ranks
    shown = cluster.completed(job)
    assert (shown["NodeList"], shown["NumTasks"]) == ("n[1-2]", "4")
    records = [path.read_text() for path in store.glob(".shards/intensity-*.json")]
    assert {re.search(r'"rank": (\d+)', record)[1] for record in records} == {"0", "1", "2", "3"}
    assert intensity(store) == intensity(reference_store)


def test_a_requeued_simulation_ends_in_the_same_bytes(cluster, reference_store: Path) -> None:
    store = cluster.folder / "requeued.zarr"
    job = cluster.submit("simulate.sh", *GRID, "store.path=requeued.zarr", options=ONE_CORE)
    cluster.interrupt(job, lambda: shards_done(store) > 0)
    cluster.wait_for_state(job, "PENDING")
    committed = {path.name: path.stat().st_mtime_ns for path in store.glob(".shards/intensity-*.json")}
    assert 0 < len(committed) < 600
    assert cluster.completed(job)["Restarts"] == "1"
    assert f"requeue job {job} (restart 1" in cluster.log(job)
    assert intensity(store) == intensity(reference_store)
    kept = {path.name: path.stat().st_mtime_ns for path in store.glob(".shards/intensity-*.json")}
    assert kept.items() >= committed.items()


def test_the_wrong_mpi_protocol_is_an_error(cluster) -> None:
    job = cluster.submit("simulate.sh", *GRID, "store.path=alone.zarr", options=ONE_CORE, QD_SRUN_MPI="none")
    assert cluster.wait(job)["JobState"] == "FAILED"
    assert "the launcher started 4 tasks" in cluster.log(job)
    assert "MPI connects 1" in cluster.log(job)
    assert not (cluster.folder / "alone.zarr").exists()


@pytest.mark.parametrize("template", ["simulate.sh", "train_ddp.sh"])
def test_a_command_that_fails_fails_the_job_once(cluster, template: str) -> None:
    job = cluster.submit(template, "experiment=smoke", "no_such_key=1", options=("--nodes=1", *ONE_CORE))
    shown = cluster.wait(job)
    assert (shown["JobState"], shown["Restarts"]) == ("FAILED", "0")
    assert shown["ExitCode"] != "0:0"
    assert "no_such_key" in cluster.log(job)
