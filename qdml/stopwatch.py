"""How long the parts of a training step take."""

from __future__ import annotations

import time

import torch

__all__ = ["Stopwatch"]

# Every so many steps the parts of a step are timed, which on a GPU means waiting for it.
_TIMED_EVERY = 16


class Stopwatch:
    """Mean duration of the parts of a step, taken in one step out of 16."""

    def __init__(self, device: torch.device) -> None:
        """Time what `device` does."""
        self._device, self._running, self._last = device, False, 0.0
        self._seconds: dict[str, list[float]] = {"rows": [], "augment": [], "network": []}

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
        """Milliseconds of each part, and step time with data over step time on fixed data; None before any timing."""
        if not self._seconds["network"]:
            return None
        rows, augment, network = (1e3 * sum(part) / len(part) for part in self._seconds.values())
        return {
            "rows_ms": rows,
            "augment_ms": augment,
            "network_ms": network,
            "with_rows_over_fixed_rows": (rows + augment + network) / (augment + network),
            "with_data_over_fixed_batch": (rows + augment + network) / network,
        }

    def _now(self) -> float:
        """The time at which the device has done what it was asked."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
