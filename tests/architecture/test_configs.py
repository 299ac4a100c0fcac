"""Every named run composes and passes the checks of its command."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.config import SimulateConfig
from hpc.crystal import load_material
from qdml.config import TrainConfig, read_config

ROOT = Path(__file__).resolve().parents[2]


def named(group: str) -> list[str]:
    """The choices of a group of `conf/`."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def composed(command: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_container(compose(command, [*overrides]), resolve=True)  # type: ignore[return-value]


@pytest.mark.parametrize("experiment", named("experiment"))
def test_experiment_can_be_simulated(experiment: str) -> None:
    config = SimulateConfig.from_mapping(composed("simulate", f"experiment={experiment}"))
    assert experiment in config.store.path, "two experiments must not share a store"


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in ("grid", "shape", "device", "store") for name in named(group)]
)
def test_every_choice_composes(choice: str) -> None:
    SimulateConfig.from_mapping(composed("simulate", "energy_kev=22", choice))


@pytest.mark.parametrize("material", named("material"))
def test_every_material_loads(material: str) -> None:
    assert load_material(material).name.lower() == material


@pytest.mark.parametrize("experiment", named("training"))
def test_experiment_can_be_trained_on(experiment: str) -> None:
    config = read_config(TrainConfig, composed("train", f"training={experiment}"))
    simulated = SimulateConfig.from_mapping(composed("simulate", f"experiment={experiment}"))
    assert config.data.store == simulated.store.path, (
        "qd-train reads what qd-simulate of the same name writes"
    )


@pytest.mark.parametrize(
    "choice",
    [f"{group}={name}" for group in ("augment", "model", "optim", "trainer") for name in named(group)],
)
def test_every_choice_of_training_composes(choice: str) -> None:
    read_config(TrainConfig, composed("train", choice))
