"""How much memory there is, and the refusal of what does not fit: before it is asked for, not by the system later."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory", "keep_freed_memory", "require_memory"]

# Numbers of mallopt, and what it is told: blocks of up to 32 MB (its largest) are taken from the heap, and the heap is
# not made smaller.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGEST_BLOCK, _NEVER = 32 * 2**20, 2**31 - 1


def available_memory() -> int:
    """Memory that this process may still take [bytes]: of the machine, or of its control group where that is less."""
    found = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:
        # Pages of files count as used there, but make room when asked for.
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        found = [1024 * int(line[1]) for line in lines if line[0] == "MemAvailable:"] or found
        group = Path("/sys/fs/cgroup")
        if (limit := (group / "memory.max").read_text().strip()) != "max":
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / "memory.current").read_text()) - int(statistics["inactive_file"])
            found.append(max(0, int(limit) - used))
    except (OSError, KeyError):
        pass  # not Linux, or without the second version of control groups: what is known by now
    return min(found)


def require_memory(
    needed: float,
    what: str,
    advice: str = "ask for a smaller Q, a larger tolerance, fewer kinds of atoms or fewer threads",
) -> None:
    """Refuse what this process has no room for.

    Raises:
        ValueError: `what` needs more bytes than there are; the message ends with the advice.
    """
    there = available_memory()
    if needed > there:
        raise ValueError(
            f"{what} needs {needed / 1e9:.3g} GB of memory, and {there / 1e9:.3g} GB are there; {advice}"
        )


def keep_freed_memory() -> bool:
    """Keep freed arrays for the next ones, instead of giving them back to the system.

    glibc gives back what is free at the end of its heap. Where arrays of a megabyte come and go, as in training on
    CPUs, the system then fills every page of each of them with zeros first, which is a fifth of the time.

    Returns:
        Whether the C library can be told.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(*pair) == 1 for pair in ((_MMAP_THRESHOLD, _LARGEST_BLOCK), (_TRIM_THRESHOLD, _NEVER))
    )
