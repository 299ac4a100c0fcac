"""Who a process is, by what the launchers say."""

import pytest
import torch

from qdml.distributed import Launch, Processes, choose_device, cpu_threads, join_processes, read_launch

RENDEZVOUS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **RENDEZVOUS}
SRUN = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NTASKS": "4", **RENDEZVOUS,
}  # fmt: skip


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_launchers(environment: dict[str, str]) -> None:
    assert read_launch(environment) == Launch(rank=3, world=4, local_rank=1, local_world=2)


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}],
    ids=["none", "batch script", "one task"],
)
def test_no_launcher_is_one_process(environment: dict[str, str]) -> None:
    assert read_launch(environment) == Launch(rank=0, world=1, local_rank=0, local_world=1)


@pytest.mark.parametrize(
    ("environment", "name"),
    [(TORCHRUN, "MASTER_ADDR"), (TORCHRUN, "LOCAL_RANK"), (SRUN, "MASTER_PORT"), (SRUN, "SLURM_LOCALID")],
)
def test_a_missing_variable_is_named(environment: dict[str, str], name: str) -> None:
    incomplete = {key: value for key, value in environment.items() if key != name}
    with pytest.raises(ValueError, match=f"{name} is not set; start with torchrun"):
        read_launch(incomplete)


def test_threads_are_the_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    launch = Launch(rank=0, world=4, local_rank=0, local_world=4)
    assert cpu_threads(launch, {}) == 2
    assert cpu_threads(launch, {"SLURM_CPUS_PER_TASK": "3"}) == 3
    assert cpu_threads(Launch(rank=0, world=16, local_rank=0, local_world=16), {}) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the error without CUDA")
def test_cuda_without_a_gpu() -> None:
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="device=cuda: .* finds no usable GPU.*choose device=cpu"):
        choose_device("cuda")


def test_one_process_agrees_with_itself() -> None:
    with join_processes("cpu") as processes:
        assert (processes.rank, processes.world) == (0, 1)
        assert processes.any(True)
        assert not processes.any(False)
        assert processes.broadcast("x") == "x"
        processes.agree(None)
        with pytest.raises(ValueError, match="mine"):
            processes.agree(ValueError("mine"))
        model = torch.nn.Linear(1, 1)
        assert isinstance(processes, Processes)
        assert processes.wrap(model) is model
