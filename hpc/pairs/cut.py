"""One pass over the pairs of the largest particle -> node weights of every size, for sites at real positions.

The twin of `hpc.pairs.nested` for crystals without integer distance classes: deformed lattices, non-cubic cells,
stacking faults. A pair enters with the later of its two sites. Sites that exist with some probability
(`Sites.group`) give their pairs the probability that both are there; the sum is then the exact expectation. Pairs at
distance 0 are two kinds that share a position (a partly occupied skin) and do not count.

Sites are sorted by kind, group and row, so that those of one group which entered before a row are one *run*: it has
one probability, and runs that cannot be there together are skipped at once. The moments of a row are collected in
one histogram (`hpc.pairs.moments`), which stays in the second-level cache, and brought to the nodes when the row is
complete. A row is filled by one thread from beginning to end, so that its bits depend on nothing else.

Symbols: k row, h width of a bin [Å].
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from hpc.pairs.moments import Bins
from hpc.pairs.single import add_to_moments, add_to_weights, default_threads, make_scratch, zero_moments
from hpc.structure.material import kind_pairs

if TYPE_CHECKING:
    from hpc.structure.sites import Sites

__all__ = ["count_cut_pairs"]


@njit(nogil=True, cache=True, boundscheck=False)
def _add_row(  # type: ignore[no-untyped-def]  # compiled: numba infers the types
    axes, rows, runs, group, weight, first, second, k, share, inverse_width, moments
):
    """Add the pairs of sites of row k with those of earlier rows, and `share` of those with others of row k.

    `first` and `second` are the ranges of runs in which the two sites lie.
    """
    scratch = make_scratch()
    for run_i in range(first[0], first[1]):
        begin_i = runs[run_i] + np.searchsorted(rows[runs[run_i] : runs[run_i + 1]], k)
        end_i = runs[run_i] + np.searchsorted(rows[runs[run_i] : runs[run_i + 1]], k + 1)
        if begin_i == end_i:
            continue
        for run_j in range(second[0], second[1]):
            both = weight[group[run_i], group[run_j]]
            if both == 0.0:
                continue
            begin_j = runs[run_j]
            now_j = begin_j + np.searchsorted(rows[begin_j : runs[run_j + 1]], k)
            end_j = begin_j + np.searchsorted(rows[begin_j : runs[run_j + 1]], k + 1)
            for i in range(begin_i, end_i):
                site = (axes[0, i], axes[1, i], axes[2, i])
                add_to_moments(site, axes, begin_j, now_j, both, inverse_width, scratch, moments)
                if share != 0.0:
                    add_to_moments(site, axes, now_j, end_j, share * both, inverse_width, scratch, moments)


def count_cut_pairs(
    sites: Sites,
    rows: np.ndarray,
    bins: Bins,
    table: np.ndarray,
    *,
    strip: tuple[int, int] | None = None,
    threads: int | None = None,
) -> None:
    """Add the ordered pairs i ≠ j that enter with each row.

    Args:
        sites: the largest particle.
        rows: (site,) int, the row with which each site enters.
        bins: of distances; they must reach beyond twice the distance of the outermost site from the centre.
        table: (pair, row, n_nodes) float64, to which the expected numbers of pairs on the nodes are added. `pair` runs
            over `kind_pairs`; a pair of two kinds holds both orders.
        strip: (start, stop) counts these rows alone; all when None. Rows do not share anything.
        threads: cores to use; all when None. The result does not depend on it.

    Raises:
        ValueError: a table of another shape, rows outside it, or bins that end too early.
    """
    n_kind = len(sites.kinds)
    shape = (len(kind_pairs(n_kind)), table.shape[1], bins.n_nodes)
    if table.shape != shape:
        raise ValueError(f"the table must have the shape (pair, row, n_nodes) = {shape}, got {table.shape}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < shape[1]:
        raise ValueError(f"rows must lie in 0 to {shape[1] - 1}, got {rows.min()} to {rows.max()}")
    extent = 2 * float(np.sqrt((sites.position**2).sum(axis=1).max(initial=0.0)))
    if extent >= bins.extent:
        raise ValueError(
            f"the bins reach to {bins.extent:g} Å, but sites may be {extent:g} Å apart; choose bins for that extent"
        )

    order = np.lexsort((rows, sites.group, sites.kind))
    axes, sorted_rows = np.ascontiguousarray(sites.position[order].T, dtype=np.float64), rows[order]
    kind, group = sites.kind[order], sites.group[order]
    starts = np.flatnonzero(np.diff(kind, prepend=-1) | np.diff(group, prepend=-1))
    runs = np.append(starts, len(order))
    # Kind a has the runs of_kind[a] : of_kind[a + 1].
    of_kind = np.searchsorted(kind[starts], np.arange(n_kind + 1))

    def count(task: tuple[int, int, int, int]) -> None:
        k, index, a, b = task
        moments = zero_moments(bins)
        # Pairs within the row: of one kind they are met from both sides, of two kinds from the first.
        ways = ((a, b, 0.5),) if a == b else ((a, b, 1.0), (b, a, 0.0))
        for first, second, share in ways:
            _add_row(
                axes,
                sorted_rows,
                runs,
                group[starts],
                sites.weight,
                of_kind[first : first + 2],
                of_kind[second : second + 2],
                k,
                share,
                1 / bins.width,
                moments,
            )
        # Both orders.
        add_to_weights(moments, bins.transfer, 2.0, table[index, k])

    start, stop = (0, shape[1]) if strip is None else strip
    # Late rows cost most: those first.
    tasks = [
        (k, index, a, b)
        for k in range(stop - 1, start - 1, -1)
        for index, (a, b) in enumerate(kind_pairs(n_kind))
    ]
    with ThreadPoolExecutor(default_threads(threads)) as pool:
        for _ in pool.map(count, tasks):
            pass
