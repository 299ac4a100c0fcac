"""The templates on a real two-node SLURM: several ranks, dependent jobs, requeued jobs, and jobs that must fail.

Results are compared, byte for byte, with the same commands run without SLURM and without interruption.
"""

import json
import re
from pathlib import Path

import pytest

# 7200 patterns in 300 shards: seconds of work, so that a job can be met in the middle of it.
GRID = (
    "experiment=smoke",
    "device=cpu",
    "q.step=0.01",
    "grid.strain=-0.002 to 0.004 in 1200",
    "store.rows_per_shard=24",
    "store.rows_per_chunk=24",
)
SHARDS = 300
# Seconds, too. The state is saved only when somebody asks for it.
TRAINING = (
    "experiment=smoke",
    "device=cpu",
    "data.store=four.zarr",
    "trainer.steps=300",
    "trainer.evaluate_every=20",
    "trainer.checkpoint_every=1000000",
)
# The nodes claim more cores than this machine may have.
FOUR_RANKS = ("--cpus-per-task=1",)
TWO_RANKS = ("--cpus-per-task=1", "--ntasks-per-node=1")


def intensity(store: Path) -> dict[str, bytes]:
    """Every file of the intensities: their metadata and their shards."""
    files = [path for path in (store / "intensity").rglob("*") if path.is_file()]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def records(store: Path) -> dict[str, bytes]:
    """The records of the committed shards."""
    return {path.name: path.read_bytes() for path in store.glob(".shards/intensity-*.json")}


def weights(model: Path) -> bytes:
    return (model / "model.safetensors").read_bytes()


def looks(model: Path) -> list[dict[str, float]]:
    """What training saw in the validation split, look by look."""
    file = model / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    kept = ("step", "learning_rate", "validation_")  # seconds and train_loss are those since the last start
    return [{name: value for name, value in line.items() if name.startswith(kept)} for line in lines]


@pytest.fixture(scope="module")
def pipeline(cluster) -> tuple[int, int]:
    """Two jobs, submitted together: simulate as the template says, on 2 nodes with 2 ranks each, then train."""
    simulation = cluster.submit("simulate.sh", *GRID, "store.path=four.zarr", options=FOUR_RANKS)
    after = f"--dependency=afterok:{simulation}"
    return simulation, cluster.submit("train_ddp.sh", *TRAINING, options=(after, *TWO_RANKS))


@pytest.fixture(scope="module")
def reference_store(cluster) -> Path:
    """The grid, simulated by one process without SLURM."""
    cluster.run("python", "-m", "hpc.simulate", *GRID, "store.path=reference.zarr")
    return cluster.folder / "reference.zarr"


@pytest.fixture(scope="module")
def reference_model(cluster, pipeline: tuple[int, int]) -> Path:
    """The network, trained by two processes without SLURM."""
    cluster.completed(pipeline[0])
    command = ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "qdml.train"]
    cluster.run(*command, *TRAINING, "trainer.threads=1", "output=reference")
    return cluster.folder / "reference"


def test_four_ranks_on_two_nodes_equal_one_process(cluster, pipeline, reference_store: Path) -> None:
    shown = cluster.completed(pipeline[0])
    assert (shown["NodeList"], shown["NumTasks"]) == ("n[1-2]", "4")
    store = cluster.folder / "four.zarr"
    ranks = {json.loads(record)["content"]["rank"] for record in records(store).values()}
    assert ranks & {0, 1} and ranks & {2, 3}  # of the first and of the second node
    assert intensity(store) == intensity(reference_store)


def test_training_on_two_nodes_follows_and_equals_two_processes(
    cluster, pipeline, reference_model: Path
) -> None:
    simulation, training = map(cluster.completed, pipeline)
    assert (training["NodeList"], training["NumTasks"]) == ("n[1-2]", "2")
    assert training["StartTime"] >= simulation["EndTime"]
    model = cluster.folder / "runs" / str(pipeline[1])
    assert weights(model) == weights(reference_model)
    assert looks(model) == looks(reference_model)


def test_a_requeued_simulation_keeps_its_shards_and_ends_in_the_same_bytes(cluster, reference_store) -> None:
    store = cluster.folder / "requeued.zarr"
    job = cluster.submit("simulate.sh", *GRID, "store.path=requeued.zarr", options=TWO_RANKS)
    after = cluster.run("sbatch", "--parsable", f"--dependency=afterok:{job}", "--wrap", "true")
    cluster.interrupt(job, lambda: len(records(store)) > 0)
    cluster.wait(job, "PENDING")
    kept = records(store)
    assert 0 < len(kept) < SHARDS
    assert cluster.completed(job)["Restarts"] == "1"
    assert f"requeue job {job} (restart 1 of at most 20)" in cluster.log(job)
    assert intensity(store) == intensity(reference_store)
    assert kept.items() <= records(store).items()  # they say who made a shard and in what time
    cluster.completed(int(after))  # it has waited for the end, not for the interruption


def test_a_requeued_training_resumes_and_ends_in_the_same_weights(cluster, reference_model: Path) -> None:
    job = cluster.submit("train_ddp.sh", *TRAINING, options=TWO_RANKS)
    model = cluster.folder / "runs" / str(job)
    cluster.interrupt(job, lambda: len(looks(model)) > 0)
    cluster.wait(job, "PENDING")
    assert 0 < len(looks(model)) < len(looks(reference_model))
    assert cluster.completed(job)["Restarts"] == "1"
    assert re.search(r"resuming at step [1-9]", cluster.log(job))
    assert weights(model) == weights(reference_model)
    assert looks(model) == looks(reference_model)


def test_the_wrong_mpi_protocol_is_an_error(cluster) -> None:
    job = cluster.submit("simulate.sh", *GRID, "store.path=alone.zarr", options=TWO_RANKS, QD_SRUN_MPI="none")
    cluster.wait(job, "FAILED")
    assert "the launcher started 2 tasks" in cluster.log(job)
    assert "MPI connects 1" in cluster.log(job)
    assert not (cluster.folder / "alone.zarr").exists()


@pytest.mark.parametrize("template", ["simulate.sh", "train_ddp.sh"])
def test_a_command_that_fails_fails_the_job_once(cluster, template: str) -> None:
    job = cluster.submit(template, "experiment=smoke", "no_such_key=1", options=("--nodes=1", *TWO_RANKS))
    shown = cluster.wait(job, "FAILED")
    assert shown["Restarts"] == "0"
    assert shown["ExitCode"] != "0:0"
    assert "no_such_key" in cluster.log(job)


def test_gpus_are_given_to_as_many_tasks(cluster) -> None:
    options = ("--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1")
    job = cluster.submit("simulate.sh", *GRID, options=options, SBATCH_GPUS_PER_NODE="2")
    cluster.wait(job, "FAILED")
    assert "got 1 tasks and 2 GPUs per node: submit with sbatch --ntasks-per-node=2" in cluster.log(job)
