"""One pass over the pairs of the largest particle -> node weights of every size, for sites at real positions.

The twin of `hpc.nested` for crystals without integer distance classes: deformed lattices, non-cubic cells, stacking
faults. A pair enters with the later of its two sites. Sites that exist with some probability (`Sites.group`) give
their pairs the probability that both are there; the sum is then the exact expectation. Pairs at distance 0 are two
kinds that share a position (a partly occupied skin) and do not count.

Distances go into moment bins (`hpc.moments`), row by row: the bins of one row stay in the second-level cache, and a
row is filled by one thread from beginning to end, so that its bits depend on nothing else.

Symbols: k row, r distance [Å], h width of a bin [Å], t offset from the middle of a bin in units of h.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

from hpc.material import kind_pairs
from hpc.moments import MOMENTS, Bins
from hpc.sites import Sites

__all__ = ["count_cut_pairs"]

# Pairs whose distances are computed at once (vectorised) before they are counted (scattered).
_STRIP = 256


@njit(nogil=True, cache=True, boundscheck=False)
def _add_pairs(  # type: ignore[no-untyped-def]  # compiled: numba infers the types
    xyz, group, weight, first, second, same, inverse_width, moments
):
    """Add the pairs of sites first[0]..first[1] with sites second[0]..second[1]; each once, i < j, when `same`."""
    bin_ = np.empty(_STRIP, dtype=np.int32)
    t1 = np.empty(_STRIP)
    t2 = np.empty(_STRIP)
    t3 = np.empty(_STRIP)
    certain = weight.shape[0] == 1
    for i in range(first[0], first[1]):
        x, y, z = xyz[0, i], xyz[1, i], xyz[2, i]
        row = weight[group[i]]
        begin = i + 1 if same else second[0]
        while begin < second[1]:
            size = min(second[1] - begin, _STRIP)
            for j in range(size):
                dx = xyz[0, begin + j] - x
                dy = xyz[1, begin + j] - y
                dz = xyz[2, begin + j] - z
                r = np.sqrt(dx * dx + dy * dy + dz * dz) * inverse_width
                bin_[j] = np.int32(r)
                t = r - np.int32(r) - 0.5
                t1[j] = t
                t2[j] = t * t
                t3[j] = t * t * t
            if certain:
                for j in range(size):
                    b = bin_[j]
                    moments[b, 0] += 1.0
                    moments[b, 1] += t1[j]
                    moments[b, 2] += t2[j]
                    moments[b, 3] += t3[j]
            else:
                for j in range(size):
                    w = row[group[begin + j]]
                    if w != 0.0:
                        b = bin_[j]
                        moments[b, 0] += w
                        moments[b, 1] += w * t1[j]
                        moments[b, 2] += w * t2[j]
                        moments[b, 3] += w * t3[j]
            begin += size


def count_cut_pairs(
    sites: Sites,
    rows: np.ndarray,
    bins: Bins,
    table: np.ndarray,
    *,
    strip: tuple[int, int] | None = None,
    threads: int = 1,
) -> None:
    """Add the ordered pairs i ≠ j that enter with each row.

    Args:
        sites: the largest particle.
        rows: (site,) int, the row with which each site enters; increasing within each kind, as `Sites` are sorted.
        bins: no distance lies beyond them.
        table: (pair, row, n_nodes) float64, to which the expected numbers of pairs on the nodes are added. `pair` runs
            over `kind_pairs`; a pair of two kinds holds both orders.
        strip: (start, stop) counts these rows alone; all when None. Rows do not share anything.
        threads: cores to use; the result does not depend on it.
    """
    n_kind = len(sites.kinds)
    start, stop = (0, table.shape[1]) if strip is None else strip
    xyz = np.ascontiguousarray(sites.position.T)
    group = np.ascontiguousarray(sites.group, dtype=np.int32)
    # Sites of kind a that enter before row k are offset[a, 0] : offset[a, k].
    of_kind = np.searchsorted(sites.kind, np.arange(n_kind + 1))
    offset = np.stack(
        [
            begin + np.searchsorted(rows[begin:end], np.arange(table.shape[1] + 1))
            for begin, end in itertools.pairwise(of_kind.tolist())
        ]
    )

    def count(k: int) -> None:
        for index, (a, b) in enumerate(kind_pairs(n_kind)):
            moments = np.zeros((bins.count, MOMENTS))

            def add(
                first: tuple[int, int],
                second: tuple[int, int],
                same: bool = False,
                moments: np.ndarray = moments,
            ) -> None:
                _add_pairs(xyz, group, sites.weight, first, second, same, 1 / bins.width, moments)

            now_a, now_b = (offset[a, k], offset[a, k + 1]), (offset[b, k], offset[b, k + 1])
            add(now_a, (offset[b, 0], offset[b, k]))
            if a == b:
                add(now_a, now_a, same=True)
            else:
                add(now_b, (offset[a, 0], offset[a, k]))
                add(now_a, now_b)
            # Shared positions; no two atoms come this close.
            moments[0] = 0.0
            table[index, k] += 2 * bins.node_weights(moments)

    # BLAS adds in another order with more threads. Late rows cost most: those first.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(count, range(stop - 1, start - 1, -1)):
            pass
