"""The store, read: layout, what other programs see, damage."""

import os
import warnings

import numpy as np
import pytest
import xarray
import zarr
from small_store import ROWS, begun, layout, run, tree, values_of

from hpc.schema import ARRAYS, BASIS_ARRAYS, INTENSITY, PARAMETERS
from hpc.store import StoreError, open_store, verify_store
from hpc.store_writing import FINE_PER_PIECE

SITES, NEAR, PARTIAL_SUMS = "basis/n_atoms", "basis/near_pairs", "basis/partial"

# Layout


def test_pieces_cover_everything_once():
    plan = layout()
    assert [(p.start, p.stop) for p in plan.pieces(INTENSITY)] == [(0, 8), (8, 16), (16, 21)]
    assert [p.stop - p.start for p in plan.pieces(PARTIAL_SUMS)] == [FINE_PER_PIECE, FINE_PER_PIECE, 11]
    assert [(p.start, p.stop) for p in plan.pieces(SITES)] == [(0, 3)]
    assert [(p.start, p.stop) for p in plan.pieces(NEAR)] == [(0, 3)]
    assert set(plan.arrays) == {SITES, NEAR, PARTIAL_SUMS, INTENSITY}
    names = [p.name for array in plan.arrays for p in plan.pieces(array)]
    assert len(set(names)) == 8
    assert not any("/" in name for name in names)
    assert [(p.start, p.stop) for p in layout(rows=8).pieces(INTENSITY)] == [(0, 8)]
    assert [(p.start, p.stop) for p in layout(rows=3).pieces(INTENSITY)] == [(0, 3)]


@pytest.mark.parametrize("n_variants", [1, 3])
def test_bytes_needed_are_those_on_the_disk(tmp_path, n_variants):
    plan = layout(n_variants=n_variants)
    run(tmp_path / "store.zarr", plan)
    files = tree(tmp_path / "store.zarr")
    data = [len(files[name]) for name in files for array in plan.arrays if name.startswith(f"{array}/c/")]
    # Three shards carry an index of two chunks and its checksum.
    assert sum(data) - plan.bytes_needed == 3 * (2 * 16 + 4)
    assert plan.n_samples == ROWS


# Reading


def test_what_is_written_is_read(finished):
    store, plan = open_store(finished), layout()
    np.testing.assert_array_equal(store.q, plan.q)
    for name in PARAMETERS:
        np.testing.assert_array_equal(store.parameters[name], plan.parameters[name])
    assert store.n_samples == ROWS
    assert store.shards == [(0, 8), (8, 16), (16, 21)]
    assert store.attrs["complete"] is True
    expected = np.concatenate([values_of(piece) for piece in plan.pieces(INTENSITY)])
    for start, stop in [*store.shards, (0, ROWS), (5, 18), (20, 21)]:
        block = store.read(start, stop)
        assert block.dtype == np.float32
        np.testing.assert_array_equal(block, expected[start:stop])
    partial = np.concatenate([values_of(piece) for piece in plan.pieces(PARTIAL_SUMS)], axis=2)
    np.testing.assert_array_equal(store.basis()["partial"], partial)
    np.testing.assert_array_equal(store.basis()["n_atoms"], values_of(plan.pieces(SITES)[0]))
    np.testing.assert_array_equal(store.basis()["q_fine"], plan.bases[0].q_fine)
    with pytest.raises(StoreError, match="has the variants 0 to 0, got 1"):
        store.basis(1)


def test_each_variant_has_a_basis_of_its_own(tmp_path):
    plan = layout(n_variants=2)
    run(tmp_path / "store.zarr", plan)
    store = open_store(tmp_path / "store.zarr")
    assert store.n_variants == 2
    assert store.parameters["variant"].dtype == np.int64
    np.testing.assert_array_equal(store.parameters["variant"], np.arange(ROWS) * 2 // ROWS)
    for variant, axes in enumerate(plan.bases):
        basis = store.basis(variant)
        assert set(basis) == set(BASIS_ARRAYS)
        sites, near, partial = plan.basis_arrays(variant)
        assert partial == f"basis/000{variant}/partial"
        pieces = [values_of(piece, plan) for piece in plan.pieces(partial)]
        np.testing.assert_array_equal(basis["partial"], np.concatenate(pieces, axis=2))
        np.testing.assert_array_equal(basis["n_atoms"], values_of(plan.pieces(sites)[0], plan))
        np.testing.assert_array_equal(basis["near_pairs"], values_of(plan.pieces(near)[0], plan))
        np.testing.assert_array_equal(basis["near_distance"], axes.near_distance)
        np.testing.assert_array_equal(basis["diameter"], axes.diameter_nm)
        np.testing.assert_array_equal(basis["q_fine"], axes.q_fine)
        with xarray.open_zarr(store.path, group=f"basis/000{variant}") as data:
            assert data["partial"].dims == ("pair", "k", "q_fine")
            assert data["partial"].shape == basis["partial"].shape
    assert verify_store(store.path) == []


def test_zarr_writes_shards_that_hold_the_same(finished, tmp_path):
    """The hand-made shards and those of zarr-python: the same metadata, chunk for chunk the same content."""
    ours = zarr.open_array(finished / INTENSITY, mode="r")
    theirs = zarr.create_array(
        tmp_path / "theirs.zarr",
        shape=ours.shape,
        chunks=ours.chunks,
        shards=ours.shards,
        dtype=ours.dtype,
        compressors=None,
        fill_value=0.0,
    )
    theirs[...] = ours[...]
    assert ours.metadata.codecs == theirs.metadata.codecs
    assert (ours.nchunks_initialized, ours.shards, ours.chunks) == (
        theirs.nchunks_initialized,
        (8, 7),
        (4, 7),
    )
    for shard in range(3):
        a = (finished / INTENSITY / "c" / str(shard) / "0").read_bytes()
        b = (tmp_path / "theirs.zarr" / "c" / str(shard) / "0").read_bytes()
        assert len(a) == len(b)
        # zarr-python may lay chunks out in another order; the bytes of the shard are the same set of chunks.
        size = 4 * 7 * 4
        assert sorted(a[i : i + size] for i in (0, size)) == sorted(b[i : i + size] for i in (0, size))


def test_zarr_reads_each_chunk_of_the_padded_last_shard(finished):
    array = zarr.open_group(finished, mode="r")[INTENSITY]
    expected = np.concatenate([values_of(piece) for piece in layout().pieces(INTENSITY)])
    for row in range(ROWS):
        np.testing.assert_array_equal(array[row], expected[row])


def test_xarray_opens_it_with_names_and_units(finished):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(finished) as data, xarray.open_zarr(finished, group="basis") as basis:
            assert data[INTENSITY].dims == ("sample", "q")
            assert data[INTENSITY].attrs["units"] == "electron units per atom"
            assert data["q"].attrs["units"] == "1/angstrom"
            assert data["diameter"].dims == ("sample",)
            assert data["diameter"].attrs["units"] == "nm"
            for name in (*PARAMETERS, "q", INTENSITY):
                assert data[name].dtype == ARRAYS[name].dtype
                assert not np.isnan(data[name].values).any()  # a fill value is not a missing value
            assert data.attrs["material"] == "PbS"
            assert data.attrs["complete"]
            assert basis["partial"].dims == ("pair", "k", "q_fine")
            # Numbers where zarr's fill value was taken for "missing" would be NaN.
            np.testing.assert_array_equal(basis["diameter"].values, layout().bases[0].diameter_nm)
            np.testing.assert_array_equal(basis["n_atoms"].values, values_of(layout().pieces(SITES)[0]))


def test_what_is_not_a_finished_store_is_refused(tmp_path, finished):
    with pytest.raises(
        StoreError, match=r"nothing\.zarr does not exist; give the folder that qd-simulate wrote"
    ):
        open_store(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="folder is not a zarr store"):
        open_store(tmp_path / "folder")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StoreError, match="file is not a zarr store"):
        open_store(tmp_path / "file")
    zarr.create_group(tmp_path / "foreign.zarr")
    with pytest.raises(StoreError, match="format version None"):
        open_store(tmp_path / "foreign.zarr")
    os.truncate(finished / "zarr.json", 200)
    with pytest.raises(StoreError, match="damaged"):
        open_store(finished)


def test_an_unfinished_store_says_what_to_do(tmp_path):
    with begun(tmp_path / "store.zarr") as writer:
        piece = writer.pending(PARTIAL_SUMS)[0]
        writer.write(piece, values_of(piece), rank=0, seconds=0.1)
    for use in (open_store, verify_store):
        with pytest.raises(StoreError, match=r"not complete \(1 pieces committed\); run the qd-simulate"):
            use(writer.path)


def test_a_lost_file_is_not_read_as_zeros(finished):
    store = open_store(finished)
    (finished / "intensity/c/1/0").unlink()
    (finished / "basis/partial/c/0/0/2").unlink()
    assert store.read(0, 8).any()
    for start, stop in ((0, 9), (15, 16), (0, ROWS)):
        with pytest.raises(StoreError, match=r"intensity/c/1/0 is missing"):
            store.read(start, stop)
    with pytest.raises(StoreError, match=r"basis/partial/c/0/0/2 is missing"):
        store.basis()
    (finished / "basis/n_atoms/c/0/0").unlink()
    with pytest.raises(StoreError, match=r"basis/n_atoms/c/0/0 is missing"):
        store.basis()


# Damage


def test_a_whole_store_has_no_problems(finished):
    assert verify_store(finished) == []


def test_one_flipped_byte_in_any_file_is_found(finished):
    files = tree(finished)
    assert {
        ".manifest.json",
        "zarr.json",
        "intensity/c/2/0",
        "basis/partial/c/0/0/1",
        ".shards/intensity-000001.json",
    } <= set(files)
    rng = np.random.default_rng(5)
    for name, content in files.items():
        # the first byte, the last one and some in between; the lowest and the highest bit
        for position in {0, len(content) - 1, *rng.integers(0, len(content), 3).tolist()}:
            for flip in (1, 128):
                damaged = bytearray(content)
                damaged[position] ^= flip
                (finished / name).write_bytes(damaged)
                try:
                    problems = verify_store(finished)
                except StoreError as error:
                    problems = [str(error)]
                assert len(problems) == 1, (name, position, flip)
                assert name in problems[0]
        (finished / name).write_bytes(content)
    assert verify_store(finished) == []


def test_missing_truncated_and_foreign_files_are_found(finished):
    shard = finished / "intensity/c/1/0"
    content = shard.read_bytes()
    shard.unlink()
    assert verify_store(finished) == ["intensity/c/1/0: missing"]
    shard.write_bytes(content[:-1])
    assert verify_store(finished) == ["intensity/c/1/0: the bytes differ from what was written"]
    shard.write_bytes(content)
    (finished / "intensity/c/1/1").write_bytes(b"")
    assert verify_store(finished) == ["intensity/c/1/1: not part of the store"]
    (finished / "intensity/c/1/1").unlink()
    (finished / ".manifest.json").unlink()
    with pytest.raises(StoreError, match=r"has no \.manifest\.json"):
        verify_store(finished)


def test_a_lost_record_is_found(finished):
    (finished / ".shards/intensity-000001.json").unlink()
    assert verify_store(finished) == [".shards/intensity-000001.json: missing"]
