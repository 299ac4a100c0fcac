"""How training goes: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

__all__ = ["StepProgress"]

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


class StepProgress:
    """Steps per second, loss and time left; use as a context manager on one process."""

    def __init__(self, first: int, total: int, *, shown: bool) -> None:
        """Start at step `first` of `total`; silent unless `shown`."""
        self._first, self._total, self._shown = first, total, shown
        self._started = self._last = time.perf_counter()
        self._bar = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=total, completed=first)

    def __enter__(self) -> StepProgress:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()

    def due(self) -> bool:
        """Whether the next `show` would be seen: the loss is fetched from the device only then."""
        waited = time.perf_counter() - self._last
        return self._shown and waited > (0.2 if self._bar else _SECONDS_BETWEEN_LINES)

    def show(self, step: int, loss: float) -> None:
        """Show that `step` steps are done."""
        self._last = time.perf_counter()
        speed = (step - self._first) / max(self._last - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, description=f"loss {loss:.3f}  {speed:.1f} steps/s")
        else:
            left = (self._total - step) / max(speed, 1e-9)
            _log.info("step %d of %d, loss %.3f, %.1f steps/s, %.0f s left", step, self._total, loss, speed, left)
