"""qd-train: a store -> a model that tells the size and dispersion of a pattern.

    python -m qdml.train experiment=quick data.store=runs/quick/store.zarr output=runs/quick/model     one process
    torchrun --nproc-per-node 2 -m qdml.train experiment=quick ...                                     two of them
    srun python -m qdml.train ...                                                     one per task (slurm/train_ddp.sh)

The number of processes changes the speed, not the result. Run the same command again after an interruption and it
continues; SIGUSR1 makes it save its state after the current step and end with exit code 75 (run me again).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.augmentation.recipe import Recipe
    from qdml.config import TrainConfig
    from qdml.distributed import Processes

__all__ = ["EXIT_REQUEUE", "main", "train"]

_log = logging.getLogger(__name__)

#: EX_TEMPFAIL of sysexits.h: not finished, state saved, run the same command again.
EXIT_REQUEUE = 75


class _StopSignal:
    """SIGUSR1, seen between steps."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGUSR1, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True


def train(config: TrainConfig, processes: Processes, stop_requested: Callable[[], bool]) -> int:
    """Train, continue or confirm a model (collective over the processes).

    Args:
        config: all of it.
        processes: who takes part.
        stop_requested: asked after every step; once it is true on any process, all save the state and stop.

    Returns:
        Exit code: 0 when the model is finished, `EXIT_REQUEUE` when it was told to stop.

    Raises:
        ValueError: the store, the configuration or the model's folder cannot be used; the message says why.
    """
    import torch

    from qdml.checkpoint import ModelFolder
    from qdml.distributed import cpu_threads
    from qdml.models import build_model
    from qdml.trainer import Trainer

    main_process = processes.rank == 0
    torch.set_num_threads(config.trainer.threads or cpu_threads(processes.launch, os.environ))
    torch.manual_seed(config.seed)

    folder, problem, inputs = ModelFolder(config.output), None, None
    try:
        inputs = _inputs(config, processes)
    except ValueError as error:
        problem = error
    processes.agree(problem)
    assert inputs is not None
    store, lanes, recipe = inputs
    card, state = _card(config, store, recipe), "new"
    if main_process:
        try:
            state = folder.open(card)
        except ValueError as error:
            problem = error
    processes.agree(problem)
    state = processes.broadcast(state)
    if state == "finished":
        if main_process:
            _log.info("%s is finished already; nothing to do", folder.path)
        return 0

    trainer = Trainer(
        config,
        processes=processes,
        lanes=lanes,
        recipe=recipe,
        model=build_model(config.network, config.classes, store.q.size),
        q=torch.as_tensor(store.q),
        folder=folder,
        card=card,
        stop_requested=stop_requested,
    )
    if state == "resumed":
        trainer.resume()
    else:
        if main_process:
            folder.keep_metrics(0)  # of a run that ended before its first checkpoint
        trainer.fit_whitening()
    if main_process:
        _log.info(
            "%s: %s, %d weights, on %d process%s (%s, %d threads each)",
            f"resuming at step {trainer.step}" if state == "resumed" else "training",
            config.network.name,
            sum(weight.numel() for weight in trainer.model.parameters()),
            processes.world,
            "" if processes.world == 1 else "es",
            processes.device,
            torch.get_num_threads(),
        )
    outcome = trainer.run()
    if main_process:
        _finish(trainer, finished=outcome == "finished")
    processes.barrier()
    return 0 if outcome == "finished" else EXIT_REQUEUE


def _inputs(config: TrainConfig, processes: Processes) -> tuple[Store, Any, Any]:
    """The store, this process's lanes of it, and the recipe."""
    from hpc.store import open_store
    from qdml.augmentation.recipes import build_recipe
    from qdml.dataset import check_classes, read_lanes

    store = open_store(config.data.store)
    check_classes(store, config.classes)
    recipe = build_recipe(config.augment, store, processes.device)
    lanes = read_lanes(
        store,
        config.data,
        seed=config.seed,
        rank=processes.rank,
        world=processes.world,
        device=processes.device,
        atoms=recipe.atoms,
    )
    return store, lanes, recipe


def _card(config: TrainConfig, store: Store, recipe: Recipe) -> dict[str, Any]:
    """Everything about a model but its weights."""
    from importlib.metadata import version

    from qdml.checkpoint import CARD_VERSION
    from qdml.config import as_mapping
    from qdml.dataset import fingerprint

    return {
        "card_version": CARD_VERSION,
        "finished": False,
        "architecture": as_mapping(config.network),
        "input": config.network.input,
        "classes": {"diameter_nm": list(config.classes.diameter_nm), "sigma": list(config.classes.sigma)},
        "q": {
            "min": float(store.q[0]),
            "max": float(store.q[-1]),
            "step": float((store.q[-1] - store.q[0]) / (store.q.size - 1)),
            "size": int(store.q.size),
        },
        "store": {
            "fingerprint": fingerprint(store),
            "samples": store.n_samples,
            "material": store.attrs["material"],
            "energy_kev": store.attrs["energy_kev"],
            "ranges": {name: [float(v.min()), float(v.max())] for name, v in store.parameters.items()},
            "config": store.attrs["config"],
        },
        # Ranges of the first and of the last visible Q [Å⁻¹] in each noise cell.
        "windows": [
            {"cell": cell, "first": list(first), "last": list(last)}
            for cell, (first, last) in zip(recipe.cells, recipe.windows, strict=True)
        ],
        "training": as_mapping(config),
        "metrics": None,
        "software": {name: version(name) for name in ("debye-dots", "torch", "numpy", "safetensors")},
    }


def _finish(trainer: Any, *, finished: bool) -> None:
    """Draw the learning curve, complete the card, say how it went (rank 0)."""
    from qdml.charts import draw_learning_curve

    folder, lines = trainer.folder, trainer.folder.read_metrics()
    if lines:
        draw_learning_curve(lines, folder.path / "learning_curve.png")
    best = next((line for line in lines if line["step"] == trainer.best_step), None)
    timing = trainer.watch.summary()
    trainer.card.update(finished=finished, metrics=best, timing=timing)
    folder.write_card(trainer.card)
    if timing:
        _log.info(
            "step time: rows %.1f ms, augmentation %.1f ms, network %.1f ms; with data over fixed batch %.2f, "
            "with rows over fixed rows %.3f",
            *(timing[name] for name in ("rows_ms", "augment_ms", "network_ms")),
            timing["with_data_over_fixed_batch"],
            timing["with_rows_over_fixed_rows"],
        )
    if not finished:
        _log.info("stopped at step %d, state saved; run the same command again to go on", trainer.step)
    elif best:
        _log.info(
            "%s: best at step %d, %.1f %% of the sizes and %.1f %% of the dispersions right in validation, %.0f s",
            folder.path, trainer.best_step, 100 * best["validation_diameter_accuracy"],
            100 * best["validation_sigma_accuracy"], trainer.seconds,
        )  # fmt: skip


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="train")
def _run(composed: DictConfig) -> None:
    from qdml.config import TrainConfig, read_config

    # Before anything slow is imported: a scheduler may ask for a stop at any time.
    stop = _StopSignal()
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    try:
        if OmegaConf.is_missing(composed.data, "store"):
            raise ValueError("data.store is missing; add data.store=FOLDER, the store that qd-simulate wrote")
        config = read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
        from qdml.distributed import join_processes

        with join_processes(config.device.name) as processes:
            if processes.rank != 0:
                logging.getLogger().setLevel(logging.WARNING)
            code = train(config, processes, lambda: stop.received)
    except ValueError as error:
        if rank == 0:
            print(f"qd-train: error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code)


def main() -> None:
    """Entry point of qd-train."""
    # conf/experiment/ holds the named runs of qd-simulate; those of training have the same names in conf/training/.
    sys.argv[1:] = [
        f"training={word.removeprefix('experiment=')}" if word.startswith("experiment=") else word
        for word in sys.argv[1:]
    ]
    _run()


if __name__ == "__main__":
    main()
