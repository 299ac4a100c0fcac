"""The store: layout, commit, crash, resume, damage, full disk, and what other programs read."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray
import zarr

from hpc import store_writing
from hpc.schema import ARRAYS, BASIS_PARTIAL, FORMAT_VERSION, INTENSITY, PARAMETERS
from hpc.store import StoreError, open_store, verify_store
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


@pytest.fixture
def finished(tmp_path):
    run(tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "store.zarr"
    run(path)
    return tree(path)


# Layout


def test_pieces_cover_everything_once():
    plan = layout()
    assert [(p.start, p.stop) for p in plan.pieces(INTENSITY)] == [(0, 8), (8, 16), (16, 21)]
    assert [p.stop - p.start for p in plan.pieces(BASIS_PARTIAL)] == [FINE_PER_PIECE, FINE_PER_PIECE, 11]
    names = [p.name for array in (INTENSITY, BASIS_PARTIAL) for p in plan.pieces(array)]
    assert len(set(names)) == 6
    assert not any("/" in name for name in names)
    assert [(p.start, p.stop) for p in layout(rows=8).pieces(INTENSITY)] == [(0, 8)]
    assert [(p.start, p.stop) for p in layout(rows=3).pieces(INTENSITY)] == [(0, 3)]


def test_bytes_needed_are_those_on_the_disk(finished):
    data = [len(v) for k, v in tree(finished).items() if k.startswith(("intensity/c/", "basis/partial/c/"))]
    # Three shards carry an index of two chunks and its checksum.
    assert sum(data) - layout().bytes_needed == 3 * (2 * 16 + 4)
    assert layout().n_samples == ROWS


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
    partial = np.concatenate([values_of(piece) for piece in plan.pieces(BASIS_PARTIAL)], axis=2)
    np.testing.assert_array_equal(store.basis()["partial"], partial)
    np.testing.assert_array_equal(store.basis()["n_atoms"], plan.basis_n_atoms)


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
            np.testing.assert_array_equal(basis["diameter"].values, layout().basis_diameter_nm)
            np.testing.assert_array_equal(basis["n_atoms"].values, layout().basis_n_atoms)


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
        piece = writer.pending(BASIS_PARTIAL)[0]
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


# Crash and resume


class Killed(BaseException):
    """The process ends here; nothing may catch it."""


def crash_at(monkeypatch, moment):
    """End the run before its n-th change to the disk, or half-way through it."""
    changes = itertools.count()

    def mortal(function):
        def change(*arguments):
            if next(changes) >= moment:
                raise Killed
            return function(*arguments)

        return change

    def mortal_write(file, content):
        if next(changes) >= moment:
            write_bytes(file, content[: len(content) // 2])
            raise Killed
        return write_bytes(file, content)

    # `os` of this module only: zarr-python's threads live on here, as they would not in a process that ends.
    replaced = {"replace": mortal(os.replace), "rename": mortal(os.rename)}
    monkeypatch.setattr(store_writing, "os", SimpleNamespace(**vars(os) | replaced))
    write_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", mortal_write)


def test_a_run_that_ends_at_any_moment_ends_in_the_same_bytes(tmp_path, monkeypatch, undisturbed):
    moment, outcomes = 0, []
    while True:
        path = tmp_path / f"{moment}.zarr"
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            try:
                run(path)
            except Killed:
                outcomes.append(moment)
            else:
                break
        if path.exists():
            with pytest.raises(StoreError):
                open_store(path)
        run(path)
        assert tree(path) == undisturbed, f"killed at change {moment}"
        assert verify_store(path) == []
        shutil.rmtree(path)
        moment += 1
    # 6 pieces with a file and a record each, written and renamed; the store's rename, manifest and root metadata.
    assert len(outcomes) >= 6 * 4 + 5
    assert not list(tmp_path.glob(".*.new-*"))


def test_a_finished_store_is_left_alone(finished):
    before = {name: (finished / name).stat().st_mtime_ns for name in tree(finished)}
    assert StoreWriter(finished, layout()).prepare() is True
    assert before == {name: (finished / name).stat().st_mtime_ns for name in tree(finished)}


def test_only_what_is_missing_is_computed_again(tmp_path, undisturbed):
    path = tmp_path / "store.zarr"
    with begun(path) as writer:
        for piece in [*writer.pending(BASIS_PARTIAL), writer.pending(INTENSITY)[1]]:
            writer.write(piece, values_of(piece), rank=0, seconds=0.1)

    with begun(path) as writer:
        assert writer.pending(BASIS_PARTIAL) == []
        assert [piece.index for piece in writer.pending(INTENSITY)] == [0, 2]
        # A damaged record, or a file that is lost or cut short: not committed.
        (path / ".shards/basis-partial-000001.json").write_text("{}")
        (path / "intensity/c/1/0").unlink()
        os.truncate(path / "basis/partial/c/0/0/2", 100)
        assert [piece.index for piece in writer.pending(BASIS_PARTIAL)] == [1, 2]
        assert [piece.index for piece in writer.pending(INTENSITY)] == [0, 1, 2]
        with pytest.raises(StoreError, match=r"5 pieces .* are missing, the first is basis-partial-000001"):
            writer.finish()
    assert not (path / ".manifest.json").exists()
    run(path)
    assert tree(path) == undisturbed


def test_leftover_files_are_removed(tmp_path, undisturbed):
    path = tmp_path / "store.zarr"
    with begun(path):
        pass
    (path / "intensity/c/0").mkdir(parents=True)
    (path / "intensity/c/0/0.4711.part").write_bytes(b"half")
    (tmp_path / ".store.zarr.new-4711").mkdir()
    (tmp_path / ".other.zarr.new-4711").mkdir()
    run(path)
    assert tree(path) == undisturbed
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [".other.zarr.new-4711"]


def test_values_that_are_not_finite_are_not_stored(tmp_path):
    with begun(tmp_path / "store.zarr") as writer:
        piece = writer.pending(INTENSITY)[0]
        values = values_of(piece)
        values[3, 2] = np.nan
        before = tree(writer.path)
        with pytest.raises(StoreError, match="intensity-000000 holds values that are not finite"):
            writer.write(piece, values, rank=0, seconds=0.1)
        assert tree(writer.path) == before


# Refusals


def test_another_configuration_is_refused_with_the_difference(finished):
    before = tree(finished)
    for change, message in (
        ({"seed": 1}, r"seed: the store has 0, this run asks for 1"),
        (
            {"grid": {"diameter_nm": [3.0, 4.0], "tail": 1e-6}},
            r"grid\.diameter_nm: the store has \[3\.0\], .*\[3\.0, 4\.0\]",
        ),
        ({"new": {"key": 5}}, r"new\.key: the store has None, this run asks for 5"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            StoreWriter(finished, layout(**change)).prepare()
        assert "choose another store.path" in str(caught.value)
        assert str(caught.value).count("the store has") == 1
    assert tree(finished) == before


@pytest.mark.parametrize("content", ["folder", "file", "foreign"])
def test_something_else_at_the_path_is_left_alone(tmp_path, content):
    path = tmp_path / "store.zarr"
    if content == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    elif content == "file":
        path.write_text("mine")
    else:
        zarr.create_group(path, attributes={"mine": True})
    before = tree(path) if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError, match=r"is not a zarr store|another configuration|format version"):
        StoreWriter(path, layout()).prepare()
    assert (tree(path) if path.is_dir() else path.read_bytes()) == before


def test_a_store_of_another_format_is_not_continued(tmp_path):
    with begun(tmp_path / "store.zarr") as writer:
        pass
    root = writer.path / "zarr.json"
    metadata = json.loads(root.read_text())
    metadata["attributes"]["format_version"] = FORMAT_VERSION + 1
    root.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=f"format version {FORMAT_VERSION + 1}"):
        StoreWriter(writer.path, layout()).prepare()


def test_two_runs_at_once_are_refused(tmp_path):
    path = tmp_path / "store.zarr"
    with begun(path):
        with (
            StoreWriter(path, layout()) as other,
            pytest.raises(StoreError, match="another qd-simulate is writing"),
        ):
            other.prepare()
        # The one that was refused takes nothing away from the first.
        with (
            StoreWriter(path, layout()) as third,
            pytest.raises(StoreError, match="another qd-simulate is writing"),
        ):
            third.prepare()
    with begun(path):
        pass


def test_a_file_system_without_locks_is_no_other_run(tmp_path, monkeypatch, undisturbed):
    """Lustre mounted without flock answers ENOSYS."""

    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    run(tmp_path / "store.zarr")
    assert tree(tmp_path / "store.zarr") == undisturbed


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"could not create .*Not a directory; choose another store\.path"):
        StoreWriter(tmp_path / "file" / "store.zarr", layout()).prepare()


# Disk


def test_a_store_larger_than_the_disk_is_refused_before_anything_exists(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=layout().bytes_needed - 1))
    with pytest.raises(
        StoreError, match=r"the store needs .* GB, the disk of .* has .* GB free; choose a smaller grid"
    ):
        StoreWriter(tmp_path / "deep" / "store.zarr", layout()).prepare()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=layout().bytes_needed))
    with begun(tmp_path / "deep" / "store.zarr"):
        pass


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB that really fills up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"a small file system can be mounted by root only: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, leave=0):
    with open(folder / "ballast", "wb", buffering=0) as ballast:
        for size in (4096, 512, 1):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        if leave:
            ballast.truncate(ballast.tell() - leave)


def test_a_disk_that_fills_up_while_shards_are_written(small_disk, undisturbed):
    """At whatever byte the disk is full: one message, no half-written file, and the run continues later."""
    path = small_disk / "store.zarr"
    for leave in (0, 4096, 16384, 24576, 40960):
        with begun(path) as writer:
            fill(small_disk, leave)
            with pytest.raises(
                StoreError, match=r"could not write .*No space left.*run the same command again"
            ):
                fill_in(writer)
        assert not list(path.rglob("*.part"))
        (small_disk / "ballast").unlink()
    run(path)
    assert tree(path) == undisturbed
    assert verify_store(path) == []


def test_a_disk_that_is_full_before_the_store_is_created(small_disk, monkeypatch):
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)  # as if it filled up right after the check
    for leave in (0, 8192, 32768):
        fill(small_disk, leave)
        with pytest.raises(StoreError, match=r"could not create .*No space left"):
            StoreWriter(small_disk / "store.zarr", layout()).prepare()
        assert [entry.name for entry in small_disk.iterdir()] == ["ballast"]
        (small_disk / "ballast").unlink()


def test_a_disk_that_is_full_at_the_very_end(tmp_path, monkeypatch, undisturbed):
    path = tmp_path / "store.zarr"
    write_bytes = Path.write_bytes

    def full_for_the_manifest(file, content):
        if "manifest" in file.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_bytes(file, content)

    with monkeypatch.context() as patch, begun(path) as writer:
        patch.setattr(Path, "write_bytes", full_for_the_manifest)
        with pytest.raises(StoreError, match="No space left"):
            fill_in(writer)
    run(path)
    assert tree(path) == undisturbed
