"""Every choice of `conf/` composes and passes the checks of its command."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.config import SimulateConfig
from hpc.structure.material import load_material
from qdml.config import EvaluateConfig, TrainConfig, read_config

CONF = Path(__file__).resolve().parents[2] / "conf"
# Folders of files that no command composes.
READ_BY_NAME = {"container", "fit", "instrument", "liquid", "stress"}
NAMED_RUNS = {"simulate": "experiment", "train": "training"}


def named(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups(command: str) -> list[str]:
    """The groups that a command composes."""
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / f"{command}.yaml"))["defaults"]  # type: ignore
    names = [next(iter(entry)) for entry in defaults if isinstance(entry, dict)]
    return [name for name in names if not name.startswith("override ")]


def choices(command: str) -> list[str]:
    others = [group for group in groups(command) if group != NAMED_RUNS.get(command)]
    return [f"{group}={name}" for group in others for name in named(group)]


def composed(command: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_container(compose(command, [*overrides]), resolve=True)  # type: ignore[return-value]


def test_every_folder_is_a_group_of_some_command_or_read_by_name() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and not path.name.startswith("_")}
    composed_groups = {group for command in ("simulate", "train", "evaluate") for group in groups(command)}
    assert folders == composed_groups | READ_BY_NAME
    assert all(named(folder) for folder in folders)


@pytest.mark.parametrize("experiment", named("experiment"))
def test_experiment_can_be_simulated(experiment: str) -> None:
    config = SimulateConfig.from_mapping(composed("simulate", f"experiment={experiment}"))
    assert experiment in config.store.path, "two experiments must not share a store"


@pytest.mark.parametrize("training", named("training"))
def test_experiment_can_be_trained_on(training: str) -> None:
    """A training reads what the simulation of the same name writes, or of the first part of its name."""
    config = read_config(TrainConfig, composed("train", f"training={training}"))
    simulated = SimulateConfig.from_mapping(composed("simulate", f"experiment={training.partition('_')[0]}"))
    assert config.data.store == simulated.store.path


@pytest.mark.parametrize("choice", choices("simulate"))
def test_choice_of_simulate(choice: str) -> None:
    group, _, name = choice.partition("=")
    # Only a synchrotron is told its energy; of the other radiations, lines or scattering lengths are known.
    told = [] if group == "radiation" and name != "synchrotron" else ["energy_kev=22"]
    SimulateConfig.from_mapping(composed("simulate", *told, choice))


@pytest.mark.parametrize("choice", choices("train"))
def test_choice_of_train(choice: str) -> None:
    # Without classes a network has to answer with something else.
    told = ["network=posterior"] if choice == "classes=none" else []
    read_config(TrainConfig, composed("train", *told, choice))


@pytest.mark.parametrize("choice", choices("evaluate"))
def test_choice_of_evaluate(choice: str) -> None:
    required = ("model=runs/model", "data.store=runs/store.zarr", "output=runs/evaluation")
    read_config(EvaluateConfig, composed("evaluate", *required, choice))


@pytest.mark.parametrize("material", named("material"))
def test_material_has_the_name_of_its_file(material: str) -> None:
    assert load_material(material).name.lower() == material
