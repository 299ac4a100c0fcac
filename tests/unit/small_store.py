"""A store of a few rows, with content that its pieces alone decide: what the tests of reading and of writing share."""

import contextlib
from pathlib import Path

import numpy as np

from hpc.schema import INTENSITY, INTENSITY_UNITS, NEAR_PAIRS, PARAMETERS, PARTIAL, VARIANT
from hpc.store_writing import FINE_PER_PIECE, BasisLayout, Layout, StoreWriter

#: Not a multiple of the shard (8 rows), the last shard not a multiple of the chunk (4 rows).
ROWS = 21
N_FINE = 2 * FINE_PER_PIECE + 11


def layout(rows=ROWS, n_variants=1, **config):
    """The basis of variant v has 2 + v kinds and 3 + v sizes."""
    rng = np.random.default_rng(0)
    parameters = {name: rng.random(rows) for name in PARAMETERS}
    return Layout(
        q=1 + 0.5 * np.arange(7),
        parameters=parameters | {VARIANT: np.arange(rows) * n_variants // rows},
        bases=tuple(
            BasisLayout(
                diameter_nm=np.array([0.0, 0.6, 0.8, 0.9])[: 3 + variant],
                n_kind=2 + variant,
                q_fine=0.03 * np.arange(N_FINE + variant),
                near_distance=3.0 + np.arange(5 + variant),
            )
            for variant in range(n_variants)
        ),
        rows_per_shard=8,
        rows_per_chunk=4,
        attributes={
            "material": "PbS",
            "variants": [{"title": f"variant {variant}"} for variant in range(n_variants)],
            "radiation": "synchrotron",
            "particle": "xray",
            "energy_kev": 22.0,
            "wavelength_angstrom": None,
            "units": {"intensity": INTENSITY_UNITS["xray"]},
            "config": {"grid": {"diameter_nm": [3.0], "tail": 1e-6}, "seed": 0} | config,
            "seed": 0,
            "device": "CPU",
            "software": {},
        },
    )


def values_of(piece, plan=None):
    """Content that only depends on what the piece is, as the simulation's does."""
    rng = np.random.default_rng([piece.index, *piece.array.encode()])
    points = piece.stop - piece.start
    if piece.array == INTENSITY:
        return rng.random((points, 7), dtype=np.float32)
    basis = (plan or layout()).arrays[piece.array]
    if piece.array.endswith(PARTIAL):
        return rng.random((basis.n_pair, len(basis.diameter_nm), points))
    if piece.array.endswith(NEAR_PAIRS):
        return rng.random((basis.n_pair, points, len(basis.near_distance)))
    return rng.random((points, basis.n_kind))


def fill_in(writer, plan=None):
    """The rest of what `qd-simulate` does once a store is prepared."""
    plan = plan or layout()
    for array in plan.arrays:
        for piece in writer.pending(array):
            writer.write(piece, values_of(piece, plan), rank=0, seconds=0.1)
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
            fill_in(writer, plan)
    return writer


def tree(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(Path(path).rglob("*")) if f.is_file()}
