"""Whether every loss and gradient of a run was finite, without waiting for the device after each step.

Losses are looked at on the device as they come: for each step and lane the first row whose loss is not finite, and
whether the gradient was. Every so many steps, and before anything is saved, the records come to the CPU. A batch is a
function of its step and lane, so it can be drawn again and described.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from qdml.dataset import Rows
from qdml.distributed import Processes

__all__ = ["FiniteRecord"]


class FiniteRecord:
    """What was not finite in the last steps of one process."""

    def __init__(self, lanes: Sequence[int], steps: int, device: torch.device) -> None:
        """Reserve the record.

        Args:
            lanes: numbers of this process's lanes.
            steps: that it holds.
            device: of the losses.
        """
        self._lanes = list(lanes)
        # First bad row of each lane; after them 0, or 1 for a gradient that is not finite. -1 for none.
        self._bad = torch.full((steps, len(lanes) + 1), -1, dtype=torch.int64, device=device)
        self._steps: list[int] = []

    @property
    def full(self) -> bool:
        """Whether the record must be looked at before the next step."""
        return len(self._steps) == len(self._bad)

    def add(self, step: int, losses_LB: torch.Tensor, gradient: torch.Tensor) -> None:
        """Note a step.

        Args:
            step: its number.
            losses_LB: (lane, row) of this process.
            gradient: () norm.
        """
        bad_LB = ~torch.isfinite(losses_LB.detach())
        first_L = torch.where(bad_LB.any(dim=1), bad_LB.int().argmax(dim=1), -1)
        at = len(self._steps)
        self._bad[at, :-1] = first_L
        self._bad[at, -1] = torch.where(torch.isfinite(gradient.detach()), -1, 1)
        self._steps.append(step)

    def check(self, processes: Processes, rows_of: Callable[[int, int], Rows]) -> None:
        """Look at the record and empty it (collective).

        Args:
            processes: who takes part.
            rows_of: (step, lane) -> the rows that were learned from.

        Raises:
            ValueError: something was not finite; the message names the first such step, lane and dot.
        """
        found: list[tuple[int, int, int, str]] = []
        if self._steps:
            table = self._bad[: len(self._steps)].tolist()
            step, line = next(
                ((s, row) for s, row in zip(self._steps, table, strict=True) if max(row) >= 0), (-1, [])
            )
            lane = next((i for i, row in enumerate(line[:-1]) if row >= 0), None)
            if lane is not None:
                number = self._lanes[lane]
                found = [
                    (
                        step,
                        0,
                        number,
                        _describe(rows_of(step, number).take(slice(line[lane], line[lane] + 1))),
                    )
                ]
            elif line:
                found = [(step, 1, 0, "")]
        self._steps = []
        everywhere = sorted(one for some in processes.gather(found) for one in some)
        if not everywhere:
            return
        step, gradient_only, lane, dot = everywhere[0]
        where = (
            f"the gradient of step {step} is not finite, although the losses are"
            if gradient_only
            else f"the loss of step {step} is not finite, first in lane {lane} for {dot}"
        )
        raise ValueError(
            f"{where}. Nothing was saved after it: the folder holds the best weights and the state of before. Lower "
            "optim.learning_rate or set optim.clip, and train again from the start; the same command would meet the "
            "same batch"
        )


def _describe(row: Rows) -> str:
    return (
        f"the dot of variant {int(row.variant)}, D = {float(row.diameter):.6g} nm, σ = {float(row.sigma):.6g}, "
        f"ε = {float(row.strain):.6g}, b_scale = {float(row.b_scale):.6g}"
    )
