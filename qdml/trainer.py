"""The training loop: batches, steps, looks at the validation split, checkpoints, an orderly stop.

Everything random is a function of (seed, step, lane); the learning rate is a function of the step. So the state of a
run is its weights, its optimisers' tensors and its step, and a run resumed from them goes on as if never interrupted,
with any number of processes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from hpc.progress import Progress
from qdml.augmentation.recipe import Expected, Recipe
from qdml.checkpoint import ModelFolder
from qdml.config import TrainConfig
from qdml.dataset import Lane, Rows, lane_generator
from qdml.distributed import Processes
from qdml.finite import FiniteRecord
from qdml.losses import nuisance_loss, nuisance_scores, pattern_loss, scores
from qdml.models.posterior import Posterior
from qdml.observation import Observation
from qdml.optimizers import build_optimizers, learning_rate, set_progress
from qdml.preprocess import NetworkInput, network_input
from qdml.stopwatch import Stopwatch

if TYPE_CHECKING:
    from qdml.models import Posteriors

__all__ = ["Trainer"]

_log = logging.getLogger(__name__)

# Roles of random streams, apart from those of `dataset` and `ensemble`.
_TRAINING, _VALIDATION, _WHITENING, _PHOTONS = 11, 12, 13, 14
# Steps between two observations of a pattern, in units of how many there are. A network remembers what it saw dozens of
# steps ago: at 8 the loss of training was 0.19 nats below that of validation. So many batches, less one of n, are kept.
_APART = 200
# Patterns from which a whitening is fitted: enough for the leading few hundred components.
_WHITENING_PATTERNS = 8192


class _Objective(torch.nn.Module):
    """Network and loss in one, so that both are compiled and the network's gradients are averaged."""

    def __init__(self, model: torch.nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.model, self._config = model, config

    def forward(
        self, inputs: NetworkInput, rows: Rows, z_BL: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) loss of the answer, and what is added to it for the guess of what is not asked for."""
        if not isinstance(self.model, Posterior):
            losses_B = pattern_loss(self.model(inputs), rows, self._config)
            return losses_B, torch.zeros_like(losses_B)
        density, guess = self.model.answer(inputs)
        weight = cast("Posteriors", self._config.network).nuisance
        return pattern_loss(density, rows, self._config), nuisance_loss(guess, rows, z_BL, weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What one lane has drawn: dots, their expected patterns, the latents of these."""

    rows: Rows
    expected: Expected
    z: torch.Tensor


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

        Raises:
            ValueError: the optimiser does not suit the network.
        """
        self.config, self.processes, self.lanes, self.recipe = config, processes, lanes, recipe
        self.folder, self.card, self._stop_requested, self._q = folder, card, stop_requested, q
        self._dtype, self._autocast = _precision(config.trainer.precision, processes.device)
        self.model = model.to(processes.device, self._dtype)
        self.optimizers = build_optimizers(config.optim, self.model)
        self.step, self.best_step, self.best_loss, self.seconds = 0, 0, math.inf, 0.0
        self.watch = Stopwatch(processes.device)
        self._size = config.trainer.batch // config.data.lanes
        self._kept: dict[int, list[_Drawn]] = {}
        self._finite = FiniteRecord(
            [lane.number for lane in lanes], config.trainer.check_every, processes.device
        )

    def resume(self) -> None:
        """Continue from the last checkpoint."""
        scalars = self.folder.load_state(self.model, self.optimizers)
        self.step, self.best_step = scalars["step"], scalars["best_step"]
        self.best_loss = math.inf if scalars["best_loss"] is None else scalars["best_loss"]
        self.seconds = scalars["seconds"]
        if self.processes.rank == 0:
            self.folder.keep_metrics(self.step)

    @torch.no_grad()
    def fit_whitening(self) -> None:
        """Fix what a new network takes from augmented training patterns, if it takes anything (collective)."""
        fit = getattr(self.model, "fit", None)
        if fit is None:
            return
        from qdml.models.whitening import InputMoments

        moments = None
        for lane in self.lanes:
            for draw in range(math.ceil(_WHITENING_PATTERNS / self.config.trainer.batch)):
                rows = lane.batch(draw, self._size)
                inputs = self._input(self.recipe.random(rows, self._generator(_WHITENING, draw, lane.number)))
                targets_BT = rows.targets()
                if moments is None:
                    moments = InputMoments(self._q.numel(), inputs.conditions.shape[1], targets_BT.shape[1])
                moments.add(inputs, targets_BT)
        assert moments is not None
        moments.sums = self.processes.broadcast(self.processes.sum(moments.sums))
        fit(moments)

    def prepare(self) -> None:
        """Compile the network, if asked, and let the processes share its gradients (collective, before any step)."""
        objective: torch.nn.Module = _Objective(self.model, self.config)
        if self.config.trainer.compile:
            objective = torch.compile(objective)  # type: ignore[assignment]
        self._objective = self.processes.wrap(objective)

    def run(self) -> Literal["finished", "interrupted"]:
        """Train until the last step or until asked to stop; the state is saved either way.

        Raises:
            ValueError: a loss or a gradient was not finite; nothing was saved after it.
        """
        trainer, main = self.config.trainer, self.processes.rank == 0
        self.prepare()
        board = self._open_board() if main else None
        started, earlier = time.perf_counter(), self.seconds
        loss_sum, loss_count = torch.zeros((), dtype=torch.float64, device=self.processes.device), 0
        with Progress("training", "steps", trainer.steps, first=self.step, shown=main) as progress:
            while self.step < trainer.steps:
                loss = self.train_step()
                self.step += 1
                self.seconds = earlier + time.perf_counter() - started
                loss_sum, loss_count = loss_sum + loss, loss_count + 1
                if progress.due():
                    progress.show(self.step, f"loss {float(loss):.3f}")
                last = self.step == trainer.steps
                look = self.step % trainer.evaluate_every == 0 or last
                if look or self._finite.full:
                    self.check()
                if look:
                    self._look(float(loss_sum) / loss_count, board)
                    loss_sum, loss_count = torch.zeros_like(loss_sum), 0
                stop = self.processes.any(self._stop_requested())
                save = self.step % trainer.checkpoint_every == 0 or last or stop
                if save:
                    self.check()
                if main and save:
                    self._save()
                if stop and not last:
                    break
        if board:
            board.close()
        return "finished" if self.step == trainer.steps else "interrupted"

    def train_step(self) -> torch.Tensor:
        """One update; returns the loss of this process's rows without what is added to it (a tensor, so that nothing
        waits for the device).
        """
        self.watch.start(self.step)
        with torch.no_grad():
            drawn = self._drawn(self._source(self.step))
            seen = [
                self.recipe.observe(one.expected, self._generator(_PHOTONS, self.step, lane.number))
                for lane, one in zip(self.lanes, drawn, strict=True)
            ]
            inputs = self._input(Observation.cat(seen))
            z_BL = torch.cat([one.z for one in drawn]).to(self._dtype)
        rows = Rows.cat([one.rows for one in drawn])
        self.watch.lap("world")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            losses_B, added_B = self._objective(inputs, rows, z_BL)
        loss = losses_B.mean()
        (loss + added_B.mean()).backward()
        self.watch.lap("network")
        # The norm of everything costs one pass over the gradients and tells whether they are finite.
        learned = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in learned if weight.grad is not None])
        if self.config.optim.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(learned, self.config.optim.clip, norm)
        self._finite.add(self.step, (losses_B + added_B).unflatten(0, (len(self.lanes), -1)), norm)
        set_progress(self.optimizers, self.config.optim, self.step, self.config.trainer.steps)
        for optimizer in self.optimizers:
            optimizer.step()
        self.watch.lap("optimiser")
        return loss.detach().double()

    def check(self) -> None:
        """Make sure that everything since the last check was finite (collective).

        Raises:
            ValueError: it was not; the message names the first batch.
        """
        self._finite.check(self.processes, self._rows)

    def _source(self, step: int) -> int:
        """The step whose patterns are observed in a step: every n-th draws, those between observe earlier ones again.

        Steps before the first source draw for themselves. It depends on the step alone: a resumed run draws again what
        it needs.
        """
        n = self.config.trainer.observations
        source = step - step % n - _APART * n * (step % n)
        return source if source >= 0 else step

    def _drawn(self, source: int) -> list[_Drawn]:
        """What the lanes of this process draw in a step."""
        drawn = self._kept.get(source)
        rows = [] if drawn else [lane.batch(source, self._size) for lane in self.lanes]
        self.watch.lap("draw")
        if drawn is None:
            drawn = [self._expect(source, *one) for one in zip(self.lanes, rows, strict=True)]
        n = self.config.trainer.observations
        # Nobody asks again for the others, which drew for themselves at the beginning.
        if source % n == 0:
            self._kept[source] = drawn
        # The last observation is n - 1 times _APART n steps later, and n - 1.
        oldest = self.step - (n - 1) * (_APART * n + 1)
        self._kept = {step: kept for step, kept in self._kept.items() if step >= oldest}
        return drawn

    def _expect(self, source: int, lane: Lane, rows: Rows) -> _Drawn:
        setting, z_BL = self.recipe.draw(rows, self._generator(_TRAINING, source, lane.number))
        expected = self.recipe.expected(rows.main(), setting, z_BL)
        # What its parts would be made of is as large as all the rest, and nobody asks for them.
        return _Drawn(rows=rows, expected=replace(expected, make_parts=dict), z=z_BL)

    def _rows(self, step: int, lane: int) -> Rows:
        """The rows that a lane of this process gave in a step."""
        source = self._source(step)
        return next(one for one in self.lanes if one.number == lane).batch(source, self._size)

    def _generator(self, *key: int) -> torch.Generator:
        return lane_generator(self.processes.device, self.config.seed, *key)

    def _input(self, observation: Observation) -> NetworkInput:
        return network_input(observation, self._q, self.config.network.input).to(self._dtype)

    def _look(self, train_loss: float, board: Any) -> None:
        """Look at the validation split (collective); keep the weights if they are the best so far."""
        values = self.validate()
        totals = self.processes.sum(torch.tensor([train_loss / self.processes.world], dtype=torch.float64))
        line = {
            "step": self.step,
            "seconds": round(self.seconds, 2),
            "learning_rate": learning_rate(self.config.optim, self.step - 1, self.config.trainer.steps),
            "train_loss": float(totals[0]),
            "validation_loss": values.pop("nll"),
            **{f"validation_{name}": value for name, value in values.items()},
        }
        if not math.isfinite(line["validation_loss"]):
            raise ValueError(
                f"the loss of the validation split is not finite after step {self.step}, although those of training "
                f"are; lower optim.learning_rate (now {self.config.optim.learning_rate:g})"
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
            "step %d: loss %.3f, validation loss %.3f, %s%s",
            self.step, line["train_loss"], line["validation_loss"], _in_words(values), " (best)" if better else "",
        )  # fmt: skip

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean scores of the validation split, each pattern augmented in the same few ways every time (collective)."""
        config = self.config
        names: list[str] = []
        totals = torch.zeros((config.data.lanes, 0), dtype=torch.float64)
        self.model.eval()
        for lane in self.lanes:
            generator = self._generator(_VALIDATION, lane.number)
            for _ in range(config.trainer.validation_draws):
                for rows in lane.validation_batches(config.trainer.batch):
                    seen, z_BL = self.recipe.sample(rows, generator)
                    inputs = self._input(seen)
                    with self._autocast():
                        answer = self.model.answer(inputs) if isinstance(self.model, Posterior) else None
                        outputs = answer[0] if answer else self.model(inputs)
                    values = scores(outputs, rows, config)
                    if answer:
                        values |= nuisance_scores(answer[1], rows, z_BL)
                    if not names:
                        names = ["patterns", *values]
                        totals = torch.zeros((config.data.lanes, len(names)), dtype=torch.float64)
                    sums = torch.stack([value.double().sum() for value in values.values()])
                    totals[lane.number, 0] += len(rows)
                    totals[lane.number, 1:] += sums.cpu()
        self.model.train()
        # Lane by lane and then in the order of the lanes: the same sum for any number of processes.
        total = self.processes.sum(totals).sum(dim=0)
        return dict(zip(names[1:], (total[1:] / total[0]).tolist(), strict=True))

    def _save(self) -> None:
        scalars = {
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "seconds": self.seconds,
        }
        self.folder.save_state(self.model, self.optimizers, scalars)

    def _open_board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.step + 1)


def _in_words(values: Mapping[str, float]) -> str:
    """Mean scores of classes or of a posterior."""
    if "diameter_accuracy" in values:
        size, dispersion = (100 * values[f"{name}_accuracy"] for name in ("diameter", "sigma"))
        return f"size {size:.1f} %, dispersion {dispersion:.1f} % of the classes right"
    shape = (
        f"; {100 * values['variant_accuracy']:.0f} % of the shapes right"
        if "variant_accuracy" in values
        else ""
    )
    inside = ", ".join(f"{100 * value:.0f}" for name, value in values.items() if name.endswith("_in_68"))
    off = (
        f"{values[name]:.{digits}f}{unit}"
        for name, digits, unit in (
            ("volume_diameter_mae_nm", 3, " nm in the volume mean"),
            ("diameter_mae_nm", 3, " nm in the number mean"),
            ("sigma_mae", 4, " in dispersion"),
            ("strain_mae", 5, " in strain"),
        )
    )
    return f"off by {', '.join(off)}; {inside} % in the intervals of 68 %{shape}"


def _precision(name: str, device: torch.device) -> tuple[torch.dtype, Callable[[], Any]]:
    """Type of the weights, and the context of the forward pass."""
    if name == "bfloat16" or (name == "auto" and device.type == "cuda"):
        return torch.float32, lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return (torch.float64 if name == "float64" else torch.float32), nullcontext
