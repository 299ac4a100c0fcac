"""qd-train: a store -> a model that tells the size and dispersion of a pattern.

    python -m qdml.train experiment=quick data.store=runs/quick/store.zarr output=runs/quick/model     one process
    torchrun --nproc-per-node 2 -m qdml.train experiment=quick ...                                     two of them
    srun python -m qdml.train ...                                                     one per task (slurm/train_ddp.sh)

The number of processes changes the speed, not the result. Run the same command again after an interruption and it
continues; SIGUSR1, or the end of trainer.stop_after_minutes, makes it save its state after the current step and end
with exit code 75 (run me again). Its steps are fixed when it begins: the learning rate falls to zero with the last one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    import torch

    from hpc.store import Store
    from qdml.augmentation.recipe import Recipe
    from qdml.basis import DotBasis
    from qdml.checkpoint import ModelFolder
    from qdml.config import TrainConfig
    from qdml.dataset import Lane
    from qdml.distributed import Processes
    from qdml.trainer import Trainer

__all__ = ["EXIT_REQUEUE", "main", "new_trainer", "read_inputs", "train"]

_log = logging.getLogger(__name__)

#: EX_TEMPFAIL of sysexits.h: not finished, state saved, run the same command again.
EXIT_REQUEUE = 75


class _StopSignal:
    """SIGUSR1, or the end of the minutes that this part of the training has, seen between steps."""

    def __init__(self) -> None:
        self._received, self._deadline = False, float("inf")
        signal.signal(signal.SIGUSR1, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        self._received = True

    def after(self, minutes: float | None) -> None:
        """Stop that long after now."""
        if minutes is not None:
            self._deadline = time.monotonic() + 60 * minutes

    def __call__(self) -> bool:
        return self._received or time.monotonic() > self._deadline


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

    from hpc.memory import keep_freed_memory
    from qdml.basis_file import write_basis
    from qdml.checkpoint import ModelFolder
    from qdml.distributed import cpu_threads

    main_process = processes.rank == 0
    keep_freed_memory()
    torch.set_num_threads(config.trainer.threads or cpu_threads(processes.launch, os.environ))
    torch.manual_seed(config.seed)

    folder, problem, inputs = ModelFolder(config.output), None, None
    try:
        inputs = read_inputs(config, processes)
    except ValueError as error:
        problem = error
    processes.agree(problem)
    assert inputs is not None
    store, _, recipe = inputs
    card, state = _card(config, store, recipe), "new"
    if main_process:
        try:
            card["began_with"] = _began_with(config, folder, card)
            state = folder.open(card)
        except ValueError as error:
            problem = error
        except OSError as error:
            problem = ValueError(f"cannot write {folder.path}: {error.strerror}; choose another output")
    processes.agree(problem)
    state = processes.broadcast(state)
    if state == "finished":
        if main_process:
            _log.info("%s is finished already; nothing to do", folder.path)
        return 0

    trainer = new_trainer(config, processes, inputs, card=card, stop_requested=stop_requested)
    if state == "resumed":
        trainer.resume()
    else:
        if main_process:
            # Recipes that start from clean patterns need none.
            if not recipe.needs_intensity and recipe.basis is not None:
                write_basis(folder.path, recipe.basis)
            folder.keep_metrics(0)  # of a run that ended before its first checkpoint
        if config.trainer.initial is None:
            trainer.fit_whitening()
        else:
            _begin_with(config.trainer.initial, trainer)
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


def _began_with(config: TrainConfig, folder: ModelFolder, card: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the model was trained on that a run begins with; of a run that has begun, as its folder says."""
    from qdml.checkpoint import check_initial, read_card

    if (folder.path / "card.json").is_file():
        return cast("dict[str, Any] | None", read_card(folder.path)["began_with"])
    if config.trainer.initial is None:
        return None
    other = check_initial(config.trainer.initial, card)
    return other["trained"] and other["trained"] | {"began_with": other["began_with"]}


def _begin_with(folder: str, trainer: Trainer) -> None:
    """Weights of another model, which every process reads."""
    from qdml.checkpoint import begin_with

    problem = None
    try:
        begin_with(folder, trainer.model, trainer.card)
    except ValueError as error:
        problem = error
    trainer.processes.agree(problem)


def read_inputs(config: TrainConfig, processes: Processes) -> tuple[Store, list[Lane], Recipe]:
    """The store, this process's lanes, and the recipe."""
    from hpc.store import open_store
    from qdml.augmentation.recipes import build_recipe
    from qdml.config import EnsembleDataConfig
    from qdml.dataset import check_classes, read_lanes
    from qdml.ensemble import check_ranges, ensemble_lanes

    store = open_store(config.data.store)
    if isinstance(config.data, EnsembleDataConfig):
        check_ranges(config.data, store)
    if config.classes is not None:
        check_classes(store, config.classes)
    if config.task == "posterior" and not (store.parameters["sigma"] > 0).all():
        raise ValueError(
            f"network={config.network.name} infers ln σ, and {store.path} holds monodisperse dots (σ = 0); simulate "
            "with grid.sigma above 0"
        )
    recipe = build_recipe(config.augment, _basis(config, store, processes.device) or store, processes.device)
    place: dict[str, Any] = {
        "seed": config.seed,
        "rank": processes.rank,
        "world": processes.world,
        "device": processes.device,
        "intensity": recipe.needs_intensity,
    }
    lanes: Sequence[Lane]
    if isinstance(config.data, EnsembleDataConfig):
        lanes = ensemble_lanes(store, config.data, **place)
    else:
        lanes = read_lanes(store, config.data, **place)
    return store, list(lanes), recipe


def new_trainer(
    config: TrainConfig,
    processes: Processes,
    inputs: tuple[Store, list[Lane], Recipe],
    *,
    card: dict[str, Any],
    stop_requested: Callable[[], bool] = lambda: False,
) -> Trainer:
    """A run before its first step: a network of random weights, of the sizes of its store and its world.

    Args:
        config: all of it.
        processes: who takes part.
        inputs: of `read_inputs`.
        card: of the model, completed as training goes.
        stop_requested: as in `train`.

    Raises:
        ValueError: the optimiser does not suit the network.
    """
    import torch

    from qdml.checkpoint import ModelFolder
    from qdml.models import build_model
    from qdml.observation import CONDITIONS
    from qdml.trainer import Trainer

    store, lanes, recipe = inputs
    model = build_model(
        config.network,
        config.classes,
        store.q.size,
        len(CONDITIONS),
        n_latents=len(recipe.space),
        n_variants=store.n_variants,
    )
    return Trainer(
        config,
        processes=processes,
        lanes=lanes,
        recipe=recipe,
        model=model,
        q=torch.as_tensor(store.q),
        folder=ModelFolder(config.output),
        card=card,
        stop_requested=stop_requested,
    )


def _basis(config: TrainConfig, store: Store, device: torch.device) -> DotBasis | None:
    """The basis of the dots that an earlier part of the same training has left in the model's folder."""
    from pathlib import Path

    from qdml.basis_file import BASIS_FILE, read_basis
    from qdml.checkpoint import read_card
    from qdml.dataset import fingerprint

    if not all((Path(config.output) / name).is_file() for name in (BASIS_FILE, "card.json")):
        return None
    # Of another store: the folder will be refused, in words that say so.
    same = read_card(config.output)["store"]["fingerprint"] == fingerprint(store)
    return read_basis(config.output, device) if same else None


def _card(config: TrainConfig, store: Store, recipe: Recipe) -> dict[str, Any]:
    """Everything about a model but its weights."""
    from importlib.metadata import version

    from qdml.checkpoint import CARD_VERSION
    from qdml.config import as_mapping
    from qdml.dataset import fingerprint
    from qdml.densities import TARGETS
    from qdml.observation import CONDITIONS

    classes = config.classes
    return {
        "card_version": CARD_VERSION,
        "finished": False,
        # classes: probabilities of those below; posterior: a density of the targets.
        "task": config.task,
        "targets": list(TARGETS) if config.task == "posterior" else None,
        "classes": classes and {"diameter_nm": list(classes.diameter_nm), "sigma": list(classes.sigma)},
        "architecture": as_mapping(config.network),
        "input": config.network.input,
        "conditions": list(CONDITIONS),
        # The unknowns of its world, in the order in which it guesses them.
        "latents": recipe.space.labels(),
        "q": {
            "min": float(store.q[0]),
            "max": float(store.q[-1]),
            "step": float((store.q[-1] - store.q[0]) / (store.q.size - 1)),
            "size": int(store.q.size),
        },
        "prior": _prior(config, store),
        "materials": [store.attrs["material"]],
        "variants": [one["title"] for one in store.attrs["variants"]],
        "store": {
            "fingerprint": fingerprint(store),
            "samples": store.n_samples,
            "material": store.attrs["material"],
            "energy_kev": store.attrs["energy_kev"],
            "ranges": {name: [float(v.min()), float(v.max())] for name, v in store.parameters.items()},
            "config": store.attrs["config"],
        },
        "recipe": config.augment.name,
        "instruments": list(recipe.cells) if config.augment.name == "instrument" else None,
        # Ranges of the first and of the last visible Q [Å⁻¹] in each noise cell.
        "windows": [
            {"cell": cell, "first": list(first), "last": list(last)}
            for cell, (first, last) in zip(recipe.cells, recipe.windows, strict=True)
        ],
        "training": as_mapping(config),
        "metrics": None,
        "trained": None,
        # What the model was trained on whose weights this one began with.
        "began_with": None,
        "software": {name: version(name) for name in ("debye-dots", "torch", "numpy", "safetensors")},
    }


def _prior(config: TrainConfig, store: Store) -> dict[str, Any]:
    """What dots a model has learned from: the ranges outside which it cannot answer."""
    names = ("diameter", "sigma", "strain", "b_scale")
    if config.data.name == "ensemble":
        data = config.data
        ranges = dict(zip(names, (data.diameter_nm, data.sigma, data.strain, data.b_scale), strict=True))
        mean = data.mean
    else:
        ranges = {
            name: (float(store.parameters[name].min()), float(store.parameters[name].max())) for name in names
        }
        mean = "number"
    return {
        "source": config.data.name,
        # Of which mean the range of diameters is.
        "mean": mean,
        "diameter_nm": list(ranges["diameter"]),
        **{name: list(ranges[name]) for name in names[1:]},
    }


def _trained(trainer: Trainer) -> dict[str, Any]:
    """On what a model was trained (its last part), how long, and with how many patterns (all of its parts)."""
    import torch

    device = trainer.processes.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "processes": trainer.processes.world,
        "threads": torch.get_num_threads(),
        "seconds": round(trainer.seconds, 1),
        "steps": trainer.step,
        "patterns": trainer.step * trainer.config.trainer.batch,
    }


def _cpu_name() -> str:
    """The model of this machine's CPU, as the system knows it."""
    import platform
    from pathlib import Path

    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _finish(trainer: Trainer, *, finished: bool) -> None:
    """Draw the learning curve, complete the card, say how it went (rank 0)."""
    from qdml.charts import draw_learning_curve

    folder, lines = trainer.folder, trainer.folder.read_metrics()
    if lines:
        draw_learning_curve(lines, folder.path / "learning_curve.png")
    best = next((line for line in lines if line["step"] == trainer.best_step), None)
    timing = trainer.watch.summary()
    trainer.card.update(
        finished=finished,
        metrics=best,
        timing=timing,
        trained=_trained(trainer),
    )
    folder.write_card(trainer.card)
    if timing:
        _log.info(
            "step of %.1f ms: draw %.1f, world %.1f, network %.1f, optimiser %.1f; with data over fixed batch %.2f, "
            "with rows over fixed rows %.3f",
            *(timing[f"{name}_ms"] for name in ("step", "draw", "world", "network", "optimiser")),
            timing["with_data_over_fixed_batch"],
            timing["with_rows_over_fixed_rows"],
        )
    if not finished:
        _log.info("stopped at step %d, state saved; run the same command again to go on", trainer.step)
    elif best:
        _log.info(
            "%s: best at step %d, validation loss %.4g, %.0f s",
            folder.path, trainer.best_step, best["validation_loss"], trainer.seconds,
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
            stop.after(config.trainer.stop_after_minutes)
            code = train(config, processes, stop)
    except ValueError as error:
        if rank == 0:
            print(f"qd-train: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # A disk that is full by now: what was saved before stays as it was.
        print(
            f"qd-train: error: cannot write {error.filename or config.output}: {error.strerror}; make room there and "
            "run the same command again, it goes on from what was saved last",
            file=sys.stderr,
        )
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
