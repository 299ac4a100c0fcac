"""A progress line: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

__all__ = ["Progress"]

_log = logging.getLogger(__name__)
# Seconds between lines of a log file, and between updates of a bar.
_LOG_EVERY = 10.0
_BAR_EVERY = 0.1


class Progress:
    """How much is done, how fast it goes and how long it will take; use as a context manager."""

    def __init__(self, title: str, unit: str, total: int, *, first: int = 0, shown: bool) -> None:
        """Start counting.

        Args:
            title: what is being done.
            unit: what is counted, in the plural.
            total: how many of them.
            first: how many were done before.
            shown: False on every rank but one.
        """
        self._title, self._unit, self._first, self._total, self._shown = title, unit, first, total, shown
        self._started = self._last = time.perf_counter()
        self._bar = None
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, completed=first, state="")

    def __enter__(self) -> Progress:
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

    def conclude(self) -> None:
        """Show that all is done and write how long it took."""
        if self._bar:
            self._bar.update(self._task, completed=self._total, state="")
        if self._shown:
            done, seconds = self._total - self._first, max(time.perf_counter() - self._started, 1e-9)
            speed = f"{done / seconds:.0f} {self._unit}/s"
            _log.info("%s: %d %s in %.1f s, %s", self._title, done, self._unit, seconds, speed)

    def due(self) -> bool:
        """Whether it is time to `show` something again: what is costly to know is found out only then."""
        waited = time.perf_counter() - self._last
        return self._shown and waited > (_BAR_EVERY if self._bar else _LOG_EVERY)

    def show(self, done: int, note: str = "") -> None:
        """Update the bar, or write a line, if it is `due`.

        Args:
            done: how many are done, those before this run included.
            note: what else there is to say.
        """
        if not self.due():
            return
        self._last = time.perf_counter()
        speed = (done - self._first) / max(self._last - self._started, 1e-9)
        state = f"{speed:.{0 if speed > 20 else 1}f} {self._unit}/s" + (f", {note}" if note else "")
        if self._bar:
            self._bar.update(self._task, completed=done, state=state)
        elif done < self._total:
            left = (self._total - done) / max(speed, 1e-9)
            _log.info("%s: %d of %d, %s, %.0f s left", self._title, done, self._total, state, left)
