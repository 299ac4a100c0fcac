"""What the atoms of every sample are: shares of kinds, and pairs of near neighbours, from the basis of a store.

A pattern alone does not say which part of it belongs to the nearest neighbours, nor what scatters at all. Effects that
act on atoms (correlated motion, texture, surface) need it, sample by sample, and the basis holds it
exactly: the numbers n_a of sites of each kind and N_ab(r_n) of ordered pairs of every particle k, averaged
over the sample's lognormal sizes,

    x_a = Σ_k w_k n_a / N̄,   ν_ab(r_n) = Σ_k w_k N_ab(r_n) / N̄,   N̄ = Σ_k w_k Σ_a o_a n_a

Structural variants have kinds and distances of their own: these are joined, and a sample has zeros in the columns of
others.

Symbols: a, b kind, o occupancy, n distance, k particle, w number weight, column: one pair of kinds at one distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpc.structure.material import Kind, kind_pairs

if TYPE_CHECKING:
    from hpc.store import Store

__all__ = ["AtomRows", "SampleAtoms"]

# Samples whose size weights are in memory at a time.
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AtomRows:
    """The atoms of some samples, on their device."""

    strain: torch.Tensor
    """(B,) float32."""
    b_scale: torch.Tensor
    """(B,) float32, the factor on every Debye-Waller B."""
    shares: torch.Tensor
    """(B, kind) float32, sites of each kind per atom."""
    near: torch.Tensor
    """(B, column) float32, ordered pairs per atom at each near distance."""

    def take(self, index: torch.Tensor | slice) -> AtomRows:
        """Some of the rows."""
        return AtomRows(
            strain=self.strain[index],
            b_scale=self.b_scale[index],
            shares=self.shares[index],
            near=self.near[index],
        )


class SampleAtoms:
    """The kinds and near distances of a store, and a table of them for any of its samples."""

    kinds: tuple[Kind, ...]
    """What scatters, over all variants."""
    pair: np.ndarray
    """(column,) int64: index into `kind_pairs` of `kinds`."""
    distance: np.ndarray
    """(column,) float64 [Å], unstrained."""
    ranges: dict[str, tuple[float, float]]
    """Parameter of the store -> its lowest and highest value."""
    extent: float
    """Largest distance in a dot [Å]: about its largest diameter."""

    def __init__(self, store: Store) -> None:
        """Read the basis of every variant (not its partial sums).

        Raises:
            StoreError: the store holds no near pairs.
        """
        self._parameters = store.parameters
        self.ranges = {name: (float(v.min()), float(v.max())) for name, v in store.parameters.items()}
        self._bases: list[dict[str, np.ndarray]] = [
            store.near(v) for v in range(len(store.attrs["variants"]))
        ]
        largest = max(float(basis["diameter"][-1]) for basis in self._bases)
        self.extent = 10 * largest * (1 + max(0.0, self.ranges["strain"][1]))
        described: list[list[Kind]] = [
            [Kind(**kind) for kind in one["kinds"]] for one in store.attrs["variants"]
        ]
        # Labels differ from variant to variant; what scatters is the same.
        found: dict[tuple[Any, ...], Kind] = {}
        for kind in (kind for kinds in described for kind in kinds):
            found.setdefault(_key(kind), kind)
        self.kinds = tuple(found.values())
        number = {key: index for index, key in enumerate(found)}
        pair_of = {pair: index for index, pair in enumerate(kind_pairs(len(self.kinds)))}
        self._kind_of = [[number[_key(kind)] for kind in kinds] for kinds in described]

        columns: dict[tuple[int, float], int] = {}
        self._used: list[tuple[np.ndarray, np.ndarray]] = []
        for basis, kind_of in zip(self._bases, self._kind_of, strict=True):
            pairs = kind_pairs(len(kind_of))
            # Most pairs of kinds have neighbours at some of the distances only.
            used = np.argwhere(basis["near_pairs"].any(axis=1))
            target = np.empty(len(used), dtype=np.int64)
            for row, (pair, n) in enumerate(used):
                a, b = sorted((kind_of[pairs[pair][0]], kind_of[pairs[pair][1]]))
                key = pair_of[a, b], round(float(basis["near_distance"][n]), 6)
                target[row] = columns.setdefault(key, len(columns))
            self._used.append((used, target))
        self.pair = np.array([pair for pair, _ in columns], dtype=np.int64)
        self.distance = np.array([r for _, r in columns])

    def rows(self, index: np.ndarray, device: torch.device) -> AtomRows:
        """The atoms of the samples `index`."""
        from hpc.schema import B_SCALE, STRAIN, VARIANT

        shares = np.zeros((len(index), len(self.kinds)), dtype=np.float32)
        near = np.zeros((len(index), len(self.distance)), dtype=np.float32)
        variant = self._parameters[VARIANT][index]
        for v in np.unique(variant):
            here = np.flatnonzero(variant == v)
            for block in np.split(here, range(_BLOCK, len(here), _BLOCK)):
                shares[block], near[block] = self._average(int(v), index[block])
        return AtomRows(
            strain=torch.as_tensor(self._parameters[STRAIN][index], dtype=torch.float32, device=device),
            b_scale=torch.as_tensor(self._parameters[B_SCALE][index], dtype=torch.float32, device=device),
            shares=torch.from_numpy(shares).to(device),
            near=torch.from_numpy(near).to(device),
        )

    def _average(self, variant: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, kind) and (m, column) float64 of some samples of one variant."""
        from hpc.ensemble import number_weights
        from hpc.schema import DIAMETER, SIGMA

        basis, kind_of = self._bases[variant], self._kind_of[variant]
        used, target = self._used[variant]
        occupancy = [self.kinds[kind].occupancy for kind in kind_of]
        weights = number_weights(
            basis["diameter"], self._parameters[DIAMETER][index], self._parameters[SIGMA][index]
        )
        weights /= (weights @ (basis["n_atoms"] @ occupancy))[:, None]
        shares = np.zeros((len(index), len(self.kinds)))
        for kind, column in zip(kind_of, (weights @ basis["n_atoms"]).T, strict=True):
            shares[:, kind] += column
        near = np.zeros((len(index), len(self.distance)))
        # Two pairs of kinds of a variant may be one pair here.
        np.add.at(near.T, target, basis["near_pairs"][used[:, 0], :, used[:, 1]] @ weights.T)
        return shares, near


def _key(kind: Kind) -> tuple[str, float, float]:
    return kind.element, kind.occupancy, kind.b_iso
