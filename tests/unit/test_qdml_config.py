"""What `qd-train` and `qd-evaluate` accept, and what they say of what they refuse."""

from copy import deepcopy
from pathlib import Path

import pytest
from runs import composed as composed_for

from qdml.config import EvaluateConfig, TrainConfig, as_mapping, read_config

ROOT = Path(__file__).resolve().parents[2]
NAMED_RUNS = sorted(path.stem for path in (ROOT / "conf" / "training").glob("*.yaml"))


def composed(*overrides: str) -> dict:
    return composed_for("train", "data.store=x", *overrides)


@pytest.fixture(scope="module")
def mapping() -> dict:
    return composed()


def changed(mapping: dict, key: str, value: object) -> dict:
    mapping = deepcopy(mapping)
    *groups, last = key.split(".")
    here = mapping
    for group in groups:
        here = here[int(group)] if group.isdigit() else here[group]
    here[last] = value
    return mapping


@pytest.mark.parametrize("name", NAMED_RUNS)
def test_every_named_run_is_valid(name: str) -> None:
    config = read_config(TrainConfig, composed(f"training={name}"))
    assert read_config(TrainConfig, as_mapping(config)) == config


def test_the_benchmark_is_the_published_one() -> None:
    config = read_config(TrainConfig, composed("training=allara2024"))
    assert config.classes.diameter_nm == tuple(2 + 0.5 * i for i in range(17))
    assert config.classes.sigma == (0.05, 0.1, 0.15, 0.2)
    assert config.augment.fractions == (1, 0.65, 0.37, 0.15)
    assert config.augment.scales == (200, 30, 8, 3)
    assert [solvent.name for solvent in config.augment.solvents] == ["hexane", "toluene"]
    assert (config.network.filters, config.network.kernels) == (32, (10, 5, 4, 3, 2))
    assert (config.optim.name, config.optim.learning_rate, config.optim.schedule) == (
        "adam",
        1e-3,
        "constant",
    )
    assert config.trainer.batch == 256


def test_ranges_include_their_end(mapping: dict) -> None:
    config = read_config(TrainConfig, changed(mapping, "classes.sigma", "0.05 to 0.2 step 0.05"))
    assert config.classes.sigma == (0.05, 0.1, 0.15, 0.2)


REFUSED = {
    "data.lanes": (0, "data.lanes must be >= 1, got 0"),
    "data.train": (0.95, "leave a rest for the test split"),
    "data.typo": (1, "unknown key data.typo"),
    "classes.diameter_nm": ([3.0, 2.0], "classes.diameter_nm must be at least two increasing numbers"),
    "classes.sigma": ("0.1 till 0.2", "classes.sigma must be a list or 'START to STOP step STEP'"),
    "augment.name": ("noisy", r"augment.name must be one of \['allara2024', 'instrument'\], got 'noisy'"),
    "augment.fractions": ([1.2], "0 < fraction <= 1"),
    "augment.scales": ([], "augment.scales must be > 0"),
    "augment.solvents": ([], "at least one solvent"),
    "augment.solvents.0.name": ("ether", "'ether' is not one of the liquids"),
    "network.name": ("resnet", "network.name must be one of"),
    "network.input": ("raw", "network.input must be one of"),
    "network.heads": ("three", "network.heads must be one of"),
    "network.kernels": ([], "network.kernels must be at least one number"),
    "network.filters": (0, "network.filters must be >= 1"),
    "optim.name": ("sgd", r"optim.name must be one of \['adam', 'adamw', 'muon'\], got 'sgd'"),
    "optim.learning_rate": (0, "optim.learning_rate must be > 0"),
    "optim.clip": (0, "optim.clip must be > 0 or null"),
    "trainer.stop_after_minutes": (0, "trainer.stop_after_minutes must be > 0 or null"),
    "trainer.steps": (0, "trainer.steps must be >= 1"),
    "trainer.batch": (255, "trainer.batch must be a multiple of data.lanes=2, got 255"),
    "trainer.precision": ("half", "trainer.precision must be one of"),
    "trainer.threads": (1.5, "trainer.threads must be of type int, got 1.5"),
    "device.name": ("tpu", "device.name must be one of"),
    "seed": (-1, "seed must be >= 0"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_refused(mapping: dict, key: str) -> None:
    value, message = REFUSED[key]
    with pytest.raises(ValueError, match=message):
        read_config(TrainConfig, changed(mapping, key, value))


REFUSED_BY_INSTRUMENT = {
    "augment.instruments": ([], "at least one instrument"),
    "augment.instruments.0.name": ("telescope", "'telescope' is not one of .*lab_cu"),
    "augment.instruments.0.energy_kev": ([30, 16], "energy_kev must be"),
    "augment.instruments.2.energy_kev": ([8, 9], "cu_kalpha has its own energy"),
    "augment.instruments.2.fraction": ([0, 0.5], "fraction must be"),
    "augment.instruments.1.weight": (0, r"instruments\[synchrotron_area\].weight must be > 0"),
    "augment.dots.correlation": ([0, 1.1], "correlation must be"),
    "augment.dots.b_ratio": ([2.5, 0.9], "b_ratio must be"),
    "augment.dots.texture_blend": (0, "texture_blend must be > 0"),
    "augment.dots.texture_to": (0, "texture_to must be > 0"),
    "augment.dots.model_error": ([0, 0.01], "model_error must be"),
    "augment.instruments.0.ranges": ({"zero": [0, 1]}, "ranges may hold .*'zero_deg'.* got 'zero'"),
    "augment.basis_tolerance": (0, "basis_tolerance must lie in 0 to 0.1"),
    "augment.resolution_error": (-0.1, "resolution_error must be >= 0"),
    "augment.surroundings.background_share": ([0.0, 2.0], "background_share must be"),
    "augment.surroundings.solvents": ([], "at least one solvent"),
    "augment.surroundings.solvents.0.name": ("ether", "'ether' is not one of the liquids .*hexane"),
    "augment.surroundings.containers": (["paper"], "'paper' is not one of .*kapton"),
    "augment.surroundings.mixing": (-1, "mixing must be >= 0"),
}


@pytest.mark.parametrize("key", REFUSED_BY_INSTRUMENT)
def test_refused_by_the_instrument_recipe(key: str) -> None:
    value, message = REFUSED_BY_INSTRUMENT[key]
    with pytest.raises(ValueError, match=message):
        read_config(TrainConfig, changed(composed("augment=instrument"), key, value))


REFUSED_BY_ENSEMBLE = {
    "data.validation": (1.0, "leave a rest for the test split"),
    "data.diameter_nm": ([3.0, 2.0], "data.diameter_nm must be \\[low, high\\]"),
    "data.sigma": ([0.0, 0.2], "data.sigma must be .* with 0.001 <= low"),
    "data.tail": (0, "data.tail must lie in 0 to 0.1"),
    "data.variants": ([{"title": "sphere", "weight": -1}], "the weight must be >= 0"),
    "data.mean": ("median", "data.mean must be one of"),
    "optim.matrix_learning_rate": (0, "optim.matrix_learning_rate must be > 0"),
    "optim.momentum": (1, "optim.momentum must lie in 0 to 1"),
    "optim.iterations": (0, "optim.iterations must be >= 1"),
}


@pytest.mark.parametrize("key", REFUSED_BY_ENSEMBLE)
def test_refused_by_endless_data_and_muon(key: str) -> None:
    value, message = REFUSED_BY_ENSEMBLE[key]
    with pytest.raises(ValueError, match=message):
        read_config(TrainConfig, changed(composed("data=ensemble", "optim=muon"), key, value))


def test_a_missing_key_is_named(mapping: dict) -> None:
    mapping = deepcopy(mapping)
    del mapping["optim"]["warmup"]
    with pytest.raises(ValueError, match="the key optim.warmup is missing"):
        read_config(TrainConfig, mapping)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.split=holdout", "data.split must be one of"),
        ("patterns=0", "patterns must be >= 1, got 0"),
        ("patterns=4", "refine_patterns must be at most patterns=4, got 32"),
        ("stress.refine_patterns=-1", "stress.refine_patterns must be >= 0, got -1"),
    ],
)
def test_refused_by_evaluation(override: str, message: str) -> None:
    mapping = composed_for("evaluate", "model=m", "data.store=s", "output=o", override)
    with pytest.raises(ValueError, match=message):
        read_config(EvaluateConfig, mapping)
