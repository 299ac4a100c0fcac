"""A store of a few rows, with content that its pieces alone decide: what the tests of reading and of writing share."""

import contextlib
from pathlib import Path

import numpy as np

from hpc.schema import BASIS_PARTIAL, INTENSITY, PARAMETERS
from hpc.store_writing import FINE_PER_PIECE, Layout, StoreWriter

#: Not a multiple of the shard (8 rows), the last shard not a multiple of the chunk (4 rows).
ROWS = 21
N_FINE = 2 * FINE_PER_PIECE + 11


def layout(rows=ROWS, **config):
    rng = np.random.default_rng(0)
    return Layout(
        q=1 + 0.5 * np.arange(7),
        parameters={name: rng.random(rows) for name in PARAMETERS},
        basis_diameter_nm=np.array([0.0, 0.6, 0.8]),
        basis_n_atoms=np.array([[1.0, 0.0], [1.0, 6.0], [13.0, 6.0]]),
        q_fine=0.03 * np.arange(N_FINE),
        n_pair=3,
        rows_per_shard=8,
        rows_per_chunk=4,
        attributes={
            "material": "PbS",
            "energy_kev": 22.0,
            "config": {"grid": {"diameter_nm": [3.0], "tail": 1e-6}, "seed": 0} | config,
            "seed": 0,
            "device": "CPU",
            "software": {},
        },
    )


def values_of(piece):
    """Content that only depends on what the piece is, as the simulation's does."""
    rng = np.random.default_rng([piece.index, len(piece.array)])
    points = piece.stop - piece.start
    if piece.array == INTENSITY:
        return rng.random((points, 7), dtype=np.float32)
    return rng.random((3, 3, points))


def fill_in(writer):
    """The rest of what `qd-simulate` does once a store is prepared."""
    for array in (BASIS_PARTIAL, INTENSITY):
        for piece in writer.pending(array):
            writer.write(piece, values_of(piece), rank=0, seconds=0.1)
    writer.finish()


@contextlib.contextmanager
def begun(path):
    """A prepared writer; its lock goes at the end, as it does when a process ends."""
    with StoreWriter(path, layout()) as writer:
        assert writer.prepare() is False
        yield writer


def run(path, plan=None):
    """Make, continue or confirm a store, as `qd-simulate` does."""
    with StoreWriter(path, plan or layout()) as writer:
        if not writer.prepare():
            fill_in(writer)
    return writer


def tree(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(Path(path).rglob("*")) if f.is_file()}
