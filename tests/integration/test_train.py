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
from runs import ENSEMBLE, POSTERIOR, train_config, train_in_processes
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hpc.store import open_store
from qdml.checkpoint import CARD_VERSION, load_model, read_card
from qdml.config import TrainConfig
from qdml.dataset import read_lanes
from qdml.densities import TARGETS
from qdml.distributed import join_processes
from qdml.ensemble import EnsembleLane
from qdml.observation import CONDITIONS
from qdml.train import EXIT_REQUEUE, train
from qdml.trainer import Trainer

SHORT = ("trainer.steps=12", "trainer.evaluate_every=4", "trainer.checkpoint_every=4")


@pytest.fixture
def store(smoke_store: Path) -> Path:
    return smoke_store


def config_of(store: Path, output: Path, *overrides: str) -> TrainConfig:
    fixed = ("training=smoke", f"data.store={store}", f"output={output}", "device=cpu", "trainer.threads=1")
    return train_config(*fixed, *SHORT, *overrides)


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
def undisturbed(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "model"
    assert run_here(config_of(smoke_store, folder)) == 0
    return folder


def test_a_model_folder_is_complete(undisturbed: Path, store: Path) -> None:
    module, card = load_model(undisturbed)
    assert not module.training
    assert card["finished"]
    assert card["classes"] == {"diameter_nm": [2.0, 2.5, 3.0], "sigma": [0.05, 0.1]}
    assert card["q"] == {"min": 1.0, "max": pytest.approx(12.0), "step": pytest.approx(0.02), "size": 551}
    assert (card["card_version"], card["task"], card["targets"]) == (CARD_VERSION, "classes", None)
    assert (card["input"], card["store"]["material"], card["store"]["energy_kev"]) == ("area", "PbS", 22.0)
    assert (card["materials"], card["variants"], card["recipe"]) == (["PbS"], ["sphere"], "allara2024")
    assert card["prior"] == {
        "source": "store",
        "mean": "number",
        "diameter_nm": [2.0, 3.0],
        "sigma": [0.05, 0.1],
        "strain": [-0.002, 0.004],
        "b_scale": [1.0, 1.0],
    }
    assert card["conditions"] == list(CONDITIONS)
    trained = card["trained"]
    assert (trained["processes"], trained["steps"], trained["patterns"]) == (1, 12, 12 * 32)
    assert trained["seconds"] > 0
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


def test_two_processes_equal_one_and_resume_exactly(store: Path, tmp_path: Path) -> None:
    exact, log = "trainer.precision=float64", tmp_path / "log"
    assert train_in_processes(config_of(store, tmp_path / "two", exact), 2, log) == {0}
    assert run_here(config_of(store, tmp_path / "one", exact)) == 0
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    # float64: what is left is the order of the sum over the batch, 1e-16 relative, through 12 steps of Adam.
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-9, atol=1e-13), name

    # The same two processes, one of them told to stop during step 6, and started again.
    halves = tmp_path / "halves"
    config = config_of(store, halves, exact)
    assert train_in_processes(config, 2, log, stop_at=6) == {EXIT_REQUEUE}
    assert not read_card(halves)["finished"]
    alone = Path(shutil.copytree(halves, tmp_path / "alone"))
    assert "resuming at step" not in log.read_text()
    assert train_in_processes(config, 2, log) == {0}
    assert "resuming at step 6" in log.read_text()
    assert_same(halves, tmp_path / "two")

    # A checkpoint of two processes is continued by one: the result does not depend on their number.
    assert run_here(config_of(store, alone, exact)) == 0
    for name, value in state(alone).items():
        assert torch.allclose(two[name], value, rtol=1e-9, atol=1e-13), name
    assert read_card(alone)["trained"]["processes"] == 1


def test_endless_data_and_two_optimisers_are_the_same_for_two_processes_and_resumed_ones(
    store: Path, tmp_path: Path, run_command: Callable
) -> None:
    options = (*ENSEMBLE, *POSTERIOR)
    config = config_of(store, tmp_path / "one", *options)
    assert run_here(config) == 0
    _, card = load_model(tmp_path / "one")
    assert (card["task"], card["targets"]) == ("posterior", list(TARGETS))
    assert card["prior"]["source"] == "ensemble"
    assert card["instruments"] is None

    # Resumed by the bit, with the state of Muon and of AdamW.
    halves = config_of(store, tmp_path / "halves", *options)
    assert run_here(halves, after(5)) == EXIT_REQUEUE
    assert any(".momentum_buffer" in name for name in state(tmp_path / "halves"))
    assert any(".exp_avg_sq" in name for name in state(tmp_path / "halves"))
    assert run_here(halves) == 0
    assert_same(tmp_path / "halves", tmp_path / "one")
    assert metrics_of(tmp_path / "halves") == metrics_of(tmp_path / "one")

    run_command(launch(store, tmp_path / "two", *options, processes=2))
    # The same dots and noise; float32 sums in another order, and Newton-Schulz steps in bfloat16, through 12 steps.
    first, second = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    for a, b in zip(first, second, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=2e-3)
        assert b["validation_loss"] == pytest.approx(a["validation_loss"], rel=2e-3)


def test_patterns_are_observed_again_and_a_resumed_run_draws_them_again(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdml.trainer._APART", 1)
    drawn, batch = [], EnsembleLane.batch
    monkeypatch.setattr(
        EnsembleLane, "batch", lambda lane, step, n: drawn.append(step) or batch(lane, step, n)
    )
    kept, train_step = [], Trainer.train_step
    monkeypatch.setattr(
        Trainer, "train_step", lambda trainer: (train_step(trainer), kept.append(sorted(trainer._kept)))[0]
    )
    options = (*ENSEMBLE, *POSTERIOR, "data.lanes=1", "trainer.observations=2")
    assert run_here(config_of(store, tmp_path / "one", *options)) == 0
    # Batches are large: none is kept that no later step observes.
    assert kept[:6] == [[0], [0], [0, 2], [0, 2], [2, 4], [2, 4]]
    # Odd steps observe what was drawn three steps before; the first of them has nothing to observe.
    assert drawn[-7:] == [0, 1, 2, 4, 6, 8, 10]
    halves = config_of(store, tmp_path / "halves", *options)
    assert run_here(halves, after(5)) == EXIT_REQUEUE
    assert run_here(halves) == 0
    assert drawn[-5:] == [2, 6, 4, 8, 10]
    assert_same(tmp_path / "halves", tmp_path / "one")


def test_samples_of_the_store_and_endless_data_held_to_the_same_rows_give_one_model(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patterns from the shards against patterns from the compressed basis: one network to rounding of the basis.

    With 10⁹ counts: a draw of few counts takes another number of random bits for another mean, and all draws after it
    are then others.
    """
    exact = ("trainer.precision=float64", "augment.scales=[1e7]")
    config = config_of(store, tmp_path / "store", *exact)
    assert run_here(config) == 0
    with join_processes("cpu") as processes:
        lanes = read_lanes(
            open_store(store), config.data, seed=0, rank=0, world=1, device=processes.device, intensity=False
        )
    assert all(lane.train.intensity is None for lane in lanes)
    monkeypatch.setattr(EnsembleLane, "batch", lambda self, step, size: lanes[self.number].batch(step, size))
    assert run_here(config_of(store, tmp_path / "ensemble", *exact, *ENSEMBLE)) == 0

    a, b = state(tmp_path / "store"), state(tmp_path / "ensemble")
    lines = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("store", "ensemble")
    ]
    for one, other in zip(*lines, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    # Adam moves a weight by up to 1e-3 in each of 12 steps, and by little where its gradient is small: 1 % of that.
    for name in a:
        if name.startswith("model."):
            assert torch.allclose(a[name], b[name], rtol=0, atol=1e-4), name


def test_a_part_of_minutes_saves_and_asks_to_be_run_again(
    store: Path, tmp_path: Path, run_command: Callable
) -> None:
    """How long a part is may change from part to part."""
    steps = ("trainer.steps=100000", "trainer.evaluate_every=100000", "trainer.checkpoint_every=100000")
    command = launch(store, tmp_path / "model", *steps, processes=1)
    output = run_command([*command, "trainer.stop_after_minutes=0.03"], returncode=EXIT_REQUEUE).stdout
    assert "state saved; run the same command again to go on" in output
    output = run_command([*command, "trainer.stop_after_minutes=0.02"], returncode=EXIT_REQUEUE).stdout
    assert "resuming at step" in output and "state saved; run the same command again to go on" in output


def test_a_run_cannot_be_made_longer_afterwards(undisturbed: Path, store: Path) -> None:
    """Its learning rates were those of a run of 12 steps."""
    with pytest.raises(ValueError, match="trainer.steps: the model has 12, this run asks for 24"):
        run_here(config_of(store, undisturbed, "trainer.steps=24"))


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
    """On endless dots; a later part takes the basis from the model's folder."""
    config = config_of(store, tmp_path / "model", "augment=instrument", *ENSEMBLE, *POSTERIOR)
    assert run_here(config, after(2)) == EXIT_REQUEUE
    basis = tmp_path / "model" / "basis.safetensors"
    written = basis.stat().st_mtime_ns
    assert run_here(config) == 0
    assert basis.stat().st_mtime_ns == written
    card = read_card(tmp_path / "model")
    assert np.isfinite(card["metrics"]["validation_loss"])
    assert card["instruments"] == [cell["cell"] for cell in card["windows"]]
    assert "lab_cu" in card["instruments"]


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
        (("optim=muon",), "optim=muon is for networks with matrices between hidden layers"),
        ((*ENSEMBLE, "data.diameter_nm=[2,4]"), r"data.diameter_nm is \[2.0, 4.0\], but .* was simulated for 2 to 3"),
        ((*ENSEMBLE, "data.sigma=[0.1,0.1]", "data.tail=1e-9"), "reaches 3 nm with σ = 0.1, but the largest particle"),
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


def test_a_folder_that_cannot_be_made(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write .*model: Not a directory; choose another output"):
        run_here(config_of(store, tmp_path / "file" / "model"))


def test_an_incomplete_store(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not complete"):
        run_here(config_of(damaged(store, tmp_path), tmp_path / "model"))


def test_another_configuration_in_the_same_folder(undisturbed: Path, store: Path) -> None:
    with pytest.raises(ValueError, match="optim.learning_rate: the model has 0.001, this run asks for 0.01"):
        run_here(config_of(store, undisturbed, "optim.learning_rate=0.01"))


def test_a_loss_that_is_not_finite(store: Path, tmp_path: Path) -> None:
    """Two good steps, then weights of 1e30: the best weights and the state of before stay."""
    config = config_of(store, tmp_path / "model", "trainer.evaluate_every=2", "trainer.checkpoint_every=2")
    assert run_here(config, after(2)) == EXIT_REQUEUE
    files = [tmp_path / "model" / name for name in ("model.safetensors", "last/state.safetensors")]
    before = [file.read_bytes() for file in files]
    broken = load_file(files[1])
    broken["model.heads.sigma.weight"] = broken["model.heads.sigma.weight"] + torch.inf
    with safe_open(files[1], framework="pt") as file:
        save_file(broken, files[1], metadata=file.metadata())
    spoiled = files[1].read_bytes()
    with pytest.raises(
        ValueError,
        match="the loss of step 2 is not finite, first in lane 0 for the dot of variant 0, D = .* nm, σ = .*Nothing "
        "was saved after it",
    ):
        run_here(config)
    assert files[0].read_bytes() == before[0]
    assert files[1].read_bytes() == spoiled


def test_a_learning_rate_that_is_too_large(store: Path, tmp_path: Path) -> None:
    """Found at the next look, several steps after the first bad one, which is named."""
    config = config_of(
        store, tmp_path / "model", "optim.learning_rate=1e30", "trainer.evaluate_every=1000",
        "trainer.checkpoint_every=1000", "trainer.check_every=8", "trainer.steps=1000",
    )  # fmt: skip
    with pytest.raises(ValueError, match="the (loss|gradient) of step [1-7] is not finite"):
        run_here(config)
    assert not (tmp_path / "model" / "last").exists()
    assert not (tmp_path / "model" / "model.safetensors").exists()


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
