"""Speed of the store: committing shards against a plain write of the same bytes, and reading them back.

    python benchmarks/bench_store.py --output results.jsonl

The plain write is one file per shard, written and renamed, in the same folder and the same run: what the disk gives.
The target is 80 % of it. The reading is through zarr-python, shard by shard, as training reads.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import emit, measure, read_arguments

from hpc.schema import INTENSITY, PARAMETERS, VARIANT
from hpc.store import open_store
from hpc.store_writing import BasisLayout, Layout, StoreWriter


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(__doc__.splitlines()[0], words)
    rows, points, shards = (256, 500, 2) if arguments.quick else (1024, 2000, 16)
    with tempfile.TemporaryDirectory(dir=os.environ.get("QD_BENCH_DIR")) as folder:
        write_and_read(arguments, Path(folder), rows, points, shards)


def write_and_read(arguments: Any, folder: Path, rows: int, points: int, shards: int) -> None:
    """Commit `shards` shards of `rows` patterns of `points` points in turn with plain files of the same bytes."""
    values = np.random.default_rng(0).normal(size=(rows, points)).astype(np.float32)
    layout = _layout(rows, points, shards)
    with StoreWriter(folder / "store.zarr", layout) as writer:
        writer.prepare()
        sites, near, partial = layout.basis_arrays(0)
        writer.write(layout.pieces(sites)[0], np.ones((1, 1)), rank=0, seconds=0.0)
        writer.write(layout.pieces(near)[0], np.zeros((1, 1, 1)), rank=0, seconds=0.0)
        writer.write(layout.pieces(partial)[0], np.zeros((1, 1, 2)), rank=0, seconds=0.0)
        plain, committed = [], []
        for piece in layout.pieces(INTENSITY):
            # In turn, so that a disk that slows down slows both.
            plain.append(_seconds(lambda index=piece.index: _plain_write(folder / f"plain-{index}", values)))
            committed.append(_seconds(lambda piece=piece: writer.write(piece, values, rank=0, seconds=0.0)))
        writer.finish()
    store = open_store(folder / "store.zarr")
    reading = measure(lambda: [store.read(start, stop) for start, stop in store.shards], arguments)
    megabytes = values.nbytes / 1e6
    ratios = np.array(plain) / np.array(committed)
    emit(
        "store",
        arguments,
        config={
            "rows_per_shard": rows,
            "points": points,
            "shards": shards,
            "rows_per_chunk": layout.rows_per_chunk,
        },
        result={
            "plain_write_mb_s": megabytes / float(np.median(plain)),
            "commit_mb_s": megabytes / float(np.median(committed)),
            "share_of_plain_write": float(np.median(ratios)),
            "share_quartiles": [float(x) for x in np.quantile(ratios, [0.25, 0.75])],
            "read_mb_s": megabytes * shards / reading["median_s"],
        },
        timing=reading,
    )


def _plain_write(target: Path, values: np.ndarray) -> None:
    part = target.with_suffix(".part")
    part.write_bytes(values.data)
    os.replace(part, target)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _layout(rows: int, points: int, shards: int) -> Layout:
    return Layout(
        q=np.arange(points, dtype=float),
        parameters={name: np.zeros(rows * shards, int if name == VARIANT else float) for name in PARAMETERS},
        bases=(
            BasisLayout(diameter_nm=np.ones(1), n_kind=1, q_fine=np.arange(2.0), near_distance=np.ones(1)),
        ),
        rows_per_shard=rows,
        rows_per_chunk=64,
        attributes={"config": {}, "variants": [{"title": "sphere"}]},
    )


if __name__ == "__main__":
    main()
