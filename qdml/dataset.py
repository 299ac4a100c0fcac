"""Samples of a store -> batches, the same for any number of processes.

The shards are dealt to a fixed number of *lanes* (shard i to lane i mod lanes), the lanes to processes (lane l to rank
l mod world). A process reads the samples of its lanes once, into memory. Every global batch takes batch/lanes rows from
each lane, in an order that the lane's own permutations give; so which process serves a lane changes nothing. Lanes of
endless data (`ensemble`) learn from draws of their own instead and look at the samples for validation alone.

Splits are by base pattern: a permutation of the sample indices, seeded, before anything is augmented.

Symbols: B row of a batch, Q point of the grid.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from qdml.batch import Batch

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.augmentation.recipe import Main
    from qdml.config import ClassConfig, DataConfig, StoreDataConfig

__all__ = [
    "Lane",
    "Rows",
    "StoreLane",
    "check_classes",
    "deal_samples",
    "fingerprint",
    "lane_generator",
    "nearest_class",
    "read_lanes",
    "read_rows",
    "split_samples",
]

# Roles of random streams: numbers that keep them apart (see `lane_generator`).
_PERMUTATION, _SPLIT = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Batch):
    """What dots some patterns are of, on their device."""

    variant: torch.Tensor
    """(B,) int64, index into the structural variants of the store."""
    diameter: torch.Tensor
    """(B,) float64 [nm], number mean D."""
    sigma: torch.Tensor
    """(B,) float64, relative standard deviation of the diameter."""
    strain: torch.Tensor
    """(B,) float64."""
    b_scale: torch.Tensor
    """(B,) float64, the factor on every Debye-Waller B."""
    intensity: torch.Tensor | None = None
    """(B, Q) float32 [electron units per atom], clean; None unless the recipe asks (`Recipe.needs_intensity`)."""

    @property
    def volume_diameter(self) -> torch.Tensor:
        """(B,) float64 [nm], D_v = D (1 + σ²)³, the volume mean of a lognormal distribution."""
        return self.diameter * (1 + self.sigma**2) ** 3

    def targets(self) -> torch.Tensor:
        """(B, 3) float32, ln(D_v/nm), ln σ, ε: in the order of `densities.TARGETS`."""
        columns = [torch.log(self.volume_diameter), torch.log(self.sigma), self.strain]
        return torch.stack(columns, dim=1).float()

    def main(self) -> Main:
        """The main parameters as a recipe takes them: float32, on the device of the rows."""
        from qdml.augmentation.recipe import Main

        return Main(
            log_volume_diameter=torch.log(self.volume_diameter).float(),
            sigma=self.sigma.float(),
            strain=self.strain.float(),
            variant=self.variant,
            b_scale=self.b_scale.float(),
            intensity=self.intensity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane(ABC):
    """One stream of batches, on the device."""

    number: int
    validation: Rows
    """Samples of the store that are never learned from."""
    seed: int

    @abstractmethod
    def batch(self, step: int, size: int) -> Rows:
        """The lane's rows of one step: they depend on the step alone, so a resumed run needs no state."""

    def validation_batches(self, size: int) -> Iterator[Rows]:
        """The validation rows in order, at most `size` at a time."""
        for start in range(0, len(self.validation), size):
            yield self.validation.take(slice(start, start + size))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLane(Lane):
    """The training samples of some shards, epoch after epoch, each in an order of its own."""

    train: Rows

    def batch(self, step: int, size: int) -> Rows:
        """Rows step·size and the next ones of the endless sequence of epochs."""
        n = len(self.train)
        position = np.arange(step * size, (step + 1) * size)
        order = np.empty(size, dtype=np.int64)
        for epoch in range(position[0] // n, position[-1] // n + 1):
            here = position // n == epoch
            order[here] = _permutation(n, self.seed, self.number, int(epoch))[position[here] % n]
        device = self.train.diameter.device
        # From pinned memory the copy does not wait for the device.
        index = torch.from_numpy(order)
        index = index.pin_memory() if device.type == "cuda" else index
        return self.train.take(index.to(device, non_blocking=True))


@lru_cache(maxsize=64)
def _permutation(n: int, seed: int, lane: int, epoch: int) -> np.ndarray:
    """The order of an epoch of a lane; kept, since every step of the epoch asks for it."""
    return np.random.default_rng((seed, _PERMUTATION, lane, epoch)).permutation(n)


def lane_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator whose stream depends on the key (seed, role, step, lane, ...) alone."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def split_samples(n: int, train: float, validation: float, seed: int) -> dict[str, np.ndarray]:
    """Sample indices of each split.

    Args:
        n: number of base patterns.
        train: fraction to learn from; 0 where every sample is held out (`data=ensemble`).
        validation: fraction to choose weights with.
        seed: of the permutation.

    Returns:
        `train`, `validation`, `test` -> sorted int64 indices; together every sample once. `train` may be empty.

    Raises:
        ValueError: a split would be empty.
    """
    order = np.random.default_rng((seed, _SPLIT)).permutation(n)
    ends = round(train * n), round((train + validation) * n)
    parts = {"train": order[: ends[0]], "validation": order[ends[0] : ends[1]], "test": order[ends[1] :]}
    for name, part in parts.items():
        if part.size == 0 and not (name == "train" and train == 0):
            raise ValueError(
                f"the {name} split of {n} patterns would be empty; simulate more, or change data.train and "
                "data.validation"
            )
    return {name: np.sort(part) for name, part in parts.items()}


def nearest_class(values: torch.Tensor, centres: Sequence[float]) -> torch.Tensor:
    """(B,) int64 index of the nearest centre."""
    centre = torch.as_tensor(centres, dtype=torch.float64, device=values.device)
    return (values.double()[:, None] - centre).abs().argmin(dim=1)


def check_classes(store: Store, classes: ClassConfig) -> None:
    """Make sure that every class has patterns to learn from.

    Raises:
        ValueError: a class has no pattern in the store.
    """
    from hpc.schema import DIAMETER, SIGMA

    for name, key in (("diameter_nm", DIAMETER), ("sigma", SIGMA)):
        values, centres = store.parameters[key], getattr(classes, name)
        used = set(nearest_class(torch.from_numpy(values), centres).tolist())
        empty = [centres[i] for i in range(len(centres)) if i not in used]
        if empty:
            raise ValueError(
                f"classes.{name} has centres without any pattern in {store.path}: {empty}; the store spans "
                f"{values.min():g} to {values.max():g} with {len(np.unique(values))} values. "
                f"Choose classes.{name} inside it, or simulate those patterns"
            )


def deal_samples(
    store: Store, config: DataConfig, *, seed: int, rank: int, world: int
) -> dict[int, dict[str, np.ndarray]]:
    """The samples of the lanes of one process.

    Args:
        store: a finished store.
        config: lanes and split fractions.
        seed: of the splits.
        rank: number of this process.
        world: number of processes.

    Returns:
        Lane -> {"train": (n,) int64, "validation": (m,) int64} sorted indices; no training samples where
        `config.train` is 0.

    Raises:
        ValueError: the lanes cannot be dealt to the processes or the shards to the lanes, or a lane has no samples of a
            split.
    """
    if config.lanes % world:
        raise ValueError(
            f"data.lanes must be a multiple of the number of processes, so that each serves as many: got "
            f"{config.lanes} lanes for {world} processes. Set data.lanes={world} (another number of lanes is another "
            "order of batches), or start another number of processes"
        )
    if config.lanes > len(store.shards):
        raise ValueError(
            f"data.lanes must be at most the number of shards: got {config.lanes} lanes, {store.path} has "
            f"{len(store.shards)} shards; lower data.lanes or simulate with a smaller store.rows_per_shard"
        )
    splits = split_samples(store.n_samples, config.train, config.validation, seed)
    dealt = {}
    for number in range(rank, config.lanes, world):
        index = np.concatenate([np.arange(*shard) for shard in store.shards[number :: config.lanes]])
        dealt[number] = {name: index[np.isin(index, splits[name])] for name in ("train", "validation")}
        for name, chosen in dealt[number].items():
            if not chosen.size and splits[name].size:
                raise ValueError(
                    f"lane {number} of {config.lanes} holds no pattern of the {name} split; lower data.lanes, or "
                    "simulate more patterns"
                )
    return dealt


def read_lanes(
    store: Store,
    config: StoreDataConfig,
    *,
    seed: int,
    rank: int,
    world: int,
    device: torch.device,
    intensity: bool = True,
) -> list[StoreLane]:
    """Read the lanes of one process.

    Args:
        store: a finished store.
        config: lanes and split fractions.
        seed: of splits and orders.
        rank: number of this process.
        world: number of processes.
        device: where the rows are kept.
        intensity: whether rows hold their patterns (`Recipe.needs_intensity`); otherwise the shards are not read.

    Raises:
        ValueError: the samples cannot be dealt (`deal_samples`), or the store holds values that are not finite.
    """
    return [
        StoreLane(
            number=number,
            train=read_rows(store, parts["train"], device, intensity=intensity),
            validation=read_rows(store, parts["validation"], device, intensity=intensity),
            seed=seed,
        )
        for number, parts in deal_samples(store, config, seed=seed, rank=rank, world=world).items()
    ]


def read_rows(store: Store, index: np.ndarray, device: torch.device, *, intensity: bool = True) -> Rows:
    """The samples `index` (sorted) of a store.

    Args:
        store: a finished store.
        index: (B,) int64, sorted.
        device: of the rows.
        intensity: whether their patterns are read from the shards.

    Raises:
        ValueError: an intensity is not finite or not positive.
    """
    from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN, VARIANT

    names = {"variant": VARIANT, "diameter": DIAMETER, "sigma": SIGMA, "strain": STRAIN, "b_scale": B_SCALE}
    columns = {name: torch.from_numpy(store.parameters[key][index]).to(device) for name, key in names.items()}
    patterns = torch.from_numpy(_read_patterns(store, index)).to(device) if intensity else None
    return Rows(**columns, intensity=patterns)


def _read_patterns(store: Store, index: np.ndarray) -> np.ndarray:
    """(B, Q) float32 of the samples `index`, shard by shard."""
    pieces = []
    for start, stop in store.shards:
        chosen = index[(index >= start) & (index < stop)]
        if chosen.size:
            pieces.append(store.read(start, stop)[chosen - start])
    patterns = np.concatenate(pieces)
    bad = np.flatnonzero(~(np.isfinite(patterns).all(axis=1) & (patterns > 0).all(axis=1)))
    if bad.size:
        raise ValueError(
            f"{store.path} holds {bad.size} patterns with intensities that are not finite and positive, the first is "
            f"sample {index[bad[0]]}; check it with `qd-store verify {store.path}` and simulate it again"
        )
    return patterns


def fingerprint(store: Store) -> str:
    """Which patterns a store holds, whatever its path and shards: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(store.parameters):
        digest.update(name.encode() + np.ascontiguousarray(store.parameters[name]).tobytes())
    digest.update(np.ascontiguousarray(store.q).tobytes())
    digest.update(f"{store.attrs['material']} {store.attrs['energy_kev']}".encode())
    if store.attrs.get("particle") == "neutron":  # which have no energy, as X-rays without f' and f''
        digest.update(f"neutron {store.attrs['wavelength_angstrom']}".encode())
    digest.update(json.dumps(store.attrs["variants"], sort_keys=True).encode())
    return digest.hexdigest()[:16]
