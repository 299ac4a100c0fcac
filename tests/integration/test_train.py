"""`qd-train`: learns, resumes exactly, gives one model for any number of processes, refuses bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file

from qdml.checkpoint import load_model, read_card
from qdml.config import TrainConfig, read_config
from qdml.distributed import join_processes
from qdml.train import EXIT_REQUEUE, train

SHORT = ("trainer.steps=12", "trainer.evaluate_every=4", "trainer.checkpoint_every=4")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.zarr"
    command = [sys.executable, "-m", "hpc.simulate", "experiment=smoke", f"store.path={path}", "device=cpu"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    return path


def config_of(store: Path, output: Path, *overrides: str) -> TrainConfig:
    fixed = ("training=smoke", f"data.store={store}", f"output={output}", "device=cpu", "trainer.threads=1")
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=[*fixed, *SHORT, *overrides])
    return read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))


def run_here(config: TrainConfig, stop_requested: Callable[[], bool] = lambda: False) -> int:
    with join_processes("cpu") as processes:
        return train(config, processes, stop_requested)


def after(n: int) -> Callable[[], bool]:
    """A stop request that comes during step n."""
    count = iter(range(1, 1_000_000))
    return lambda: next(count) >= n


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "state.safetensors")


def metrics_of(folder: Path) -> list[dict]:
    """Every line of metrics.jsonl without what depends on where a run was interrupted."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if name not in ("seconds", "train_loss")} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    best, other_best = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(best[name], other_best[name]) for name in best)


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    assert run_here(config_of(store, folder)) == 0
    return folder


def test_a_model_folder_is_complete(undisturbed: Path, store: Path) -> None:
    module, card = load_model(undisturbed)
    assert not module.training
    assert card["finished"]
    assert card["classes"] == {"diameter_nm": [2.0, 2.5, 3.0], "sigma": [0.05, 0.1]}
    assert card["q"] == {"min": 1.0, "max": pytest.approx(12.0), "step": pytest.approx(0.02), "size": 551}
    assert (card["input"], card["store"]["material"], card["store"]["energy_kev"]) == ("area", "PbS", 22.0)
    assert card["store"]["ranges"]["diameter"] == [2.0, 3.0]
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert card["metrics"] == min(lines, key=lambda line: line["validation_loss"])
    assert (undisturbed / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((undisturbed / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(undisturbed.rglob("*.part")) + list(undisturbed.rglob("*.pt"))


def test_a_finished_run_is_left_alone(
    undisturbed: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert run_here(config_of(store, undisturbed)) == 0
    assert "is finished already; nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("stops", [(1,), (6,), (3, 2, 4)], ids=str)
def test_resuming_equals_no_interruption(
    undisturbed: Path, store: Path, tmp_path: Path, stops: tuple
) -> None:
    config = config_of(store, tmp_path / "model")
    for stop in stops:
        assert run_here(config, after(stop)) == EXIT_REQUEUE
        assert not read_card(tmp_path / "model")["finished"]
    assert run_here(config) == 0
    assert_same(tmp_path / "model", undisturbed)
    assert metrics_of(tmp_path / "model") == metrics_of(undisturbed)


def test_work_after_the_last_checkpoint_is_done_again(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    """A run that dies without warning: its folder is as it was between two checkpoints."""
    config = config_of(store, tmp_path / "model")
    run_here(config, after(5))
    checkpoint = (tmp_path / "model" / "last" / "state.safetensors").read_bytes()
    run_here(config, after(4))
    (tmp_path / "model" / "last" / "state.safetensors").write_bytes(checkpoint)
    assert run_here(config) == 0
    assert_same(tmp_path / "model", undisturbed)


def test_a_run_that_died_before_its_first_checkpoint_starts_again(
    undisturbed: Path, store: Path, tmp_path: Path
) -> None:
    def die() -> bool:
        raise RuntimeError("killed")

    config = config_of(store, tmp_path / "model", "trainer.evaluate_every=1")
    with pytest.raises(RuntimeError, match="killed"):
        run_here(config, die)
    assert len(metrics_of(tmp_path / "model")) == 1
    assert run_here(config) == 0
    assert [line["step"] for line in metrics_of(tmp_path / "model")] == list(range(1, 13))
    bias = "model.heads.sigma.bias"
    assert torch.equal(state(tmp_path / "model")[bias], state(undisturbed)[bias])


def test_the_seed_and_nothing_else_decides(undisturbed: Path, store: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        assert run_here(config_of(store, tmp_path / name, f"seed={seed}")) == 0
    assert_same(tmp_path / "same", undisturbed)
    a, b = state(tmp_path / "other"), state(undisturbed)
    assert not torch.equal(a["model.heads.sigma.weight"], b["model.heads.sigma.weight"])


def launch(store: Path, output: Path, *overrides: str, processes: int) -> list[str]:
    options = [
        "experiment=smoke",
        f"data.store={store}",
        f"output={output}",
        "device=cpu",
        "trainer.threads=1",
        *SHORT,
    ]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return ["python", *(torchrun if processes > 1 else []), "-m", "qdml.train", *options, *overrides]


def test_two_processes_equal_one_and_resume_exactly(
    store: Path, tmp_path: Path, run_command: Callable
) -> None:
    exact = "trainer.precision=float64"
    run_command(launch(store, tmp_path / "two", exact, processes=2))
    assert run_here(config_of(store, tmp_path / "one", exact)) == 0
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    # float64: what is left is the order of the sum over the batch, 1e-16 relative, through 12 steps of Adam.
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-9, atol=1e-13), name

    # The same two processes, stopped by a signal to one of them during step 6 and started again.
    halves = tmp_path / "halves"
    command = launch(store, halves, exact, processes=2)
    at = command.index("qdml.train")
    stopped = [*command[: at - 1], str(Path(__file__).with_name("stop_after.py")), "6", *command[at + 1 :]]
    run_command(stopped, returncode=None)
    assert not read_card(halves)["finished"]
    assert "resuming at step 6" in run_command(command).stdout
    assert_same(halves, tmp_path / "two")


def test_usr1_saves_the_state_and_asks_to_be_run_again(store: Path, tmp_path: Path) -> None:
    steps = ("trainer.steps=100000", "trainer.evaluate_every=5", "trainer.checkpoint_every=100000")
    command = [sys.executable, *launch(store, tmp_path / "model", *steps, processes=1)[1:]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "model" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_REQUEUE, output
    assert "state saved; run the same command again to go on" in output
    assert (tmp_path / "model" / "last" / "state.safetensors").is_file()


def test_a_small_network_learns_the_classes(store: Path, tmp_path: Path) -> None:
    """Half a minute of learning on 3 x 2 classes: well above chance in validation, and better with time."""
    config = config_of(
        store, tmp_path / "model", "network=residual_mlp", "trainer.steps=150", "trainer.evaluate_every=50",
        "network.width=64", "network.blocks=1", "trainer.batch=64",
    )  # fmt: skip
    assert run_here(config) == 0
    lines = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < 0.7 * lines[0]["train_loss"]
    assert read_card(tmp_path / "model")["metrics"]["validation_diameter_accuracy"] >= 0.9


def test_the_instrument_recipe_trains(store: Path, tmp_path: Path) -> None:
    config = config_of(
        store, tmp_path / "model", "augment=instrument", "network=residual_mlp", "trainer.steps=4"
    )
    assert run_here(config) == 0
    assert np.isfinite(read_card(tmp_path / "model")["metrics"]["validation_loss"])


def damaged(store: Path, folder: Path) -> Path:
    """A copy of the store that says it is not complete."""
    copy = Path(shutil.copytree(store, folder / "incomplete.zarr"))
    metadata = json.loads((copy / "zarr.json").read_text())
    metadata["attributes"]["complete"] = False
    (copy / "zarr.json").write_text(json.dumps(metadata))
    return copy


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.store=nowhere.zarr",), "nowhere.zarr does not exist; give the folder that qd-simulate wrote"),
        (("classes=quick",), r"classes.diameter_nm has centres without any pattern"),
        (("data.lanes=16", "trainer.batch=32"), "got 16 lanes, .* has 6 shards"),
        (("network.kernels=[10,10,10]",), "need at least 1000 points, the patterns have 551"),
        (("trainer.precision=bfloat16",), "trainer.precision=bfloat16 needs CUDA"),
        (
            ("augment.solvents=[{name: dmf, file: nowhere.xy, wavelength: null}]",),
            "nowhere.xy",
        ),
    ],
)  # fmt: skip
def test_refused_before_training(
    store: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_here(config_of(store, tmp_path / "model", *overrides))
    assert not (tmp_path / "model" / "last").exists()


def test_an_incomplete_store(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not complete"):
        run_here(config_of(damaged(store, tmp_path), tmp_path / "model"))


def test_another_configuration_in_the_same_folder(undisturbed: Path, store: Path) -> None:
    with pytest.raises(ValueError, match="optim.learning_rate: the model has 0.001, this run asks for 0.01"):
        run_here(config_of(store, undisturbed, "optim.learning_rate=0.01"))


def test_a_loss_that_is_not_finite(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="loss is not finite at step 4; lower optim.learning_rate"):
        run_here(config_of(store, tmp_path / "model", "optim.learning_rate=1e30"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=smoke", "data.store=nowhere.zarr"], "qd-train: error: nowhere.zarr does not exist"),
        (["output=x"], "qd-train: error: data.store is missing; add data.store=FOLDER"),
        (
            ["data.store=x", "trainer.batch=3"],
            "qd-train: error: trainer.batch must be a multiple of data.lanes=2",
        ),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    arguments: list[str], message: str, run_command: Callable
) -> None:
    done = run_command(["python", "-m", "qdml.train", *arguments], returncode=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_one_process_with_a_problem_stops_all(store: Path, tmp_path: Path, run_command: Callable) -> None:
    """Three processes cannot share two lanes: each of them has to end, and one says why."""
    done = run_command(launch(store, tmp_path / "model", processes=3), returncode=None, timeout=60)
    assert done.stderr.count("data.lanes must be a multiple of the number of processes") == 1
