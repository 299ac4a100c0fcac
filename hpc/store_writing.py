"""The zarr store, for writing: create, commit piece by piece, resume.

What makes a store survive kill -9 at any moment:

- It is built beside its final place and renamed into it, so it exists with all its metadata or not at all.
- A *piece* (a shard of intensities, a strip of a basis) is the unit of work. Its file is written under another name
  and renamed, then its *record* (rows, checksum, rank, seconds) is renamed into `.shards/`. Work to do is what has no
  record.
- `.manifest.json` (checksum of every file) and `complete: true` come last, once all records exist.

Everything but the records' rank and seconds is a function of the configuration: the files of a finished store are the
same bytes for any number of ranks and after any number of crashes.

Shard files are put together here rather than by zarr-python: rows of a shard are contiguous, so the file is the plain
bytes and the index that the sharding codec's specification asks for (zarr v3, "sharding_indexed": offset and length of
every chunk as little-endian uint64, then their CRC32C). That reaches the speed of a plain write, and the
checksum is taken from memory. Everything is read by zarr-python, unchanged.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from hpc.schema import (
    ARRAYS,
    BASIS,
    BASIS_ARRAYS,
    DIAMETER,
    FORMAT_VERSION,
    INTENSITY,
    N_ATOMS,
    NEAR_DISTANCE,
    NEAR_PAIRS,
    PARAMETERS,
    PARTIAL,
    Q_FINE,
    Field,
    Q,
    basis_group,
)
from hpc.store import (
    MANIFEST,
    RECORDS,
    StoreError,
    check_format,
    checksum,
    content_files,
    read_sealed,
    root_attributes,
    seal,
)

__all__ = ["FINE_PER_PIECE", "BasisLayout", "Layout", "Piece", "StoreWriter", "check_disk"]

_log = logging.getLogger(__name__)

#: Points of the fine Q grid in one piece of the basis.
FINE_PER_PIECE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One unit of computation, writing, commit and resume."""

    array: str
    """INTENSITY (rows of samples), or an array of a basis: its sites or near pairs (k), its partial sums (q_fine)."""
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"{self.array.replace('/', '-')}-{self.index:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BasisLayout:
    """Axes of the basis of one variant."""

    diameter_nm: np.ndarray
    """(k,) float64 [nm]."""
    n_kind: int
    q_fine: np.ndarray
    """(q_fine,) float64 [Å⁻¹], from 0."""
    near_distance: np.ndarray
    """(near,) float64 [Å]."""

    @property
    def n_pair(self) -> int:
        """Pairs of kinds."""
        return self.n_kind * (self.n_kind + 1) // 2

    @property
    def bytes_needed(self) -> int:
        """Size of the numbers of sites, of the near pairs and of the partial sums."""
        of_pair = len(self.near_distance) + _padded(len(self.q_fine), FINE_PER_PIECE)
        points = self.n_kind + self.n_pair * of_pair
        return 8 * len(self.diameter_nm) * points


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything that is known before the first pattern is computed."""

    q: np.ndarray
    """(q,) float64 [Å⁻¹]."""
    parameters: Mapping[str, np.ndarray]
    """name -> (sample,) float64, for each of `PARAMETERS`; the variant is int64."""
    bases: tuple[BasisLayout, ...]
    """One for each variant."""
    rows_per_shard: int
    rows_per_chunk: int
    attributes: Mapping[str, Any]
    """Attributes of the root group: `units` of the intensity; `config` and `variants` decide whether a store may be
    continued."""

    @property
    def n_samples(self) -> int:
        """Rows of the intensity array."""
        return len(self.parameters[PARAMETERS[0]])

    @property
    def bytes_needed(self) -> int:
        """Size of the finished store, without metadata."""
        intensities = 4 * _padded(self.n_samples, self.rows_per_shard) * len(self.q)
        return intensities + sum(basis.bytes_needed for basis in self.bases)

    def basis_arrays(self, variant: int) -> tuple[str, str, str]:
        """The arrays of a basis that come piece by piece: its numbers of sites, its near pairs, its partial sums."""
        group = basis_group(variant, len(self.bases))
        return f"{group}/{N_ATOMS}", f"{group}/{NEAR_PAIRS}", f"{group}/{PARTIAL}"

    @property
    def arrays(self) -> dict[str, BasisLayout | None]:
        """Every array that comes piece by piece, and the basis that it belongs to."""
        of_bases = {
            name: basis for variant, basis in enumerate(self.bases) for name in self.basis_arrays(variant)
        }
        return {**of_bases, INTENSITY: None}

    def pieces(self, array: str) -> list[Piece]:
        """The pieces of one of `arrays`, in order."""
        basis = self.arrays[array]
        if basis is None:
            total, size = self.n_samples, self.rows_per_shard
        elif not array.endswith(PARTIAL):
            total = size = len(basis.diameter_nm)
        else:
            total, size = len(basis.q_fine), FINE_PER_PIECE
        return [
            Piece(array=array, index=index, start=start, stop=min(start + size, total))
            for index, start in enumerate(range(0, total, size))
        ]


class StoreWriter:
    """Pieces into a store that exists. Any number of ranks may hold one; no two write the same piece."""

    def __init__(self, path: str | Path, layout: Layout) -> None:
        """Take the folder of a store, which `prepare` creates or checks."""
        self._path, self._layout = Path(path), layout
        self._lock: int | None = None

    def __enter__(self) -> StoreWriter:
        """Use as a context manager: the lock that `prepare` takes is released at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let other runs have the store."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._path

    def prepare(self) -> bool:
        """Create the store, or check that the existing one belongs to this configuration (rank 0, once).

        Returns:
            True if the store is already complete.

        Raises:
            StoreError: another configuration, not a store, in use by another run, or not enough disk.
        """
        for leftover in self._path.parent.glob(f".{self._path.name}.new-*"):
            shutil.rmtree(leftover)
        if self._path.exists():
            existing = root_attributes(self._path)
            check_format(self._path, existing)
            _refuse_other_configuration(self._path, existing, self._layout.attributes)
            if existing.get("complete"):
                return True
            self._take_lock()
            for partial in self._path.rglob("*.part"):
                partial.unlink()
        else:
            check_disk(self._path, self._layout.bytes_needed)
            _create(self._path, self._layout)
            self._take_lock()
        return False

    def pending(self, array: str) -> list[Piece]:
        """Pieces without a valid record."""
        return [piece for piece in self._layout.pieces(array) if not self._committed(piece)]

    def write(self, piece: Piece, values: np.ndarray, *, rank: int, seconds: float) -> None:
        """Write one piece and commit it.

        Args:
            piece: what is written.
            values: (rows, q) float32 for intensities; (k, kind), (pair, k, near) or (pair, k, points) float64 for a
                basis.
            rank: who computed it.
            seconds: how long it took.

        Raises:
            StoreError: non-finite values, or the disk is full.
        """
        if not np.isfinite(values).all():
            raise StoreError(
                f"{piece.name} holds values that are not finite; nothing was written. Please report this grid"
            )
        content = self._encode(piece, values)
        record = {
            "array": piece.array,
            "rows": [piece.start, piece.stop],
            "bytes": len(content),
            "checksum": checksum(content),
            "rank": rank,
            "seconds": round(seconds, 3),
        }
        self._put({self._file(piece): content, self._record(piece): seal(record)})

    def read(self, array: str) -> np.ndarray:
        """One of `Layout.basis_arrays`, once all its pieces are committed."""
        import zarr

        return np.asarray(zarr.open_array(self._path / array, mode="r")[...])

    def finish(self) -> None:
        """Write the manifest and set `complete` (rank 0, once, after every piece).

        Raises:
            StoreError: a piece is missing, or the disk is full.
        """
        missing = [piece.name for array in self._layout.arrays for piece in self.pending(array)]
        if missing:
            raise StoreError(
                f"{len(missing)} pieces of {self._path} are missing, the first is {missing[0]}; run again"
            )
        pieces = [piece for array in self._layout.arrays for piece in self._layout.pieces(array)]
        known = {
            str(self._file(piece).relative_to(self._path)): read_sealed(self._record(piece))["checksum"]
            for piece in pieces
        }
        root = self._path / "zarr.json"
        metadata = json.loads(root.read_text())
        metadata["attributes"]["complete"] = True
        content = json.dumps(metadata, indent=2).encode()
        files = {
            name: known[name] if name in known else checksum((self._path / name).read_bytes())
            for name in content_files(self._path)
        }
        files["zarr.json"] = checksum(content)
        manifest = {"files": files, "records": [self._record(piece).name for piece in pieces]}
        self._put({self._path / MANIFEST: seal(manifest), root: content})

    def _put(self, files: Mapping[Path, bytes]) -> None:
        """Write files, one after the other.

        Raises:
            StoreError: the disk is full or gone.
        """
        for file, content in files.items():
            try:
                _replace(file, content)
            except OSError as error:
                raise StoreError(
                    f"could not write {file}: {error.strerror or error}. What is committed is safe: free some space "
                    "(or move the store) and run the same command again; it continues where it stopped"
                ) from error

    def _committed(self, piece: Piece) -> bool:
        try:
            record = read_sealed(self._record(piece))
        except (OSError, StoreError):
            return False
        file = self._file(piece)
        return (
            record["rows"] == [piece.start, piece.stop]
            and file.is_file()
            and file.stat().st_size == record["bytes"]
        )

    def _record(self, piece: Piece) -> Path:
        return self._path / RECORDS / f"{piece.name}.json"

    def _file(self, piece: Piece) -> Path:
        of_pairs = piece.array.endswith((PARTIAL, NEAR_PAIRS))
        key = f"0/0/{piece.index}" if of_pairs else f"{piece.index}/0"
        return self._path / piece.array / "c" / key

    def _encode(self, piece: Piece, values: np.ndarray) -> bytes:
        layout = self._layout
        basis = layout.arrays[piece.array]
        if basis is not None and not piece.array.endswith(PARTIAL):
            return np.ascontiguousarray(values, dtype="<f8").tobytes()
        if basis is not None:
            block = np.zeros((basis.n_pair, len(basis.diameter_nm), FINE_PER_PIECE), dtype="<f8")
            block[:, :, : values.shape[2]] = values
            return block.tobytes()
        row_bytes = 4 * len(layout.q)
        chunk_bytes = layout.rows_per_chunk * row_bytes
        n_chunks = layout.rows_per_shard // layout.rows_per_chunk
        n_used = -(-len(values) // layout.rows_per_chunk)
        # A chunk that is not there has offset and length 2⁶⁴-1.
        index = np.full((n_chunks, 2), np.iinfo(np.uint64).max, dtype="<u8")
        index[:n_used, 0] = np.arange(n_used) * chunk_bytes
        index[:n_used, 1] = chunk_bytes
        table = index.tobytes()
        rows = np.ascontiguousarray(values, dtype="<f4").data.cast("B")
        padding = bytes(n_used * chunk_bytes - len(rows))
        return b"".join((rows, padding, table, google_crc32c.value(table).to_bytes(4, "little")))

    def _take_lock(self) -> None:
        """One run at a time: the kernel drops the lock when this process ends, however it ends."""
        self._lock = os.open(self._path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another qd-simulate is writing {self._path}; wait for it or choose another store.path"
            ) from None
        except OSError as error:
            _log.warning(
                "no lock on %s (%s): see to it that no second run writes it", self._path, error.strerror
            )


def check_disk(path: str | Path, needed: int) -> None:
    """Refuse a new store of `needed` bytes that the disk does not hold.

    Raises:
        StoreError: not enough space.
    """
    folder = Path(path).absolute()
    if folder.exists():
        return
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"the store needs {needed / 1e9:.3g} GB, the disk of {folder} has {free / 1e9:.3g} GB free; "
            "choose a smaller grid, a coarser q.step, or another store.path"
        )


def _padded(count: int, size: int) -> int:
    """`count` rounded up to whole pieces."""
    return -(-count // size) * size


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}{key}.").items()}
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return _flatten(dict(enumerate(value)), prefix)
    return {prefix.rstrip("."): value}


def _refuse_other_configuration(path: Path, existing: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    # `variants` too: the files that a configuration names may have changed since.
    old, new = (
        _flatten({**attributes.get("config", {}), "variants": attributes.get("variants")})
        for attributes in (existing, json.loads(json.dumps(asked)))
    )
    differing = [key for key in sorted(set(old) | set(new)) if old.get(key) != new.get(key)]
    if differing:
        lines = "\n".join(
            f"  {key}: the store has {old.get(key)}, this run asks for {new.get(key)}" for key in differing
        )
        raise StoreError(
            f"{path} belongs to another configuration:\n{lines}\n"
            "choose another store.path, delete the store, or ask for what it holds"
        )


def _create(path: Path, layout: Layout) -> None:
    """Build the store with everything but its pieces beside its place, then rename it there."""
    import zarr

    building = path.parent / f".{path.name}.new-{os.getpid()}"
    try:
        building.mkdir(parents=True)
        root = zarr.create_group(
            building, attributes={"format_version": FORMAT_VERSION, "complete": False, **layout.attributes}
        )
        for name, values in {Q: layout.q, **layout.parameters}.items():
            array = _create_array(root, name, ARRAYS[name], shape=values.shape, chunks=values.shape)
            array[...] = values
        n_variants = len(layout.bases)
        groups = [basis_group(variant, n_variants) for variant in range(n_variants)]
        if BASIS not in groups:
            root.create_group(BASIS)
        for group, basis in zip(groups, layout.bases, strict=True):
            _create_basis(root.create_group(group), basis)
        _create_array(
            root,
            INTENSITY,
            replace(ARRAYS[INTENSITY], units=layout.attributes["units"]["intensity"]),
            shape=(layout.n_samples, len(layout.q)),
            chunks=(layout.rows_per_chunk, len(layout.q)),
            shards=(layout.rows_per_shard, len(layout.q)),
        )
        with warnings.catch_warnings():
            # zarr-python warns that other programs may not know consolidated metadata; xarray warns without them.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            for group in (*groups, BASIS, ""):
                zarr.consolidate_metadata(building, path=group or None)
        (building / RECORDS).mkdir()
        os.rename(building, path)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise StoreError(
            f"could not create {path}: {error.strerror or error}; choose another store.path"
        ) from error


def _create_basis(group: Any, basis: BasisLayout) -> None:
    """The axes of a basis, and its other arrays without a piece."""
    for name, values in (
        (DIAMETER, basis.diameter_nm),
        (Q_FINE, basis.q_fine),
        (NEAR_DISTANCE, basis.near_distance),
    ):
        array = _create_array(group, name, BASIS_ARRAYS[name], shape=values.shape, chunks=values.shape)
        array[...] = values
    n_k = len(basis.diameter_nm)
    of_sites = (n_k, basis.n_kind)
    _create_array(group, N_ATOMS, BASIS_ARRAYS[N_ATOMS], shape=of_sites, chunks=of_sites)
    near = (basis.n_pair, n_k, len(basis.near_distance))
    _create_array(group, NEAR_PAIRS, BASIS_ARRAYS[NEAR_PAIRS], shape=near, chunks=near)
    _create_array(
        group,
        PARTIAL,
        BASIS_ARRAYS[PARTIAL],
        shape=(basis.n_pair, n_k, len(basis.q_fine)),
        chunks=(basis.n_pair, n_k, FINE_PER_PIECE),
    )


def _create_array(root: Any, name: str, field: Field, **layout: Any) -> Any:
    return root.create_array(
        name,
        dtype=field.dtype,
        compressors=None,
        fill_value=0.0,
        dimension_names=field.axes,
        attributes={"units": field.units, "long_name": field.meaning},
        **layout,
    )


def _replace(file: Path, content: bytes) -> None:
    """Write a file under another name, then rename it into place; on failure leave nothing behind."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
