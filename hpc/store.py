"""The zarr store, for reading: open, read, verify.

A store is a zarr v3 group (names and axes in `hpc.schema`), plus two things that are not zarr: `.shards/`, one record
(rows, checksum, rank, seconds) for each committed piece, and `.manifest.json`, the checksum of every file of a finished
store. Both are *sealed*: JSON that carries the checksum of its own content. `hpc.store_writing` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from hpc.schema import (
    BASIS_ARRAYS,
    DIAMETER,
    FORMAT_VERSION,
    INTENSITY,
    N_ATOMS,
    NEAR_DISTANCE,
    NEAR_PAIRS,
    PARAMETERS,
    PARTIAL,
    Q,
    basis_group,
)

__all__ = [
    "MANIFEST",
    "RECORDS",
    "Store",
    "StoreError",
    "check_format",
    "checksum",
    "content_files",
    "open_store",
    "read_sealed",
    "root_attributes",
    "seal",
    "verify_store",
]

RECORDS = ".shards"
MANIFEST = ".manifest.json"


class StoreError(ValueError):
    """A store that cannot be created, continued or read; the message says why and what to do."""


class Store:
    """A finished store, for reading."""

    def __init__(self, path: str | Path) -> None:
        """Open; see `open_store`."""
        import zarr

        self.path = Path(path)
        self.attrs: dict[str, Any] = root_attributes(self.path)
        check_format(self.path, self.attrs)
        if not self.attrs.get("complete"):
            done = len(list((self.path / RECORDS).glob("*.json")))
            raise StoreError(
                f"{path} is not complete ({done} pieces committed); run the qd-simulate command that made it once more"
            )
        self._group = zarr.open_group(self.path, mode="r")
        self.q: np.ndarray = self._array(Q)[:]
        self.parameters: dict[str, np.ndarray] = {name: self._array(name)[:] for name in PARAMETERS}
        self.n_samples: int = self._array(INTENSITY).shape[0]
        rows = self._array(INTENSITY).shards[0]
        #: (start, stop) rows of every shard.
        self.shards: list[tuple[int, int]] = [
            (start, min(start + rows, self.n_samples)) for start in range(0, self.n_samples, rows)
        ]

    def _array(self, name: str) -> Any:
        return self._group[name]

    def _require(self, name: str, keys: Sequence[str]) -> None:
        """Refuse lost files: zarr takes what is not there for zeros."""
        for key in keys:
            if not (self.path / name / "c" / key).is_file():
                raise StoreError(
                    f"{self.path / name / 'c' / key} is missing; delete the store and simulate it again"
                )

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, q) float32 intensities [electron units per atom]."""
        rows = self._array(INTENSITY).shards[0]
        self._require(INTENSITY, [f"{index}/0" for index in range(start // rows, -(-stop // rows))])
        return np.asarray(self._array(INTENSITY)[start:stop])

    @property
    def n_variants(self) -> int:
        """How many structural variants there are; `attrs["variants"]` describes them."""
        return len(self.attrs["variants"])

    def basis(self, variant: int = 0) -> dict[str, np.ndarray]:
        """The size-resolved partial sums of one variant.

        Returns:
            diameter (k,) [nm], n_atoms (k, kind), q_fine (q_fine,) [Å⁻¹], partial (pair, k, q_fine), near_distance
            (near,) [Å], near_pairs (pair, k, near), all float64.

        Raises:
            StoreError: there is no such variant.
        """
        basis = self.near(variant)
        group = basis_group(variant, self.n_variants)
        partial = self._array(f"{group}/{PARTIAL}")
        strips = range(-(-partial.shape[2] // partial.chunks[2]))
        self._require(f"{group}/{PARTIAL}", [f"0/0/{index}" for index in strips])
        rest = (name for name in BASIS_ARRAYS if name not in basis)
        return basis | {name: np.asarray(self._array(f"{group}/{name}")[:]) for name in rest}

    def near(self, variant: int = 0) -> dict[str, np.ndarray]:
        """What the basis of one variant says of its atoms: the little that is not on the grid of Q.

        Returns:
            diameter (k,) [nm], n_atoms (k, kind), near_distance (near,) [Å], near_pairs (pair, k, near), all float64.

        Raises:
            StoreError: there is no such variant.
        """
        if not 0 <= variant < self.n_variants:
            raise StoreError(f"{self.path} has the variants 0 to {self.n_variants - 1}, got {variant}")
        group = basis_group(variant, self.n_variants)
        self._require(f"{group}/{N_ATOMS}", ["0/0"])
        self._require(f"{group}/{NEAR_PAIRS}", ["0/0/0"])
        names = (DIAMETER, N_ATOMS, NEAR_DISTANCE, NEAR_PAIRS)
        return {name: np.asarray(self._array(f"{group}/{name}")[:]) for name in names}


def open_store(path: str | Path) -> Store:
    """Open a finished store.

    Raises:
        StoreError: there is no store, it is not complete, or it has another format version.
    """
    return Store(path)


def verify_store(path: str | Path) -> list[str]:
    """Compare every byte of a finished store with the checksums taken when it was written.

    Returns:
        One line for each file that is damaged, missing or not part of the store; empty when all is well.

    Raises:
        StoreError: there is no finished store.
    """
    path = Path(path)
    problems = []
    try:
        content = read_sealed(path / MANIFEST)
    except OSError:
        Store(path)  # says what is wrong with it
        raise StoreError(f"{path} has no {MANIFEST}; simulate it again") from None
    manifest = content["files"]
    for name in sorted(set(manifest) | set(content_files(path))):
        if name not in manifest:
            problems.append(f"{name}: not part of the store")
        elif not (path / name).is_file():
            problems.append(f"{name}: missing")
        elif checksum((path / name).read_bytes()) != manifest[name]:
            problems.append(f"{name}: the bytes differ from what was written")
    for name in content["records"]:
        try:
            read_sealed(path / RECORDS / name)
        except OSError:
            problems.append(f"{RECORDS}/{name}: missing")
        except StoreError:
            problems.append(f"{RECORDS}/{name}: the bytes differ from what was written")
    return problems


def content_files(path: Path) -> list[str]:
    """Every file that the manifest covers, relative to the store."""
    names = (str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    return sorted(name for name in names if not name.startswith((RECORDS, MANIFEST)))


def root_attributes(path: Path) -> dict[str, Any]:
    """Attributes of the root group, complete or not.

    Raises:
        StoreError: not a store, or damaged metadata.
    """
    file = path / "zarr.json"
    if not file.is_file():
        what = "is not a zarr store" if path.exists() else "does not exist"
        raise StoreError(f"{path} {what}; give the folder that qd-simulate wrote (store.path)")
    try:
        return dict(json.loads(file.read_text())["attributes"])
    except (ValueError, KeyError) as error:
        raise StoreError(f"{file} is damaged ({error}); delete the store and simulate it again") from error


def check_format(path: Path, attributes: Mapping[str, Any]) -> None:
    """Refuse what another version of this program (or another program) wrote."""
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}, this program has {FORMAT_VERSION}; simulate it elsewhere"
        )


def checksum(content: bytes) -> str:
    """CRC32C as eight hexadecimal digits."""
    return f"{google_crc32c.value(content):08x}"


def seal(value: Mapping[str, Any]) -> bytes:
    """JSON that carries the checksum of its own content."""
    content = json.dumps(value, sort_keys=True)
    return json.dumps(
        {"content": value, "crc32c": checksum(content.encode())}, sort_keys=True, indent=1
    ).encode()


def read_sealed(file: Path) -> dict[str, Any]:
    """The content of a sealed file.

    Raises:
        StoreError: a byte has changed.
    """
    raw = file.read_bytes()
    try:
        value = dict(json.loads(raw)["content"])
    except (ValueError, KeyError, TypeError):
        value = {}
    if seal(value) != raw:
        raise StoreError(f"{file} is damaged; its bytes differ from what was written")
    return value
