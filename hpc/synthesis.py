"""Basis -> patterns of the grid's samples.

    I(Q) = [Σ_a N̄_a S_a(Q) + Σ_ab C_ab(Q) P̄_ab(Q(1+ε))] / N̄,   X̄ = Σ_k w_k(D, σ) X_k

Three steps: size tables (weights times partial sums, a matrix product once for each (D, σ)); coefficients (form and
Debye-Waller factors) on the fine grid of the basis, where C(Q) meets P at Q(1+ε); and strain, the banded interpolation
of Σ_ab C_ab P̄_ab to the points of the patterns. Samples of one (ε, b_scale) share the last two, which is why strain is
the slowest axis of a cartesian grid. Where near neighbours move together, their few distances join before the third
step, with numbers of pairs averaged like the partial sums (`hpc.near_part`).

Work is cut into blocks of fixed size, each one task with a single BLAS thread: the bits of a pattern depend neither on
the number of cores nor on the number of ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpc.config import SimulateConfig
from hpc.ensemble import Resampler, number_weights
from hpc.form_factors import Q_MAX
from hpc.near_part import NearFamily
from hpc.pairs.nested import NestedFamily
from hpc.scattering import Coefficients, coefficients
from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN
from hpc.structure.material import Kind
from hpc.transform import sinc

__all__ = ["Basis", "Synthesis", "basis_partial"]

# Rows or points of a task on a CPU: enough for BLAS to reach its speed, few enough to share out among cores.
_ROWS = 64
_POINTS = 32
# Rows of a task on a GPU, which is filled by one.
_GPU_ROWS = 4096
# The size tables of all (D, σ) of a grid are kept when they fit into this many bytes, else only those of a shard.
_TABLE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Size-resolved partial sums: everything about the particles that does not depend on D, σ, ε, B or energy."""

    kinds: tuple[Kind, ...]
    diameter: np.ndarray
    """(k,) float64 [Å], where particle k begins."""
    n_atoms: np.ndarray
    """(k, kind) float64."""
    partial: np.ndarray
    """(pair, k, q_fine) float64."""
    step: float
    """Spacing of q_fine [Å⁻¹]; the grid starts at 0."""
    near_distance: np.ndarray
    """(near,) float64 [Å]."""
    near_pairs: np.ndarray
    """(pair, k, near) float64."""


# BLAS adds in another order with more threads: cores are used by tasks, and BLAS has one thread throughout.
_one_blas_thread = threadpool_limits.wrap(limits=1, user_api="blas")


def _run(work: Callable[[Any], None], tasks: Iterable[Any], *, xp: Any, threads: int) -> None:
    """All tasks, on all cores of this rank (NumPy) or one after another (a GPU is busy with one)."""
    if xp is not np:
        for task in tasks:
            work(task)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, tasks):
            pass


@_one_blas_thread
def basis_partial(family: NestedFamily, q: np.ndarray, *, xp: Any = np, threads: int = 1) -> np.ndarray:
    """Partial sums of every particle of a family.

    Args:
        family: pair tables.
        q: (q,) float64 [Å⁻¹].
        xp: namespace in which the product is computed (NumPy or CuPy).
        threads: CPU cores to use with NumPy.

    Returns:
        (pair, k, q) float64 on the host.
    """
    out = np.empty((len(family.pairs), len(family.diameter), len(q)))

    def fill(task: tuple[int, slice]) -> None:
        index, points = task
        table = family.pairs[index]
        waves = sinc(xp.asarray(table.distance)[:, None] * xp.asarray(q[points])[None, :])
        grown = xp.cumsum(xp.asarray(table.entering) @ waves, axis=0)
        out[index, :, points] = grown if xp is np else xp.asnumpy(grown)

    width = _POINTS if xp is np else len(q)
    strips = [slice(start, start + width) for start in range(0, len(q), width)]
    _run(fill, itertools.product(range(len(family.pairs)), strips), xp=xp, threads=threads)
    return out


class Synthesis:
    """Patterns of ensembles of one variant."""

    def __init__(
        self,
        basis: Basis,
        config: SimulateConfig,
        q: np.ndarray,
        *,
        variant: int = 0,
        xp: Any = np,
        threads: int = 1,
    ) -> None:
        """Take the basis to the device.

        Args:
            basis: partial sums on the fine grid.
            config: energy and switches.
            q: (q,) float64 [Å⁻¹] of the patterns.
            variant: which of the configuration's, for how its atoms move.
            xp: numpy or cupy.
            threads: CPU cores to use with NumPy.
        """
        self._basis, self._q, self._xp = basis, q, xp
        self._threads, self._rows = threads, _ROWS if xp is np else _GPU_ROWS
        self._partial = xp.asarray(basis.partial)
        self._sizes = np.empty((0, 2))
        self._tables: tuple[Any, Any, Any] | None = None
        self._coefficients = partial(
            coefficients,
            basis.kinds,
            **config.beam,
        )
        self._self = xp.asarray(self._coefficients(q, with_compton=config.compton).self)
        chosen = config.variants[variant]
        self._near = NearFamily(
            chosen.motion,
            chosen.material,
            basis.kinds,
            distance=basis.near_distance,
            pairs=basis.near_pairs,
            n_atoms=basis.n_atoms @ [kind.occupancy for kind in basis.kinds],
        )
        self._strained = lru_cache(maxsize=64)(self._at_strain)
        # Of the conditions that are computed at one time.
        self._near_waves = lru_cache(maxsize=4)(self._make_near_waves)

    @_one_blas_thread
    def keep_tables_of(self, samples: Mapping[str, np.ndarray]) -> None:
        """Compute the size tables of a whole grid at once, if its samples share them and they fit into memory."""
        sizes = np.unique(np.stack([samples[DIAMETER], samples[SIGMA]], axis=1), axis=0)
        shared = 2 * len(sizes) <= len(samples[DIAMETER])
        if shared and len(sizes) * self._partial[:, 0].size * 8 <= _TABLE_BYTES:
            self._make_tables(sizes)

    @_one_blas_thread
    def patterns(self, samples: Mapping[str, np.ndarray]) -> np.ndarray:
        """Intensities of samples.

        Args:
            samples: parameter name -> (rows,) float64.

        Returns:
            (rows, q) float32 [electron units per atom].
        """
        sizes = np.stack([samples[DIAMETER], samples[SIGMA]], axis=1)
        if self._tables is None or not _contains(self._sizes, sizes):
            self._make_tables(np.unique(sizes, axis=0))
        assert self._tables is not None
        xp, (table, near, composition) = self._xp, self._tables
        table_row = _rows_of(self._sizes, sizes)

        out = np.empty((len(sizes), len(self._q)), dtype=np.float32)
        conditions, group = np.unique(
            np.stack([samples[STRAIN], samples[B_SCALE]], axis=1), axis=0, return_inverse=True
        )

        def fill(task: tuple[int, np.ndarray]) -> None:
            condition, rows = task
            strain, b_scale = conditions[condition]
            chosen = _as_slice(table_row[rows])
            resampler, terms = self._strained(float(strain))
            pair = xp.asarray(terms.pair(float(b_scale)))
            combined = table[0, chosen] * pair[0]
            for index in range(1, len(pair)):
                combined += table[index, chosen] * pair[index]
            if near.shape[1]:
                combined += near[chosen] @ self._near_waves(float(strain), float(b_scale))
            total = resampler(combined)
            total += composition[chosen] @ self._self
            out[_as_slice(rows)] = total if xp is np else xp.asnumpy(total)

        _run(
            fill,
            (
                (condition, rows[start : start + self._rows])
                for condition in range(len(conditions))
                for rows in [np.flatnonzero(group == condition)]
                for start in range(0, len(rows), self._rows)
            ),
            xp=xp,
            threads=self._threads,
        )
        return out

    def _make_tables(self, sizes: np.ndarray) -> None:
        """Partial sums and sites of each kind, averaged over the distribution of each (D, σ), per atom."""
        xp, n_atoms = self._xp, self._basis.n_atoms
        atoms = n_atoms @ [kind.occupancy for kind in self._basis.kinds]
        weights = number_weights(self._basis.diameter, 10 * sizes[:, 0], sizes[:, 1])
        weights /= (weights @ atoms)[:, None]
        table = xp.empty((len(self._partial), len(sizes), self._partial.shape[2]))

        def fill(rows: slice) -> None:
            # Distributions are narrow: only the particles that hold more than rounding of an ensemble's atoms.
            used = np.flatnonzero((weights[rows] * atoms > 1e-17).any(axis=0))
            window = slice(used[0], used[-1] + 1)
            of_rows = xp.asarray(np.ascontiguousarray(weights[rows, window]))
            for index in range(len(table)):
                table[index, rows] = of_rows @ self._partial[index, window]

        blocks = (slice(start, start + self._rows) for start in range(0, len(sizes), self._rows))
        _run(fill, blocks, xp=xp, threads=self._threads)
        near = xp.asarray(weights @ self._near.table)
        self._sizes, self._tables = sizes, (table, near, xp.asarray(weights @ n_atoms))

    def _at_strain(self, strain: float) -> tuple[Resampler, Coefficients]:
        """Of one strain: interpolation from the fine grid to the patterns' points, coefficients on the fine grid."""
        resampler = Resampler(
            self._q * (1 + strain), step=self._basis.step, n_fine=self._partial.shape[2], xp=self._xp
        )
        return resampler, self._coefficients(self._q_fine(strain))

    def _q_fine(self, strain: float) -> np.ndarray:
        """(q_fine,) float64 [Å⁻¹]: where strained crystals have what the basis has on its grid."""
        grid = self._basis.step * np.arange(self._partial.shape[2]) / (1 + strain)
        # Beyond the table of f0 there are only the last taps of patterns that end with it.
        return np.minimum(grid, Q_MAX)

    def _make_near_waves(self, strain: float, b_scale: float) -> Any:
        """(column, q_fine): what each column of the near part adds."""
        _, terms = self._strained(strain)
        return self._xp.asarray(
            self._near.waves(
                self._q_fine(strain),
                undamped=terms.undamped,
                exponent=terms.exponent,
                b_scale=b_scale,
                strain=strain,
            )
        )


def _as_slice(rows: np.ndarray) -> np.ndarray | slice:
    """Rows that follow each other as a slice (a view, no copy), as they do in a cartesian grid."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _rows_of(table: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Index of each (D, σ) in a sorted table without repeats."""
    joint, inverse = np.unique(np.concatenate((table, sizes)), axis=0, return_inverse=True)
    position = np.full(len(joint), -1)
    position[inverse[: len(table)]] = np.arange(len(table))
    return position[inverse[len(table) :]]


def _contains(table: np.ndarray, sizes: np.ndarray) -> bool:
    return len(table) > 0 and bool((_rows_of(table, sizes) >= 0).all())
