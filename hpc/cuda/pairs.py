"""Off-lattice pair moments on a GPU: tiles of atoms, chunks of work, and the launch of `pairs.cu`.

The same moments as the CPU engine: power sums of t = r/h - bin - 1/2 over all pairs, in bins of width h
(`hpc.pairs.moments`). Atoms are sorted into compact *tiles*. A *chunk* is a run of consecutive pairs of tiles of one
pair of kinds, together with a window of bins that fits into the shared memory of a block; a block of the kernel
takes one chunk. Where the bins need several windows, each window has chunks of its own, and pairs of tiles that
cannot reach it are skipped by their boxes. Planning is plain NumPy and needs no GPU; CuPy is imported when a kernel
is launched.

Errors. Distances and powers of t are rounded to multiples of 2⁻²⁰ h and 2⁻²⁰. In a perfect crystal many pairs have
one distance and would all be rounded alike, which moves I(Q) by 3e-6 of itself in a sphere of 10 nm, and by more in
larger ones. So every atom is first displaced at random by up to 2⁻¹⁸ h (some 1e-8 Å; always the same for the same
list of atoms): roundings become independent of each other and average out, to 2e-8 of I(Q) at any size. The root of
the kernel adds 2e-8 at 30 nm, less below. Tests assert 2e-8 for a small perfect particle.

Sums are integers: the result has the same bits in any two runs. They are multiples of 2⁻²⁰, which float64 adds without
rounding while a bin has fewer than 2³³ pairs: parts may be added in any order.

Several GPUs: rank i of n takes `part=(i, n)`, the i-th of n equal runs of the pairs of tiles of every pair of kinds and
every window, whatever its GPU; the sum of all parts is the whole, bit for bit.

Limits, all checked: 2²⁰ bins, 2⁴¹ pairs (2 million atoms), 46 000 tiles (5.9 million atoms) of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.device import Device, require_cupy
from hpc.structure.material import kind_pairs

if TYPE_CHECKING:
    from hpc.pairs.moments import Bins

__all__ = [
    "CHUNK",
    "MACROS",
    "SMALLEST_TOLERANCE",
    "PairPlan",
    "check_tolerance",
    "kernel_source",
    "moments_of_sums",
    "pair_moments_cuda",
    "plan_pairs",
    "prepare_launch",
    "require_every_pair",
]

#: A run of pairs of tiles, `struct Chunk` of pairs.cu.
CHUNK = np.dtype(
    [
        ("tile_a", np.int32),
        ("tiles_a", np.int32),
        ("tile_b", np.int32),
        ("row", np.int32),
        ("first_bin", np.int32),
        ("end_bin", np.int32),
        ("begin", np.uint32),
        ("end", np.uint32),
    ]
)
#: Error relative to I(Q) that the kernel can keep; for less, use the CPU engine.
SMALLEST_TOLERANCE = 1e-7
#: What pairs.cu is compiled with. The benchmarks vary it; `hpc.pairs.moments` has 4 moments.
MACROS: Mapping[str, int] = MappingProxyType(
    {"MOMENTS": 4, "TILE": 128, "THREADS": 1024, "FRACTION_BITS": 20}
)

# Chunks for each multiprocessor, if that leaves each enough to do: none waits long for the last one,
_CHUNKS_PER_MULTIPROCESSOR = 16
# and at least so many visits for each bin of a window, which are cleared and written out for each chunk.
_VISITS_PER_BIN = 64
# Bits for the carries of the sum of t in shared memory, by the number of moments; see pairs.cu.
_CARRY_BITS = {4: 12, 6: 8}
# Pairs of tiles are numbered in 32 bits, in slices of 32 atoms of the first tile.
_SLICE, _MAX_SLICES = 32, 2**32
# Distances in bins, exact enough in the float32 of boxes(), and below what fills up the last tile of a kind.
_MAX_BINS = 2**20
_FAR_AWAY = 2.0**22
# Σ t^m of so many pairs in one bin, in fixed point, stays below 2^63; on the way there, sums may wrap around 2^64.
_MAX_PAIRS = 2**41
# Coordinates are multiples of this, in bins: a distance is 0 or lies far within the exponents of float32.
_GRAIN = 2.0**-30
# Atoms are displaced by up to so many units of the fixed point of distances, so that these are rounded independently.
_DITHER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlan:
    """Everything a launch needs, as NumPy arrays in the kernel's layout."""

    atoms: np.ndarray
    """(tile · TILE, 4) float64: x, y, z [bin widths], 0."""
    boxes: np.ndarray
    """(tile, 6) float32: centre and half the edges of the atoms of a tile [bin widths]."""
    chunks: np.ndarray
    """(chunk,) CHUNK."""
    window: int
    """Bins of a block's histogram."""
    shape: tuple[int, int, int]
    """(pair of kinds, moment, bin) of the sums."""
    macros: Mapping[str, int]
    """What the kernel is compiled with."""

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of one block [bytes]."""
        return 4 * (_words(self.macros) * self.window + 1)

    @property
    def device_bytes(self) -> int:
        """Memory of the GPU that inputs and sums take [bytes]: 33 for an atom, 32 for a bin and pair of kinds."""
        return self.atoms.nbytes + self.boxes.nbytes + self.chunks.nbytes + 8 * int(np.prod(self.shape))


def _words(macros: Mapping[str, int]) -> int:
    """32-bit words of a bin in shared memory: its count, the low words of its sums, their carries."""
    return macros["MOMENTS"] + 1


def _max_tile_pairs(macros: Mapping[str, int]) -> int:
    """Pairs of tiles of a chunk, so that the carries of a bin fit."""
    visits = 2 ** (32 + _CARRY_BITS[macros["MOMENTS"]] - macros["FRACTION_BITS"]) - 1
    if visits < macros["TILE"] ** 2:
        raise ValueError(f"tiles of {macros['TILE']} atoms are too large for {visits} pairs in a chunk")
    return visits // macros["TILE"] ** 2


def plan_pairs(
    positions: Sequence[np.ndarray],
    bins: Bins,
    *,
    shared_limit: int,
    multiprocessors: int,
    part: tuple[int, int] = (0, 1),
    chunks_per_multiprocessor: int = _CHUNKS_PER_MULTIPROCESSOR,
    macros: Mapping[str, int] = MACROS,
) -> PairPlan:
    """Sort atoms into tiles, and cut the pairs of tiles into chunks.

    Args:
        positions: (n, 3) float64 [Å] of each kind; n may be 0.
        bins: the bins of distances.
        shared_limit: shared memory that one block may use [bytes].
        multiprocessors: of the GPU.
        part: (i, n), the i-th of n equal shares of the pairs.
        chunks_per_multiprocessor: more balance better, and cost more.
        macros: what the kernel is compiled with.

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(positions, bins, part)
    tile = macros["TILE"]
    sizes = [len(of_kind) for of_kind in positions]
    tiles = [-(-n // tile) for n in sizes]
    first = np.concatenate(([0], np.cumsum(tiles)))[:-1]
    runs = []
    for row, (a, b) in enumerate(kind_pairs(len(sizes))):
        # One kind: each tile with itself and the next half of the others, see tile_pair() of pairs.cu.
        pairs_of_tiles = tiles[a] * (tiles[a] // 2 + 1 if a == b else tiles[b])
        if pairs_of_tiles * (tile // _SLICE) >= _MAX_SLICES:
            raise ValueError(
                f"the CUDA kernel takes less than {_MAX_SLICES * _SLICE // tile} pairs of tiles, got "
                f"{pairs_of_tiles}; choose a smaller particle"
            )
        index, of = part
        begin, end = (pairs_of_tiles * i // of for i in (index, index + 1))
        runs.append((row, a, b, begin, end))

    most = (shared_limit - 4) // (4 * _words(macros))
    if most < 1:
        raise ValueError(f"shared_limit must be at least {4 + 4 * _words(macros)} bytes, got {shared_limit}")
    n_windows = -(-bins.count // most)
    window = -(-bins.count // n_windows)

    visits = n_windows * tile**2 * sum(end - begin for *_, begin, end in runs)
    visits_per_chunk = max(visits // (multiprocessors * chunks_per_multiprocessor), _VISITS_PER_BIN * window)
    tile_pairs_per_chunk = min(max(1, visits_per_chunk // tile**2), _max_tile_pairs(macros))
    chunks = [np.empty(0, dtype=CHUNK)]
    for row, a, b, begin, end in runs:
        n_chunks = -(-(end - begin) // tile_pairs_per_chunk)
        edges = begin + (end - begin) * np.arange(n_chunks + 1) // max(n_chunks, 1)
        for first_bin in range(0, bins.count, window):
            chunk = np.zeros(n_chunks, dtype=CHUNK)
            chunk["tile_a"], chunk["tiles_a"], chunk["tile_b"] = first[a], tiles[a], first[b]
            chunk["row"] = row
            chunk["first_bin"], chunk["end_bin"] = first_bin, min(first_bin + window, bins.count)
            chunk["begin"], chunk["end"] = edges[:-1], edges[1:]
            chunks.append(chunk)

    atoms = _tiles(positions, bins.width, macros)
    return PairPlan(
        atoms=atoms,
        boxes=_boxes(atoms.reshape(-1, tile, 4)),
        chunks=np.concatenate(chunks),
        window=window,
        shape=(len(runs), macros["MOMENTS"], bins.count),
        macros=macros,
    )


def _check(positions: Sequence[np.ndarray], bins: Bins, part: tuple[int, int]) -> None:
    if not positions or any(np.ndim(of_kind) != 2 or of_kind.shape[1] != 3 for of_kind in positions):
        raise ValueError(
            "positions must be one (n, 3) array for each kind, got shapes "
            f"{[np.shape(of_kind) for of_kind in positions]}"
        )
    if not all(np.isfinite(of_kind).all() for of_kind in positions):
        raise ValueError("positions must be finite, got NaN or infinity")
    n_atoms = sum(map(len, positions))
    if n_atoms * (n_atoms - 1) // 2 >= _MAX_PAIRS:
        raise ValueError(f"the CUDA kernel sums up to 2^41 pairs (2 million atoms), got {n_atoms} atoms")
    occupied = [of_kind for of_kind in positions if len(of_kind)]
    extent = np.ptp(np.concatenate(occupied), axis=0).max() / bins.width if occupied else 0.0
    if max(bins.count, extent) >= _MAX_BINS:
        raise ValueError(
            f"the CUDA kernel takes distances below 2^20 bins, got {bins.count} bins and a particle that "
            f"measures {extent:.4g}; choose wider bins or a smaller particle"
        )
    index, of = part
    if not 0 <= index < of:
        raise ValueError(f"part must be (i, n) with 0 <= i < n, got {part}")


def _tiles(positions: Sequence[np.ndarray], width: float, macros: Mapping[str, int]) -> np.ndarray:
    """(tile · TILE, 4) float64 [bin widths]: neighbours together, the last tile of each kind filled up far away."""
    occupied = [of_kind for of_kind in positions if len(of_kind)]
    if not occupied:
        return np.empty((0, 4))
    everything = np.concatenate(occupied)
    middle = (everything.min(axis=0) + everything.max(axis=0)) / 2
    amplitude = _DITHER * 2.0 ** -macros["FRACTION_BITS"]
    rng = np.random.default_rng(0)
    parts = []
    for of_kind in occupied:
        scaled = (of_kind - middle) / width + rng.uniform(-amplitude, amplitude, of_kind.shape)
        scaled = np.rint(scaled / _GRAIN) * _GRAIN
        atoms = np.zeros((-(-len(scaled) // macros["TILE"]) * macros["TILE"], 4))
        atoms[:, :3] = _FAR_AWAY
        atoms[: len(scaled), :3] = scaled[_order(scaled, macros["TILE"])]
        parts.append(atoms)
    return np.concatenate(parts)


def _order(position: np.ndarray, tile: int) -> np.ndarray:
    """(n,) order in which runs of `tile` atoms are compact: slabs in x, columns of a slab in y, tiles of a column in z.

    S. T. Leutenegger, M. A. Lopez, J. Edgington: STR, Proc. 13th Int. Conf. Data Engineering (1997) 497.
    """
    n = np.arange(len(position))
    column = max(1, round((len(position) / tile) ** (1 / 3))) * tile
    slab = column * (column // tile)
    order = np.argsort(position[:, 0], kind="stable")
    order = order[np.lexsort((position[order, 1], n // slab))]
    # Slabs are whole columns long, so that columns do not cross them.
    return order[np.lexsort((position[order, 2], n // column))]


def _boxes(atoms: np.ndarray) -> np.ndarray:
    """(tile, 6) float32 boxes of (tile, TILE, 4) atoms, without those that fill up a tile."""
    position = atoms[:, :, :3]
    far = position[:, :, :1] == _FAR_AWAY
    low = position.min(axis=1)
    high = np.where(far, -_FAR_AWAY, position).max(axis=1)
    return np.concatenate(((low + high) / 2, (high - low) / 2), axis=1).astype(np.float32)


def kernel_source() -> str:
    """The text of pairs.cu."""
    return (files("hpc.cuda") / "pairs.cu").read_text()


@cache
def _kernel(macros: tuple[tuple[str, int], ...]) -> Any:
    # Without subnormal float32: their treatment costs instructions, and none occur.
    options = ("--std=c++17", "--ftz=true", *(f"-D{name}={value}" for name, value in macros))
    return require_cupy().RawKernel(kernel_source(), "add_pair_moments", options=options)


def prepare_launch(plan: PairPlan, device: Device) -> Callable[[Any], None]:
    """Copy a plan to a GPU.

    Returns:
        A function that launches the kernel: it adds the pairs to an array of shape `plan.shape`, a uint64 CuPy array
        on `device`, and does not wait for the result.
    """
    cupy = require_cupy()
    with cupy.cuda.Device(device.index):
        chunks = plan.chunks.view(np.int32)
        inputs = tuple(cupy.asarray(array) for array in (plan.atoms, plan.boxes, chunks))
        sizes = np.int32(plan.window), np.int32(plan.shape[2])
        kernel = _kernel(tuple(plan.macros.items()))

    def launch(sums: Any) -> None:
        if not len(plan.chunks):
            return
        with cupy.cuda.Device(device.index):
            kernel.max_dynamic_shared_size_bytes = plan.shared_bytes
            grid, block = (len(plan.chunks),), (plan.macros["THREADS"],)
            kernel(grid, block, (*inputs, *sizes, sums), shared_mem=plan.shared_bytes)

    return launch


def moments_of_sums(sums: np.ndarray, *, fraction_bits: int = MACROS["FRACTION_BITS"]) -> np.ndarray:
    """The sums of the kernel as moments of ordered pairs.

    Args:
        sums: (pair, moment, bin) uint64, as described in pairs.cu.
        fraction_bits: FRACTION_BITS of the kernel.

    Returns:
        (pair, bin, moment) float64, Σ t^m over pairs in both orders.
    """
    n_moments = sums.shape[1]
    signed = sums.astype(np.int64)
    moments = np.empty((sums.shape[0], sums.shape[2], n_moments))
    for m in range(n_moments):
        lifted = signed[:, 0] << (fraction_bits - m) if m % 2 else 0
        moments[..., m] = (signed[:, m] - lifted) * 2.0 ** (1 - (fraction_bits if m else 0))
    return moments


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance of I(Q) that the kernel cannot keep.

    Raises:
        ValueError: it is below `SMALLEST_TOLERANCE`.
    """
    if tolerance < SMALLEST_TOLERANCE:
        raise ValueError(
            f"tolerance must be >= {SMALLEST_TOLERANCE:g} on a GPU, which counts distances in fixed point, "
            f"got {tolerance:g}; choose a larger one, or device=cpu"
        )


def require_every_pair(moments: np.ndarray, sizes: Sequence[int], bins: Bins) -> None:
    """Check that all pairs of a particle are in its moments: that none was farther than the bins reach, or lost.

    Args:
        moments: (pair, bin, moment) float64, of the whole or the sum of all parts.
        sizes: number of atoms of each kind.
        bins: the bins of distances.

    Raises:
        ValueError: pairs are missing.
    """
    found = moments[..., 0].sum(axis=1)
    expected = np.array(
        [sizes[a] * (sizes[a] - 1) if a == b else 2 * sizes[a] * sizes[b] for a, b in kind_pairs(len(sizes))]
    )
    if not np.array_equal(found, expected):
        raise ValueError(
            f"{(expected - found).sum():.0f} of {expected.sum()} pairs are not in the bins, which end at "
            f"{bins.width * bins.count:g} Å; choose bins for the largest distance of the particle"
        )


def pair_moments_cuda(
    positions: Sequence[np.ndarray], bins: Bins, device: Device, *, part: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """Moments of all pair distances of a particle, on a GPU.

    Args:
        positions: (n, 3) float64 [Å] of each kind.
        bins: the bins of distances.
        device: a GPU, from `hpc.device.select_device`.
        part: (i, n), the i-th of n equal shares of the pairs; the sum of all shares has the same bits for any n. The
            caller adds them, and should check the sum by `require_every_pair`.

    Returns:
        (pair, bin, 4) float64 NumPy array: Σ t^m over ordered pairs i ≠ j, pairs of kinds as by `kind_pairs`.

    Raises:
        ValueError: `device` is no GPU; positions are not finite; the particle exceeds the kernel's limits, or the bins.
        MemoryError: it does not fit into the memory of the GPU.
    """
    if device.kind != "cuda":
        raise ValueError(f"pair_moments_cuda needs a GPU, got {device}; use hpc.pairs.single on the CPU")
    cupy = require_cupy()
    with cupy.cuda.Device(device.index) as gpu:
        plan = plan_pairs(
            positions,
            bins,
            shared_limit=gpu.attributes["MaxSharedMemoryPerBlockOptin"],
            multiprocessors=gpu.attributes["MultiProcessorCount"],
            part=part,
        )
        sizes = [len(of_kind) for of_kind in positions]
        free = gpu.mem_info[0] + cupy.get_default_memory_pool().free_bytes()
        if plan.device_bytes > free:
            raise MemoryError(
                f"the pair moments of {sum(sizes)} atoms in {bins.count} bins need "
                f"{plan.device_bytes / 2**20:.1f} MiB, {device.name} has {free / 2**20:.1f} MiB free; "
                "free memory of the GPU or choose device=cpu"
            )
        sums = cupy.zeros(plan.shape, dtype=cupy.uint64)
        prepare_launch(plan, device)(sums)
        moments = moments_of_sums(device.to_host(sums))
    if part == (0, 1):
        require_every_pair(moments, sizes, bins)
    return moments
