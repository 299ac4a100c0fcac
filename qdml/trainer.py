"""The training loop: batches, steps, looks at the validation split, checkpoints, an orderly stop.

Everything random is a function of (seed, step, lane); the learning rate is a function of the step. So the state of a
run is its weights, its optimiser's tensors and its step, and a run resumed from them goes on as if never interrupted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from hpc.progress import Progress
from qdml.augmentation.recipe import Recipe
from qdml.checkpoint import ModelFolder
from qdml.config import OptimConfig, TrainConfig
from qdml.dataset import Lane, lane_generator, nearest_class
from qdml.distributed import Processes
from qdml.losses import class_loss, class_probabilities
from qdml.preprocess import network_input
from qdml.stopwatch import Stopwatch

__all__ = ["Trainer", "learning_rate"]

_log = logging.getLogger(__name__)

# Roles of random streams, apart from those of `dataset`.
_TRAINING, _VALIDATION, _WHITENING = 11, 12, 13
# Patterns from which a whitening is fitted: enough for the leading few hundred components.
_WHITENING_PATTERNS = 8192

#: Columns of the validation sums.
_SUMS = ("patterns", "loss", "diameter_accuracy", "sigma_accuracy", "diameter_mae_nm", "sigma_mae")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Learning rate of a step: constant, or a linear warm-up and half a cosine down to zero."""
    if config.schedule == "constant":
        return config.learning_rate
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """One training run."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        processes: Processes,
        lanes: Sequence[Lane],
        recipe: Recipe,
        model: torch.nn.Module,
        q: torch.Tensor,
        folder: ModelFolder,
        card: dict[str, Any],
        stop_requested: Callable[[], bool],
    ) -> None:
        """Prepare a run.

        Args:
            config: all of it.
            processes: who takes part.
            lanes: those of this process.
            recipe: augmentation.
            model: the same weights on every process.
            q: (Q,) on the CPU.
            folder: where rank 0 writes.
            card: of the model, completed as training goes.
            stop_requested: asked after every step; true once the run shall save its state and end.
        """
        self.config, self.processes, self.lanes, self.recipe = config, processes, lanes, recipe
        self.folder, self.card, self._stop_requested, self._q = folder, card, stop_requested, q
        self._dtype, self._autocast = _precision(config.trainer.precision, processes.device)
        self.model = model.to(processes.device, self._dtype)
        optimizers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer = optimizers[config.optim.name](
            [weight for weight in self.model.parameters() if weight.requires_grad],
            lr=config.optim.learning_rate,
            weight_decay=config.optim.weight_decay,
        )
        self.step, self.best_step, self.best_loss, self.seconds = 0, 0, math.inf, 0.0
        self.watch = Stopwatch(processes.device)

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        scalars = self.folder.load_state(self.model, self.optimizer)
        self.step, self.best_step = scalars["step"], scalars["best_step"]
        self.best_loss = math.inf if scalars["best_loss"] is None else scalars["best_loss"]
        self.seconds = scalars["seconds"]
        if self.processes.rank == 0:
            self.folder.keep_metrics(self.step)

    def fit_whitening(self) -> None:
        """Fix the input whitening of a new network that has one, from augmented training patterns (collective)."""
        fit = getattr(self.model, "fit", None)
        if fit is None:
            return
        size = self.config.trainer.batch // self.config.data.lanes
        n = self._q.numel()
        # Count, sum and sum of products, in one array so that one sum over the processes does.
        moments = torch.zeros((n + 1, n + 1), dtype=torch.float64)
        for lane in self.lanes:
            for draw in range(math.ceil(_WHITENING_PATTERNS / self.config.trainer.batch)):
                generator = self._generator(_WHITENING, draw, lane.number)
                x_BCQ = self._input(*self.recipe.random(lane.batch(draw, size), generator))
                x_BQ = torch.cat([x_BCQ[:, 0].double(), x_BCQ.new_ones(size, 1).double()], dim=1)
                moments += (x_BQ.T @ x_BQ).cpu()
        moments = self.processes.sum(moments)
        count, mean = moments[n, n], moments[n, :n] / moments[n, n]
        covariance = moments[:n, :n] / count - mean[:, None] * mean
        fit(*self.processes.broadcast((mean, covariance)))

    def run(self) -> Literal["finished", "interrupted"]:
        """Train until the last step or until asked to stop; the state is saved either way."""
        trainer, main = self.config.trainer, self.processes.rank == 0
        self._wrapped = self.processes.wrap(self.model)
        board = self._open_board() if main else None
        started, earlier = time.perf_counter(), self.seconds
        loss_sum, loss_count = torch.zeros((), dtype=torch.float64, device=self.processes.device), 0
        with Progress("training", "steps", trainer.steps, first=self.step, shown=main) as progress:
            while self.step < trainer.steps:
                loss = self._train_step()
                self.step += 1
                self.seconds = earlier + time.perf_counter() - started
                loss_sum, loss_count = loss_sum + loss, loss_count + 1
                if progress.due():
                    progress.show(self.step, f"loss {float(loss):.3f}")
                last = self.step == trainer.steps
                if self.step % trainer.evaluate_every == 0 or last:
                    self._look(float(loss_sum) / loss_count, board)
                    loss_sum, loss_count = torch.zeros_like(loss_sum), 0
                stop = self.processes.any(self._stop_requested())
                if main and (self.step % trainer.checkpoint_every == 0 or last or stop):
                    self._save()
                if stop and not last:
                    break
        if board:
            board.close()
        return "finished" if self.step == trainer.steps else "interrupted"

    def _train_step(self) -> torch.Tensor:
        """One update; returns the loss of this process's rows (a tensor, so that nothing waits for the device)."""
        self.watch.start(self.step)
        size = self.config.trainer.batch // self.config.data.lanes
        rows = [lane.batch(self.step, size) for lane in self.lanes]
        self.watch.lap("rows")
        inputs = []
        for lane, part in zip(self.lanes, rows, strict=True):
            generator = self._generator(_TRAINING, self.step, lane.number)
            inputs.append(self._input(*self.recipe.random(part, generator)))
        x_BCQ = torch.cat(inputs)
        diameter = torch.cat([part.diameter for part in rows])
        sigma = torch.cat([part.sigma for part in rows])
        self.watch.lap("augment")
        rate = learning_rate(self.config.optim, self.step, self.config.trainer.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = self._wrapped(x_BCQ)
        loss = class_loss(logits, diameter, sigma, self.config.classes, self.config.optim.label_width)
        loss.backward()
        self.optimizer.step()
        self.watch.lap("network")
        return loss.detach().double()

    def _generator(self, *key: int) -> torch.Generator:
        return lane_generator(self.processes.device, self.config.seed, *key)

    def _input(self, y_BQ: torch.Tensor, mask_BQ: torch.Tensor) -> torch.Tensor:
        return network_input(y_BQ, mask_BQ, self._q, self.config.network.input).to(self._dtype)

    def _look(self, train_loss: float, board: Any) -> None:
        """Look at the validation split (collective); keep the weights if they are the best so far."""
        sums = self.validate()
        totals = self.processes.sum(torch.tensor([train_loss / self.processes.world], dtype=torch.float64))
        n = sums["patterns"]
        line = {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "learning_rate": learning_rate(self.config.optim, self.step - 1, self.config.trainer.steps),
            "train_loss": float(totals[0]),
            **{f"validation_{name}": sums[name] / n for name in _SUMS[1:]},
        }
        if not math.isfinite(line["validation_loss"]):
            raise ValueError(
                f"the loss is not finite at step {self.step}; lower optim.learning_rate "
                f"(now {self.config.optim.learning_rate:g})"
            )
        better = line["validation_loss"] < self.best_loss
        if better:
            self.best_loss, self.best_step = line["validation_loss"], self.step
        if self.processes.rank != 0:
            return
        if better:
            self.folder.save_best(self.model)
            self.card["metrics"] = line
            self.folder.write_card(self.card)
        self.folder.add_metrics(line)
        if board:
            for name, value in line.items():
                if name != "step":
                    board.add_scalar(name, value, self.step)
        _log.info(
            "step %d: loss %.3f, validation loss %.3f, size %.1f %%, dispersion %.1f %% of the classes right%s",
            self.step, line["train_loss"], line["validation_loss"], 100 * line["validation_diameter_accuracy"],
            100 * line["validation_sigma_accuracy"], " (best)" if better else "",
        )  # fmt: skip

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Sums over the validation split of all processes, each pattern augmented in the same few ways every time."""
        config = self.config
        totals = torch.zeros((config.data.lanes, len(_SUMS)), dtype=torch.float64)
        self.model.eval()
        for lane in self.lanes:
            generator = self._generator(_VALIDATION, lane.number)
            for _ in range(config.trainer.validation_draws):
                for rows in lane.validation_batches(config.trainer.batch):
                    with self._autocast():
                        logits = self.model(self._input(*self.recipe.random(rows, generator)))
                    loss = class_loss(
                        logits, rows.diameter, rows.sigma, config.classes, config.optim.label_width
                    )
                    values = [
                        float(len(rows)),
                        float(loss) * len(rows),
                        *_scores(logits, rows, config.classes),
                    ]
                    totals[lane.number] += torch.tensor(values, dtype=torch.float64)
        self.model.train()
        # Lane by lane and then in the order of the lanes: the same sum for any number of processes.
        return dict(zip(_SUMS, self.processes.sum(totals).sum(dim=0).tolist(), strict=True))

    def _save(self) -> None:
        scalars = {
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "seconds": self.seconds,
        }
        self.folder.save_state(self.model, self.optimizer, scalars)

    def _open_board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.step + 1)


def _scores(logits: dict[str, torch.Tensor], rows: Any, classes: Any) -> list[float]:
    """Sums over a batch: right size classes, right dispersion classes, |error| of either mean."""
    p = class_probabilities(logits, classes)
    right, errors = [], []
    for name, truth in (("diameter_nm", rows.diameter), ("sigma", rows.sigma)):
        centres = torch.tensor(getattr(classes, name), dtype=torch.float64, device=truth.device)
        right.append(float((p[name].argmax(dim=1) == nearest_class(truth, centres.tolist())).sum()))
        errors.append(float((p[name] @ centres - truth).abs().sum()))
    return [*right, *errors]


def _precision(name: str, device: torch.device) -> tuple[torch.dtype, Callable[[], Any]]:
    """Type of the weights, and the context of the forward pass.

    Raises:
        ValueError: bfloat16 on the CPU.
    """
    from contextlib import nullcontext

    if name == "bfloat16" and device.type != "cuda":
        raise ValueError(
            "trainer.precision=bfloat16 needs CUDA, this process runs on the CPU; choose auto or float32"
        )
    if name == "bfloat16" or (name == "auto" and device.type == "cuda"):
        return torch.float32, lambda: torch.autocast("cuda", dtype=torch.bfloat16)
    return (torch.float64 if name == "float64" else torch.float32), nullcontext
