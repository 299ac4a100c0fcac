"""What a training step costs, by precision, with and without torch.compile, for several batches.

    python benchmarks/bench_training.py --store runs/production/store.zarr --device cuda --output results.jsonl

The run `experiment=production` in one process: posterior network, endless dots, all instruments, Muon. One record for
each batch, precision and compilation: patterns per second, the parts of a step (draw, world, network, optimiser), the
loss after the same steps from the same start, and what data cost. Without --store, a small one is simulated first.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_augmentation import small_store
from common import emit, measure, read_arguments
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from qdml.config import TrainConfig, read_config
from qdml.distributed import join_processes
from qdml.train import new_trainer, read_inputs

BATCHES = {"cpu": (256, 1024), "cuda": (1024, 4096, 16384)}
#: Precision, compiled.
CHOICES = {
    "cpu": (("float32", False), ("bfloat16", False)),
    "cuda": (("float32", False), ("bfloat16", False), ("float32", True), ("bfloat16", True)),
}
# Before the clock starts: allocation, tables, compilation; and enough to see whether a precision learns as well.
WARM_UP = 200
# Of the store that is simulated where none is given (conf/experiment/quick.yaml).
SMALL = (
    "data.diameter_nm=[2.5,5]",
    "data.sigma=[0.05,0.1]",
    "data.strain=[-0.001,0.004]",
    "data.b_scale=[1,2]",
)


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--store": {
                "type": Path,
                "help": "of qd-simulate experiment=production (default: a small one is simulated)",
            }
        },
    )
    kind = arguments.device.kind
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixed = [
            "training=production",
            "data.lanes=1",
            f"device={kind}",
            "trainer.threads=1",
            f"output={folder / 'model'}",
        ]
        if arguments.store is None:
            small_store(folder / "store.zarr")
            fixed += [*SMALL, "data.variants=null", "network.components=50", "network.width=64"]
        fixed += [f"data.store={arguments.store or folder / 'store.zarr'}"]
        for batch in (64,) if arguments.quick else BATCHES[kind]:
            for precision, compiled in CHOICES[kind]:
                change = [
                    f"trainer.batch={batch}",
                    f"trainer.precision={precision}",
                    f"trainer.compile={compiled}",
                ]
                record(arguments, fixed + change, batch=batch, precision=precision, compiled=compiled)


def record(arguments: Any, overrides: list[str], **config: Any) -> None:
    """Time the steps of one run and print its record."""
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=overrides)
    run = read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    torch.set_num_threads(1)
    with join_processes(run.device.name) as processes:
        torch.manual_seed(run.seed)
        inputs = read_inputs(run, processes)
        trainer = new_trainer(run, processes, inputs, card={})
        trainer.fit_whitening()
        trainer.prepare()

        def step() -> None:
            step.loss = trainer.train_step()  # type: ignore[attr-defined]
            trainer.step += 1
            if trainer.step % run.trainer.check_every == 0:
                trainer.check()

        warm_up = 16 if arguments.quick else WARM_UP
        losses = []
        for _ in range(warm_up):
            step()
            losses.append(step.loss)  # type: ignore[attr-defined]
        timing = measure(step, arguments)
        while trainer.watch.summary() is None or trainer.step % 16:
            step()
        parts = trainer.watch.summary() or {}
        emit(
            "training step",
            arguments,
            config={**config, "network": run.network.name, "q": inputs[0].q.size, "threads": 1},
            result={
                "patterns_per_s": config["batch"] / timing["median_s"],
                # Mean of the last ones, all of the same patterns for every choice of a batch.
                f"loss_after_{warm_up}": float(torch.stack(losses[-16:]).mean()),
                **parts,
            },
            timing=timing,
        )


if __name__ == "__main__":
    main()
