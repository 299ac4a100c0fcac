"""The commands of the project in this process, where their start from the shell is not what a test asks for.

A start of Python costs 2 s, with torch 4 s.
"""

import itertools
import logging
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from hpc.config import SimulateConfig
    from hpc.store import Store
    from qdml.config import TrainConfig


#: Endless dots in the range of the smoke store.
ENSEMBLE = (
    "data=ensemble",
    "data.diameter_nm=[2,3]",
    "data.sigma=[0.05,0.1]",
    "data.strain=[-0.002,0.004]",
    "data.b_scale=[1,1]",
)
#: A small posterior network with Muon.
POSTERIOR = (
    "network=posterior",
    "network.input=area_mask",
    "network.components=50",
    "network.width=32",
    "network.blocks=1",
    "optim=muon",
)


def composed(command: str, *overrides: str) -> dict[str, Any]:
    """What Hydra makes of the words behind `simulate`, `train` or `evaluate`."""
    return OmegaConf.to_container(_compose(command, *overrides), resolve=True)  # type: ignore[return-value]


def simulate_config(*overrides: str) -> "SimulateConfig":
    from hpc.config import SimulateConfig

    return SimulateConfig.from_mapping(composed("simulate", *overrides))


def simulated(path: Path, *overrides: str, experiment: str = "smoke") -> Path:
    """The store that `qd-simulate` makes at `path` in one process on the CPU."""
    from hpc import simulate
    from hpc.mpi import World

    words = (f"experiment={experiment}", f"store.path={path}", "device=cpu", *overrides)
    simulate.simulate(simulate_config(*words), simulate._identity(_compose("simulate", *words)), World())
    return path


def simulated_grid(path: Path, *overrides: str, experiment: str = "smoke") -> "tuple[SimulateConfig, Store]":
    """What was asked for, and the store of it."""
    from hpc.store import open_store

    store = open_store(simulated(path, *overrides, experiment=experiment))
    return simulate_config(f"experiment={experiment}", f"store.path={path}", *overrides), store


def exact_samples(
    config: "SimulateConfig", store: "Store", **keys: Any
) -> "Iterator[tuple[dict[str, float], np.ndarray, np.ndarray]]":
    """Of each sample of a store: its parameters, its pattern, and the exact one, of its ensemble on its own."""
    from hpc.dots import dot_pattern

    for row, stored in enumerate(store.read(0, store.n_samples)):
        sample = {name: float(values[row]) for name, values in store.parameters.items()}
        exact = dot_pattern(
            config.variants[int(sample["variant"])],
            q=store.q,
            diameter_nm=sample["diameter"],
            sigma=sample["sigma"],
            strain=sample["strain"],
            b_scale=sample["b_scale"],
            energy_kev=22.0,
            tail=1e-9,
            **keys,
        )
        yield sample, stored, exact


def train_config(*overrides: str) -> "TrainConfig":
    from qdml.config import TrainConfig, read_config

    return read_config(TrainConfig, composed("train", *overrides))


def trained(output: Path, *overrides: str) -> Path:
    """The model that `qd-train` makes at `output` in one process on one core."""
    from qdml.distributed import join_processes
    from qdml.train import train

    config = train_config(f"output={output}", "device=cpu", "trainer.threads=1", *overrides)
    with join_processes("cpu") as processes:
        assert train(config, processes, lambda: False) == 0
    return output


def train_in_processes(
    config: "TrainConfig", n: int, log: Path, stop_at: int | None = None
) -> set[int | None]:
    """Exit codes of n processes that train together, as torchrun starts them; all have one address.

    They are copies of a process that has imported torch already. Their log goes to a file; `stop_at` is a step after
    which the last of them, and nobody else, is told to stop.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["qdml.trainer", "qdml.models", "torch.distributed"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(n):
        place = {
            "RANK": rank,
            "WORLD_SIZE": n,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": n,
            "MASTER_PORT": port,
        }
        place = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
        last = stop_at if rank == n - 1 else None
        processes.append(context.Process(target=_train_one, args=(config, place, log, last)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
    return {process.exitcode for process in processes}


def _train_one(config: "TrainConfig", place: dict[str, str], log: Path, stop_at: int | None) -> None:
    from qdml.distributed import join_processes
    from qdml.train import train

    os.environ.update(place)
    logging.basicConfig(filename=log, level=logging.INFO)
    steps = itertools.count(1)
    with join_processes("cpu") as processes:
        sys.exit(train(config, processes, lambda: stop_at is not None and next(steps) >= stop_at))


def evaluated(model: Path, store: Path, output: Path, *overrides: str) -> dict[str, Any]:
    """The metrics that `qd-evaluate` finds; `output` has its files."""
    from qdml.config import EvaluateConfig, read_config
    from qdml.evaluate import evaluate

    words = (f"model={model}", f"data.store={store}", f"output={output}", "device=cpu", *overrides)
    return evaluate(read_config(EvaluateConfig, composed("evaluate", *words)))


def _compose(command: str, *overrides: str) -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return compose(command, list(overrides))
