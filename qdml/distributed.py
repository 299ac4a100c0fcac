"""Processes of one training run: who they are, how they agree. The only door to `torch.distributed`.

Launched by torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), by srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS,
SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE), or by nothing: then there is one process. Gradients travel by NCCL between
GPUs and by gloo between CPUs; what the processes agree on (stop? better?) always travels by gloo, so that asking does
not wait for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

__all__ = ["Launch", "Processes", "choose_device", "cpu_threads", "join_processes", "read_launch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the launcher says about this process."""

    rank: int
    world: int
    local_rank: int
    """Number of this process on its node."""
    local_world: int
    """Processes on its node."""


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read the variables of torchrun or srun; one process if neither started this one.

    Raises:
        ValueError: a variable is missing; the message names it.
    """
    if "WORLD_SIZE" in environment or "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        launcher = "torchrun"
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        launcher = "srun"
    else:
        # An interactive or batch shell of SLURM has SLURM_NTASKS too; only srun starts more than one of us.
        return Launch(rank=0, world=1, local_rank=0, local_world=1)
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ValueError(
            f"started by {launcher}, but {', '.join(missing)} is not set; start with torchrun, or before srun export "
            "MASTER_ADDR (name or address of the first node) and MASTER_PORT (a free port), as slurm/train_ddp.sh does"
        )
    rank, world, local_rank = (int(environment[name]) for name in names)
    if launcher == "torchrun":
        local_world = int(environment.get("LOCAL_WORLD_SIZE", world))
    else:
        # "2(x2)" or "3,2": tasks on each node; take the first number, nodes are filled alike.
        tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", str(world))
        local_world = int(tasks.split(",")[0].split("(")[0])
    return Launch(rank=rank, world=world, local_rank=local_rank, local_world=local_world)


def cpu_threads(launch: Launch, environment: Mapping[str, str]) -> int:
    """Threads for this process: the cores it was given, or its share of the cores it sees."""
    if "SLURM_CPUS_PER_TASK" in environment:
        return int(environment["SLURM_CPUS_PER_TASK"])
    return max(1, len(os.sched_getaffinity(0)) // launch.local_world)


@dataclass(slots=True)
class Processes:
    """The processes of this run, seen from one of them."""

    launch: Launch
    device: torch.device
    _control: Any = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.launch.rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.launch.world

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model with gradients averaged over the processes."""
        if self.world == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        # One bucket: the same sums in every step, so that a resumed run adds in the same order.
        return DistributedDataParallel(model, bucket_cap_mb=1024, gradient_as_bucket_view=True)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self.sum(torch.tensor([float(flag)], dtype=torch.float64))[0] > 0)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over the processes of a CPU tensor."""
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(values, group=self._control)
        return values

    def broadcast(self, value: Any) -> Any:
        """What rank 0 has, on every process."""
        if self.world > 1:
            import torch.distributed as dist

            box = [value]
            dist.broadcast_object_list(box, group=self._control)
            value = box[0]
        return value

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of their ranks, on every process."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._control)
        return values

    def barrier(self) -> None:
        """Wait for the others."""
        self.any(False)

    def agree(self, problem: Exception | None) -> None:
        """Raise on all processes what one of them met, so that none waits for the others for ever.

        Raises:
            Exception: this process's problem, or a ValueError with the first problem of another one.
        """
        problems = self.gather(None if problem is None else str(problem))
        others = [text for text in problems if text is not None]
        if problem is None and others:
            problem = ValueError(others[0])
        if problem is not None:
            raise problem


def choose_device(request: str, local_rank: int = 0) -> torch.device:
    """The device of this process.

    Args:
        request: auto (CUDA if there is a device), cpu or cuda.
        local_rank: number of this process on its node.

    Raises:
        ValueError: `cuda` where there is none.
    """
    if request == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device=cuda: torch {torch.__version__} finds no usable GPU; install a CUDA build of torch, run on a GPU "
            "node, or choose device=cpu"
        )
    if request == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # A scheduler may show each process only its own GPU, which then has number 0.
    chosen = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(chosen)
    return chosen


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes, and leave them in order.

    Args:
        device: auto, cpu or cuda.

    Raises:
        ValueError: incomplete environment, or `cuda` where there is none.
    """
    launch = read_launch(os.environ)
    chosen = choose_device(device, launch.local_rank)
    if launch.world == 1:
        yield Processes(launch, chosen)
        return

    import torch.distributed as dist

    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, rank=launch.rank, world_size=launch.world, device_id=chosen if backend == "nccl" else None
    )
    try:
        control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo")
        yield Processes(launch, chosen, control)
    finally:
        dist.destroy_process_group()
