"""The commands of the project in this process, where their start from the shell is not what a test asks for.

A start of Python costs 2 s, with torch 4 s.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hpc.config import SimulateConfig
    from qdml.config import TrainConfig


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


def _compose(command: str, *overrides: str) -> DictConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return compose(command, list(overrides))
