"""Off-lattice particles on CPU cores: all N² pair distances -> moments -> node weights -> partial sums.

The distances of a strip of atoms to one atom are computed first (vectorised), then their powers are added to the
moments of their bins (scattered): `hpc.pairs.moments` says why four moments are enough and what error that leaves.
Memory is a histogram for each thread and the weights; it does not grow with the number of pairs.

Bits. The work is cut into strips by the numbers of sites alone. Each strip's weights are split into a coarse and a fine
part, multiples of two powers of two that are so large that float64 adds them without rounding, in any order, and
together so fine that nothing is lost. Hence the result does not depend on threads, nor on how many processes share the
strips (`pair_weight_shares`).

Symbols: r distance, h bin width [Å]; t offset from the middle of a bin in units of h.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

from hpc.memory import require_memory
from hpc.pairs.moments import MOMENTS, NODES, Bins, choose_bins
from hpc.structure.material import kind_pairs
from hpc.transform import partial_sums

if TYPE_CHECKING:
    from hpc.device import Device
    from hpc.mpi import World

__all__ = [
    "add_to_moments",
    "add_to_weights",
    "default_threads",
    "make_scratch",
    "memory_needed",
    "pair_extent",
    "pair_weight_shares",
    "pair_weights",
    "partial_sums_of_positions",
    "transform_weights",
    "weights_of_positions",
    "zero_moments",
]

# Sites whose distances to one site are computed at once; with their buffers they stay in the first-level cache,
_STRIP = 256
# and serve this many first sites in turn.
_BLOCK = 64
# Sites are sorted into cubes of this edge [Å]: the distances of a strip then meet few bins, which matters where the
# histogram outgrows the second-level cache (1e6 atoms: 2.2 ns for a pair; 2.5 in the order of a lattice, 3.4 in none).
_CUBE = 20.0
# Pairs of one task: milliseconds, so that threads and ranks end together.
_VISITS = 10_000_000
# Sites closer than this [Å] are one site twice.
_SAME_SITE = 1e-3
# Of the sine transform, at most (arrays of `hpc.transform._TABLE` numbers, seven of them alive together).
_TRANSFORM_BYTES = 7 * 8 * 2**22


def _vector_addition(typing_context, moments, bin_, t, weight):  # type: ignore[no-untyped-def]
    """moments[bin_] += weight · (1, t, t², t³), as one addition of a vector.

    The compiler makes four additions of a loop over four numbers, which takes a quarter longer in all (measured).
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        table, index, offset, factor = arguments
        vector = ir.VectorType(ir.DoubleType(), MOMENTS)
        mask = ir.VectorType(ir.IntType(1), MOMENTS)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), MOMENTS), [0] * MOMENTS)

        def everywhere(number):  # type: ignore[no-untyped-def]
            undefined = ir.Constant(vector, ir.Undefined)
            single = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(single, undefined, lanes)

        power, values = everywhere(offset), everywhere(factor)
        # By binary digits of the exponent: t in the odd lanes, then t² in the upper half.
        for digit in (1, 2):
            lanes_with = ir.Constant(mask, [bool(m & digit) for m in range(MOMENTS)])
            values = builder.select(lanes_with, builder.fmul(values, power), values)
            power = builder.fmul(power, power)
        index = context.cast(builder, index, signature.args[1], types.intp)
        data = context.make_array(signature.args[0])(context, builder, table).data
        first = builder.gep(data, [builder.mul(index, ir.Constant(ir.IntType(64), MOMENTS))])
        place = builder.bitcast(first, vector.as_pointer())
        builder.store(builder.fadd(builder.load(place, align=8), values), place, align=8)
        return context.get_dummy_value()

    return types.void(moments, bin_, t, weight), generate


_add_powers: Any = intrinsic(_vector_addition)


@njit(cache=True)
def make_scratch():  # type: ignore[no-untyped-def]
    """Room for the offsets and bins of a strip of pairs."""
    return np.empty(_STRIP), np.empty(_STRIP, dtype=np.int32)


@njit(nogil=True, cache=True, boundscheck=False, fastmath={"contract"})
def add_to_moments(  # type: ignore[no-untyped-def]  # compiled: numba infers the types
    site, others, begin, end, weight, inverse_width, scratch, moments
):
    """Add the pairs of one site with others[:, begin:end] to the moments of their bins.

    Args:
        site: x, y, z [Å].
        others: (3, n) float64 [Å].
        begin: first of the others.
        end: past the last.
        weight: what each pair counts.
        inverse_width: 1/h [Å⁻¹].
        scratch: of `make_scratch`.
        moments: (bins, MOMENTS) float64, added to.

    Returns:
        Number of pairs at distance 0 (below 0.001 Å), which are not added: a site with itself, for example.
    """
    offset, bin_ = scratch
    here = 0
    for start in range(begin, end, len(bin_)):
        size = min(end - start, len(bin_))
        # Slices: an index that might be negative would make the compiler gather numbers one by one.
        x, y, z = (
            others[0, start : start + size],
            others[1, start : start + size],
            others[2, start : start + size],
        )
        shared = 0
        for j in range(size):
            dx, dy, dz = x[j] - site[0], y[j] - site[1], z[j] - site[2]
            square = dx * dx + dy * dy + dz * dz
            same = square < _SAME_SITE * _SAME_SITE
            shared += same
            scaled = np.sqrt(0.0 if same else square) * inverse_width
            b = np.int32(scaled)
            bin_[j] = b
            offset[j] = scaled - b - 0.5
        for j in range(size):
            _add_powers(moments, bin_[j], offset[j], weight)
        if shared:
            _add_powers(moments, 0, -0.5, -weight * shared)
            here += shared
    return here


@njit(nogil=True, cache=True, boundscheck=False, fastmath={"contract"})
def add_to_weights(moments, transfer, factor, weights):  # type: ignore[no-untyped-def]
    """Add factor · `Bins.node_weights(moments)` to the weights, on one core and without temporaries.

    Args:
        moments: (bins, MOMENTS) float64.
        transfer: (fine · MOMENTS, NODES) float64, `Bins.transfer`.
        factor: multiplies all.
        weights: (n_nodes,) float64, added to.
    """
    fine = len(transfer) // MOMENTS
    total = np.empty(NODES)
    for coarse in range(len(moments) // fine):
        total[:] = 0.0
        for b in range(fine):
            moment = moments[coarse * fine + b]
            if moment[0] != 0.0:
                for m in range(MOMENTS):
                    row = transfer[b * MOMENTS + m]
                    for n in range(NODES):
                        total[n] += moment[m] * row[n]
        for n in range(NODES):
            weights[coarse * NODES + n] += factor * total[n]


@njit(nogil=True, cache=True, boundscheck=False)
def _add_blocks(  # type: ignore[no-untyped-def]
    first, second, same, start, step, inverse_width, moments
):
    """Add the pairs of every `step`-th block of `first` with `second`, each pair once when they are the `same`."""
    scratch = make_scratch()
    n_first, n_second, shared = first.shape[1], second.shape[1], 0
    for block in range(start * _BLOCK, n_first, step * _BLOCK):
        for begin in range(block + 1 if same else 0, n_second, _STRIP):
            end = min(begin + _STRIP, n_second)
            for i in range(block, min(block + _BLOCK, n_first)):
                site = (first[0, i], first[1, i], first[2, i])
                low = max(begin, i + 1) if same else begin
                shared += add_to_moments(site, second, low, end, 1.0, inverse_width, scratch, moments)
    return shared


def zero_moments(bins: Bins) -> np.ndarray:
    """(count, MOMENTS) float64 zeros, in which no bin crosses a line of the cache (64 bytes)."""
    room = np.zeros(bins.count * MOMENTS + 8)
    start = -(room.ctypes.data // 8) % 8
    return room[start : start + bins.count * MOMENTS].reshape(bins.count, MOMENTS)


def pair_extent(positions: Sequence[np.ndarray]) -> float:
    """A distance [Å] that no two sites of a particle exceed.

    Args:
        positions: for each kind, (n, 3) float64 [Å].

    Raises:
        ValueError: no sites, a wrong shape, or positions that are not finite.
    """
    shapes = [np.shape(one) for one in positions]
    if any(len(shape) != 2 or shape[1] != 3 for shape in shapes):
        raise ValueError(f"positions must be one (n, 3) array for each kind, got shapes {shapes}")
    if not any(shape[0] for shape in shapes):
        raise ValueError("a particle needs at least one site, got none")
    occupied = [one for one in positions if len(one)]
    low = np.min([one.min(axis=0) for one in occupied], axis=0)
    high = np.max([one.max(axis=0) for one in occupied], axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("positions must be finite, got NaN or infinity")

    def across(middle: np.ndarray) -> float:
        return 2 * max(float(np.sqrt(((one - middle) ** 2).sum(axis=1).max())) for one in occupied)

    # The last for particles that are given about the centre that they were cut around.
    return min(float(np.linalg.norm(high - low)), across((low + high) / 2), across(np.zeros(3)))


def default_threads(threads: int | None) -> int:
    """All cores that this process may use, if not said otherwise."""
    return threads or len(os.sched_getaffinity(0))


def memory_needed(
    positions: Sequence[np.ndarray], bins: Bins, n_q: int, *, threads: int | None = None
) -> int:
    """Memory that `pair_weights` and the transform to n_q points take beyond the positions themselves [bytes]."""
    n, rows = sum(len(one) for one in positions), len(kind_pairs(len(positions)))
    # Positions by axis, and a temporary of as much for the extent or the order.
    particle = 2 * 24 * n
    histograms = default_threads(threads) * (8 * MOMENTS * bins.count + 5 * 8 * bins.n_nodes)
    weights = 3 * 8 * rows * bins.n_nodes
    # A uniform grid takes less: a few arrays of 2√n_q sines for each node.
    transform = min(_TRANSFORM_BYTES, 40 * bins.n_nodes * n_q) + 3 * 8 * rows * n_q
    return particle + histograms + weights + transform


def _quanta(n: int) -> tuple[float, float]:
    """Powers of two whose multiples float64 adds exactly, for the weights of n sites and for what rounding them leaves.

    Sums of weights stay below 8 times the number of pairs (interpolation has either sign, and adds up in absolute value
    to a few times the pairs); the remainders are below half of the first quantum in each of less than 2¹⁹ strips.
    """
    coarse = 2.0 ** (math.ceil(math.log2(max(2, 8 * n * n))) - 53)
    return coarse, coarse * 2.0**-34


def pair_weights(
    positions: Sequence[np.ndarray],
    bins: Bins,
    *,
    threads: int | None = None,
    device: Device | None = None,
    world: World | None = None,
) -> np.ndarray:
    """Ordered pairs i ≠ j of a particle, as weights of the nodes of its bins.

    Args:
        positions: for each kind, (n, 3) float64 [Å]; n may be 0.
        bins: of distances; they must reach as far as `pair_extent`.
        threads: cores to use; all that this process may use when None. The result does not depend on it.
        device: where to count; the CPU when None. A GPU keeps tolerances down to `hpc.cuda.pairs.check_tolerance`.
        world: ranks that share the pairs, each with the same arguments; the result does not depend on their number.

    Returns:
        (pair, n_nodes) float64. `pair` runs over `kind_pairs`; a pair of two kinds holds both orders, so that the sum
        over everything is N(N-1).

    Raises:
        ValueError: bad positions, two sites at one position, bins that end too early, or too little memory.
    """
    part = (0, 1) if world is None else (world.rank, world.size)
    if device is not None and device.kind == "cuda":
        from hpc.cuda.pairs import pair_moments_cuda, require_every_pair

        moments = pair_moments_cuda(positions, bins, device, part=part)
        if world is not None:
            world.sum_in_place(moments)
            require_every_pair(moments, [len(one) for one in positions], bins)
        return bins.node_weights(moments)
    shares = pair_weight_shares(positions, bins, threads=threads, part=part)
    if world is not None:
        world.sum_in_place(shares)
    return shares.sum(axis=0)


def pair_weight_shares(
    positions: Sequence[np.ndarray],
    bins: Bins,
    *,
    threads: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> np.ndarray:
    """One process' share of `pair_weights`: add those of all processes, then sum over the first axis.

    Args:
        positions: as for `pair_weights`.
        bins: the same.
        threads: the same.
        part: (i, n), the i-th of n shares of about equal cost. Their sum has the same bits for any n.

    Returns:
        (2, pair, n_nodes) float64, the coarse and the fine part.

    Raises:
        ValueError: as for `pair_weights`.
    """
    extent = pair_extent(positions)
    if extent >= bins.extent:
        raise ValueError(
            f"the bins reach to {bins.extent:g} Å, but sites may be {extent:g} Å apart; choose bins for that extent"
        )
    require_memory(memory_needed(positions, bins, 0, threads=threads), "the pair histogram")
    axes = [
        np.ascontiguousarray(one[np.lexsort(np.floor(one / _CUBE).T)].T, dtype=np.float64)
        for one in positions
    ]
    tasks = []
    for row, (a, b) in enumerate(kind_pairs(len(axes))):
        sizes = axes[a].shape[1], axes[b].shape[1]
        visits = sizes[0] * sizes[1] // (2 if a == b else 1)
        strips = min(-(-visits // _VISITS), -(-sizes[0] // _BLOCK))
        tasks += [(row, a, b, strip, strips) for strip in range(strips)]

    total = np.zeros((2, len(kind_pairs(len(axes))), bins.n_nodes))
    quanta, lock = _quanta(sum(one.shape[1] for one in axes)), Lock()

    def count(task: tuple[int, int, int, int, int]) -> int:
        row, a, b, strip, strips = task
        moments, weights = zero_moments(bins), np.zeros(bins.n_nodes)
        shared = _add_blocks(axes[a], axes[b], a == b, strip, strips, 1 / bins.width, moments)
        # Both orders.
        add_to_weights(moments, bins.transfer, 2.0, weights)
        coarse = np.rint(weights / quanta[0]) * quanta[0]
        fine = np.rint((weights - coarse) / quanta[1]) * quanta[1]
        with lock:
            total[0, row] += coarse
            total[1, row] += fine
        return shared

    with ThreadPoolExecutor(default_threads(threads)) as pool:
        shared = sum(pool.map(count, tasks[part[0] :: part[1]]))
    if shared:
        raise ValueError(
            f"two sites lie on top of each other (distance 0, {shared} pairs below {_SAME_SITE:g} Å); "
            "remove the duplicates from the structure"
        )
    return total


def weights_of_positions(
    positions: Sequence[np.ndarray],
    q: np.ndarray,
    *,
    tolerance: float = 1e-6,
    width: float | None = None,
    threads: int | None = None,
    device: Device | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a particle given by the positions of its sites, on the nodes of bins that suit q.

    Args:
        positions: for each kind, (n, 3) float64 [Å]; n may be 0.
        q: (q,) float64 [Å⁻¹] for which the pairs will be transformed.
        tolerance: error of I(Q) asked for, relative to I(Q); see `hpc.pairs.moments.choose_bins`.
        width: of the bins [Å], when it is not to follow from the tolerance.
        threads: CPU cores to use; all when None.
        device: where to count the pairs; the CPU when None.

    Returns:
        (pair, n) float64 ordered pairs i ≠ j, in the order of `kind_pairs`, at (n,) float64 distances [Å].

    Raises:
        ValueError: bad positions, two sites at one position, a width too coarse for the tolerance, a tolerance that
            the device cannot keep, or too little memory.
    """
    q_max = float(np.abs(q).max(initial=0.0))
    bins = choose_bins(pair_extent(positions), q_max=q_max, tolerance=tolerance, width=width)
    require_memory(memory_needed(positions, bins, len(q), threads=threads), "this particle")
    if device is not None and device.kind == "cuda":
        from hpc.cuda.pairs import check_tolerance

        check_tolerance(tolerance)
    return pair_weights(positions, bins, threads=threads, device=device), bins.nodes


def partial_sums_of_positions(positions: Sequence[np.ndarray], q: np.ndarray, **engine: Any) -> np.ndarray:
    """P_ab(Q) of a particle given by the positions of its sites.

    Args:
        positions: for each kind, (n, 3) float64 [Å]; n may be 0.
        q: (q,) float64 [Å⁻¹]. At 0 the limit: the number of pairs.
        **engine: tolerance, width, threads, device of `weights_of_positions`.

    Returns:
        (pair, q) float64, in the order of `kind_pairs`, ordered pairs i ≠ j.

    Raises:
        ValueError: as for `weights_of_positions`.
    """
    q = np.asarray(q, dtype=np.float64)
    return transform_weights(*weights_of_positions(positions, q, **engine), q)


def transform_weights(weights: np.ndarray, distance: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(pair, q) float64 partial sums of (pair, n) pairs at (n,) distances [Å], the same bits on any number of cores."""
    # One BLAS thread: it takes milliseconds, more would wait for each other, and add in another order.
    with threadpool_limits(limits=1, user_api="blas"):
        return partial_sums(weights, distance, q)
