"""Training steps on each device: nothing waits for a GPU, and the same seed gives the same losses.

On the CPU the same code runs without the check of waits.
"""

from pathlib import Path

import pytest
import torch
from runs import train_config

from qdml.distributed import join_processes
from qdml.train import new_trainer, read_inputs

DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu("torch"))]
RANGES = (
    "data.diameter_nm=[2,3]",
    "data.sigma=[0.05,0.1]",
    "data.strain=[-0.002,0.004]",
    "data.b_scale=[1,1]",
)
NETWORK = ("network=posterior", "optim=muon", "network.components=60", "network.width=64", "network.blocks=1")


def losses(store: Path, folder: Path, device: str, *overrides: str, steps: int = 4) -> list[float]:
    """Of some steps; on a GPU those after the first two must not wait for it."""
    fixed = (
        "training=smoke",
        "augment=instrument",
        f"data.store={store}",
        f"output={folder}",
        f"device={device}",
    )
    config = train_config(*fixed, *overrides)
    with join_processes(device) as processes:
        torch.manual_seed(0)
        trainer = new_trainer(config, processes, read_inputs(config, processes), card={})
        trainer.fit_whitening()
        trainer.prepare()
        seen = []
        for step in range(steps):
            if device == "cuda" and step == 2:  # the first ones allocate and tabulate
                torch.cuda.set_sync_debug_mode("error")
            seen.append(trainer.train_step())
            trainer.step += 1
        if device == "cuda":
            torch.cuda.set_sync_debug_mode(0)
        return [float(loss) for loss in seen]


@pytest.mark.usefixtures("few_for_whitening")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("source", ["store", "ensemble"])
def test_a_step_does_not_wait_and_repeats(
    smoke_store: Path, tmp_path: Path, device: str, source: str
) -> None:
    data = (f"data={source}", *(RANGES if source == "ensemble" else ()))
    first, second = (losses(smoke_store, tmp_path / name, device, *data, *NETWORK) for name in ("one", "two"))
    assert first == second
    assert torch.isfinite(torch.tensor(first)).all()


@pytest.mark.gpu("torch")
@pytest.mark.parametrize(
    "change", ["trainer.precision=bfloat16", "trainer.compile=true"], ids=["bfloat16", "compiled"]
)
def test_losses_on_a_gpu_are_those_of_plain_float32(smoke_store: Path, tmp_path: Path, change: str) -> None:
    """To what bfloat16 (8 bits) leaves of a log density of about 6 in the first steps."""
    data = ("data=ensemble", *RANGES, *NETWORK, "trainer.precision=float32")
    plain = losses(smoke_store, tmp_path / "plain", "cuda", *data, steps=2)
    changed = losses(smoke_store, tmp_path / "changed", "cuda", *data, change, steps=2)
    assert changed == pytest.approx(plain, abs=0.1)
