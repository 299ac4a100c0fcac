"""Which processor this process computes on.

A process (an MPI rank) owns one GPU: number `local_rank` modulo the number of GPUs it sees, so that
CUDA_VISIBLE_DEVICES and a scheduler's binding are respected. There is no silent fallback: `cuda` without a GPU
is an error, and `auto` logs what it took. This module is the only door to CuPy.
"""

from __future__ import annotations

import importlib
import logging
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Device", "require_cupy", "select_device"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A processor, as it was when it was selected."""

    kind: Literal["cpu", "cuda"]
    index: int
    """Number of the GPU among those that this process sees; 0 on the CPU."""
    name: str
    free_bytes: int
    """Memory that was free [bytes]."""
    compute_capability: str | None
    """Of a GPU, such as "9.0"."""

    @property
    def xp(self) -> Any:
        """The array namespace that computes here: `numpy` or `cupy`."""
        return np if self.kind == "cpu" else require_cupy()

    def use(self) -> None:
        """Make a GPU the current one of the calling thread; CuPy keeps one for each thread."""
        if self.kind == "cuda":
            require_cupy().cuda.Device(self.index).use()

    def to_host(self, array: Any) -> np.ndarray:
        """An array of this device as a NumPy array; waits until it is computed."""
        return np.asarray(array) if self.kind == "cpu" else require_cupy().asnumpy(array)

    def __str__(self) -> str:
        if self.kind == "cpu":
            return f"CPU ({self.name})"
        return (
            f"GPU {self.index} ({self.name}, compute capability {self.compute_capability}, "
            f"{self.free_bytes / 2**30:.1f} GiB free)"
        )


def require_cupy() -> Any:
    """The module `cupy`.

    Raises:
        ValueError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ValueError(
            f"a GPU is used through CuPy, which cannot be imported ({error}); install debye-dots[cuda12] or "
            "debye-dots[cuda13] (12 or 13: the CUDA version that nvidia-smi shows), or choose device=cpu"
        ) from None


def select_device(request: str, *, local_rank: int = 0) -> Device:
    """The device that this process owns; a GPU becomes the current one of the calling thread.

    Args:
        request: "cpu", "cuda" (an error without a GPU), or "auto" (a GPU if there is one). What was taken is
            logged, and for "auto" also why.
        local_rank: number of this process among those on the same node.

    Raises:
        ValueError: unknown request, or "cuda" where no GPU can be used.
    """
    if request not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {request!r}")
    if request == "cpu":
        return _cpu()
    try:
        device = _gpu(local_rank)
    except ValueError as problem:
        if request == "cuda":
            raise ValueError(f"device=cuda: {problem}") from None
        device = _cpu()
        _log.info("device=auto took the %s: %s", device, problem)
    else:
        _log.info("device=%s took %s", request, device)
    return device


def _cpu() -> Device:
    cores = len(os.sched_getaffinity(0))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = f"{cores} core{'s' if cores > 1 else ''}"
    return Device(kind="cpu", index=0, name=name, free_bytes=free, compute_capability=None)


def _gpu(local_rank: int) -> Device:
    cupy = require_cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        problem = f"CuPy {cupy.__version__} finds no usable GPU ({error})"
        raise ValueError(f"{problem}; run on a GPU node or choose device=cpu") from None
    if count == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = "no GPU is visible" + ("" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})")
        raise ValueError(f"{reason}; run on a GPU node or choose device=cpu")
    index = local_rank % count
    gpu = cupy.cuda.Device(index)
    gpu.use()
    return Device(
        kind="cuda",
        index=index,
        name=cupy.cuda.runtime.getDeviceProperties(index)["name"].decode(),
        free_bytes=int(gpu.mem_info[0]),
        compute_capability=f"{gpu.compute_capability[:-1]}.{gpu.compute_capability[-1]}",
    )
