"""A progress line: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

__all__ = ["Progress"]

_log = logging.getLogger(__name__)
# Seconds between lines of a log file.
_LOG_EVERY = 10.0


class Progress:
    """How much is done, how fast it goes and how long it will take; use as a context manager."""

    def __init__(self, title: str, unit: str, total: int, *, shown: bool) -> None:
        """Start counting from zero.

        Args:
            title: what is being done.
            unit: what is counted, in the plural.
            total: how many of them.
            shown: False on every rank but one.
        """
        self._title, self._unit, self._total, self._shown = title, unit, total, shown
        self._started = self._last = time.perf_counter()
        self._bar, self._done = None, 0
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, speed="")

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how it went."""
        if self._bar:
            self._bar.stop()
        if self._shown and kind is None:
            seconds = time.perf_counter() - self._started
            _log.info(
                "%s: %d %s in %.1f s, %.0f %s/s",
                self._title, self._total, self._unit, seconds, self._total / max(seconds, 1e-9), self._unit,
            )  # fmt: skip

    def show(self, done: int) -> None:
        """Update the bar, or write a line if the last one is some time ago."""
        if not self._shown or (done == self._done and self._bar is None):
            return
        self._done = done
        now = time.perf_counter()
        speed = done / max(now - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=done, speed=f"{speed:.0f} {self._unit}/s")
        elif now - self._last > _LOG_EVERY and done < self._total:
            self._last = now
            left = (self._total - done) / max(speed, 1e-9)
            _log.info(
                "%s: %d of %d, %.0f %s/s, %.0f s left",
                self._title,
                done,
                self._total,
                speed,
                self._unit,
                left,
            )
