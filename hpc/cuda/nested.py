"""The nested one-pass pair histogram on a GPU: the work list and the launch of `nested.cu`.

The same counts as `hpc.pairs.nested.count_pairs`, integer for integer. The pairs are cut into *items*: rectangles
of [representatives of one orbit size] × [sites of one kind] that belong to one row of the result and carry
one multiplier. A block of the kernel takes one item. Planning is plain NumPy and needs no GPU; CuPy is imported
when a kernel is launched.

Limit: |h_i - h_j|² < 2³¹ in the largest particle, hence |h| < 23171, which fits int16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.device import Device, require_cupy

if TYPE_CHECKING:
    from hpc.structure.lattice_sites import NestedSites

__all__ = ["ITEM", "WorkList", "count_pairs_cuda", "kernel_source", "plan_work", "prepare_launch"]

#: One rectangle of pairs, `struct Item` of nested.cu.
ITEM = np.dtype(
    [
        ("rep_begin", np.int32),
        ("rep_end", np.int32),
        ("site_begin", np.int32),
        ("site_end", np.int32),
        ("row", np.int32),
        ("multiplier", np.int32),
        ("first_class", np.int32),
        ("end_class", np.int32),
    ]
)

# slot() of nested.cu permutes bins within groups of this size, one for each bank of shared memory.
_BANKS = 32
# Items are split above this many visits: enough to keep 256 threads busy, few enough to balance the blocks,
_VISITS_PER_ITEM = 2**16
# but not below so many visits for each bin that the block clears and writes out (each costs about one visit).
_VISITS_PER_BIN = 32
# A bin holds at most the visits of one item and is 32 bits wide.
_MAX_VISITS_PER_ITEM = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkList:
    """Everything a launch needs, as NumPy arrays in the kernel's layout."""

    sites: np.ndarray
    """(site, 4) int16: x, y, z [grid units], 0."""
    representatives: np.ndarray
    """(rep, 4) int16, the same, sorted by shell, kind and orbit size."""
    items: np.ndarray
    """(item,) ITEM, most visits first."""
    window: int
    """Bins of a block's histogram, a multiple of 32."""
    shape: tuple[int, int, int]
    """(pair, shell, n_class) of the result."""
    visits: int
    """Pairs that are looked at if every row fits into one window."""

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of one block [bytes]."""
        return 4 * self.window

    @property
    def result_bytes(self) -> int:
        """Size of the counts [bytes]."""
        return 8 * int(np.prod(self.shape))


def plan_work(sites: NestedSites, *, shared_limit: int, visits_per_item: int | None = None) -> WorkList:
    """Cut the pairs of a nested family into items of about equal cost.

    Args:
        sites: the largest particle of the family.
        shared_limit: shared memory that one block may use [bytes]. Rows that do not fit are counted in
            windows of classes, each of which visits all pairs of the row.
        visits_per_item: items above this are split; a compromise of balance and overhead when None.

    Raises:
        ValueError: the particle is too large for the packed layout, or an argument is outside its range.
    """
    n_class = sites.n_class
    if n_class > 2**31 - 1:
        raise ValueError(
            "the CUDA kernel counts squared distances below 2^31 grid units, the largest particle has "
            f"{n_class - 1}; choose a smaller diameter or device=cpu"
        )
    window = min(-(-n_class // _BANKS), shared_limit // (4 * _BANKS)) * _BANKS
    if window == 0:
        raise ValueError(f"shared_limit must be at least {4 * _BANKS} bytes, got {shared_limit}")
    if visits_per_item is None:
        visits_per_item = max(_VISITS_PER_ITEM, _VISITS_PER_BIN * window)
    if not 0 < visits_per_item <= _MAX_VISITS_PER_ITEM:
        raise ValueError(f"visits_per_item must lie in [1, 2^31], got {visits_per_item}")

    order, rectangles = _rectangles(sites)
    items = _split(rectangles, visits_per_item, window)
    n_kind, n_shell = sites.offset.shape[0], len(sites.diameter)
    return WorkList(
        sites=_pack(sites.position),
        representatives=_pack(sites.position[sites.representative[order]]),
        items=items[np.argsort(-_visits(items), kind="stable")],
        window=window,
        shape=(n_kind * (n_kind + 1) // 2, n_shell, n_class),
        visits=int(_visits(rectangles).sum()),
    )


def _rectangles(sites: NestedSites) -> tuple[np.ndarray, np.ndarray]:
    """Order of the representatives (rep,) and the rectangles (rectangle,) ITEM that cover every pair."""
    n_kind, n_shell = sites.offset.shape[0], len(sites.diameter)
    order = np.lexsort((sites.weight, sites.rep_kind, sites.rep_shell))
    key = np.stack((sites.rep_shell, sites.rep_kind, sites.weight))[:, order]
    group_begin = np.flatnonzero(np.any(np.diff(key, axis=1, prepend=-1), axis=0))
    group_end = np.append(group_begin[1:], len(order))
    shell, kind, weight = key[:, group_begin]

    # |h_i - h_j| <= |h_i| + |h_j|: rows of small particles are short, and so is the work of writing them out.
    reach = np.zeros(n_shell, dtype=np.int64)
    norm = (sites.position[sites.representative].astype(np.int64) ** 2).sum(axis=1)
    np.maximum.at(reach, sites.rep_shell, norm)
    end_class = 4 * np.maximum.accumulate(reach)[shell] + 1

    rows, columns = np.triu_indices(n_kind)
    pair_of = np.zeros((n_kind, n_kind), dtype=np.int64)
    pair_of[rows, columns] = pair_of[columns, rows] = np.arange(len(rows))

    parts = []
    for other in range(n_kind):
        first, own, end = sites.offset[other, 0], sites.offset[other, shell], sites.offset[other, shell + 1]
        # Earlier shells are met once but count in both orders; the own shell is met from both sides.
        for begin, stop, multiplier in ((np.full_like(own, first), own, 2 * weight), (own, end, weight)):
            part = np.zeros(len(shell), dtype=ITEM)
            part["rep_begin"], part["rep_end"] = group_begin, group_end
            part["site_begin"], part["site_end"] = begin, stop
            part["row"] = pair_of[kind, other] * n_shell + shell
            part["multiplier"] = multiplier
            part["end_class"] = end_class
            parts.append(part[stop > begin])
    return order, np.concatenate(parts)


def _split(rectangles: np.ndarray, visits_per_item: int, window: int) -> np.ndarray:
    """Cut rectangles into slices of sites, so that none is expensive, and into windows of classes."""
    width = rectangles["site_end"] - rectangles["site_begin"]
    slices = np.clip(-(-_visits(rectangles) // visits_per_item), 1, width)
    items, index = _repeat(rectangles, slices)
    width, slices = (np.repeat(a, slices).astype(np.int64) for a in (width, slices))
    begin = items["site_begin"].copy()
    items["site_begin"] = begin + width * index // slices
    items["site_end"] = begin + width * (index + 1) // slices

    items, index = _repeat(items, -(-items["end_class"] // window))
    items["first_class"] = index * window
    items["end_class"] = np.minimum(items["end_class"], (index + 1) * window)
    return items


def _repeat(items: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each item `times` times, and the number of each copy, counted from 0 for each item."""
    last = np.cumsum(times)
    return np.repeat(items, times), np.arange(last[-1]) - np.repeat(last - times, times)


def _visits(items: np.ndarray) -> np.ndarray:
    """(item,) int64, pairs of each rectangle."""
    rep = items["rep_end"].astype(np.int64) - items["rep_begin"]
    return rep * (items["site_end"].astype(np.int64) - items["site_begin"])


def _pack(position: np.ndarray) -> np.ndarray:
    """(n, 3) -> (n, 4) int16: 8 bytes, one load of a thread."""
    packed = np.zeros((len(position), 4), dtype=np.int16)
    packed[:, :3] = position
    return packed


def kernel_source() -> str:
    """The text of nested.cu."""
    return (files("hpc.cuda") / "nested.cu").read_text()


@cache
def _kernel() -> Any:
    return require_cupy().RawKernel(kernel_source(), "count_nested_pairs", options=("--std=c++17",))


def _block_size(shared_bytes: int, shared_per_multiprocessor: int) -> int:
    """Threads of a block: as few as still fill a multiprocessor (2048 threads), at least 256."""
    blocks = shared_per_multiprocessor // (shared_bytes + 1024)  # 1 KiB of each block is the system's
    return 256 if blocks >= 8 else 512 if blocks >= 4 else 1024


def prepare_launch(work: WorkList, device: Device) -> Callable[[Any], None]:
    """Copy a work list to a GPU.

    Returns:
        A function that launches the kernel: it adds the pairs to an array of shape `work.shape`, a uint64 CuPy array
        on `device`, and does not wait for the result.
    """
    cupy = require_cupy()
    with cupy.cuda.Device(device.index) as gpu:
        threads = _block_size(work.shared_bytes, gpu.attributes["MaxSharedMemoryPerMultiprocessor"])
        inputs = (
            cupy.asarray(work.sites),
            cupy.asarray(work.representatives),
            cupy.asarray(work.items.view(np.int32)),
            np.int32(work.shape[2]),
        )
        kernel = _kernel()

    def launch(counts: Any) -> None:
        with cupy.cuda.Device(device.index):
            kernel.max_dynamic_shared_size_bytes = work.shared_bytes
            kernel((len(work.items),), (threads,), (*inputs, counts), shared_mem=work.shared_bytes)

    return launch


def count_pairs_cuda(sites: NestedSites, device: Device) -> Any:
    """Ordered pairs i ≠ j that enter with each shell, by kinds and squared distance, on a GPU.

    Args:
        sites: the largest particle of the family.
        device: a GPU, from `hpc.device.select_device`.

    Returns:
        (pair, shell, n_class) int64 CuPy array on `device`, ordered as by `hpc.pairs.nested.count_pairs`. The
        launch is asynchronous; `device.to_host` waits for it.

    Raises:
        ValueError: `device` is no GPU, or the particle is too large for the packed layout.
        MemoryError: the counts do not fit into the memory of the GPU.
    """
    if device.kind != "cuda":
        raise ValueError(
            f"count_pairs_cuda needs a GPU, got {device}; use hpc.pairs.nested.count_pairs on the CPU"
        )
    cupy = require_cupy()
    with cupy.cuda.Device(device.index) as gpu:
        work = plan_work(sites, shared_limit=gpu.attributes["MaxSharedMemoryPerBlockOptin"])
        free = gpu.mem_info[0] + cupy.get_default_memory_pool().free_bytes()
        if work.result_bytes > free:
            raise MemoryError(
                f"the pair counts of the largest particle need {work.result_bytes / 2**30:.2f} GiB, "
                f"{device.name} has {free / 2**30:.2f} GiB free; choose a smaller diameter or device=cpu"
            )
        counts = cupy.zeros(work.shape, dtype=cupy.uint64)
        prepare_launch(work, device)(counts)
        return counts.view(cupy.int64)
