"""Clocks: how long the parts of a training step take, and anything else.

draw         which dots: rows of a store, or new ones from the ensemble
world        what a measurement of them looks like, and the input of the network made of it
network      forward and backward
optimiser    the step of the weights
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["PARTS", "Stopwatch", "clock"]

PARTS = ("draw", "world", "network", "optimiser")

# Every so many steps the parts of a step are timed, which on a GPU means waiting for it. A prime number: where patterns
# are observed several times, every kind of step gets its turn.
_TIMED_EVERY = 17


class Stopwatch:
    """Mean duration of the parts of a step, taken in one step out of 17."""

    def __init__(self, device: torch.device) -> None:
        """Time what `device` does."""
        self._device, self._running, self._last = device, False, 0.0
        self._seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    def start(self, step: int) -> None:
        """Begin a step; the first ones of a process, which also allocate, are not timed."""
        self._running = step % _TIMED_EVERY == _TIMED_EVERY - 1
        if self._running:
            self._last = self._now()

    def lap(self, part: str) -> None:
        """A part of the step is over."""
        if self._running:
            now = self._now()
            self._seconds[part].append(now - self._last)
            self._last = now

    def summary(self) -> dict[str, float] | None:
        """Milliseconds of each part, and what data cost; None before any timing.

        `with_rows_over_fixed_rows` is the step over the same step if the dots were always the same ones: what reading
        or drawing costs. `with_data_over_fixed_batch` is the step over one with a ready input: everything that endless,
        measured-looking data cost. The second is large where the network is small and the world is computed on a CPU.
        """
        if not self._seconds[PARTS[-1]]:
            return None
        mean = {part: 1e3 * sum(seconds) / len(seconds) for part, seconds in self._seconds.items()}
        step = sum(mean.values())
        return {
            **{f"{part}_ms": mean[part] for part in PARTS},
            "step_ms": step,
            "with_rows_over_fixed_rows": step / (step - mean["draw"]),
            "with_data_over_fixed_batch": step / (mean["network"] + mean["optimiser"]),
        }

    def _now(self) -> float:
        """The time at which the device has done what it was asked."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def clock(device: torch.device) -> Callable[[], float]:
    """Tells seconds: those of all cores together, which other programs may share; on a GPU those that pass."""
    return time.process_time if device.type == "cpu" else time.perf_counter
