"""The store, written: crash and resume, refusals, full disks."""

import errno
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from small_store import begun, fill_in, layout, run, tree, values_of

from hpc import store_writing
from hpc.schema import FORMAT_VERSION, INTENSITY
from hpc.store import StoreError, open_store, verify_store
from hpc.store_writing import StoreWriter

PARTIAL_SUMS = "basis/partial"

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


@pytest.mark.parametrize("n_variants", [1, 2])
def test_a_run_that_ends_at_any_moment_ends_in_the_same_bytes(tmp_path, monkeypatch, n_variants):
    plan = layout(n_variants=n_variants)
    run(tmp_path / "undisturbed.zarr", plan)
    undisturbed = tree(tmp_path / "undisturbed.zarr")
    moment, outcomes = 0, []
    while True:
        path = tmp_path / f"{moment}.zarr"
        with monkeypatch.context() as patch:
            crash_at(patch, moment)
            try:
                run(path, plan)
            except Killed:
                outcomes.append(moment)
            else:
                break
        if path.exists():
            with pytest.raises(StoreError):
                open_store(path)
        run(path, plan)
        assert tree(path) == undisturbed, f"killed at change {moment}"
        assert verify_store(path) == []
        shutil.rmtree(path)
        moment += 1
    pieces = sum(len(plan.pieces(array)) for array in plan.arrays)
    assert pieces == 3 + 5 * n_variants
    # Each piece has a file and a record, written and renamed; the store's rename, manifest and root metadata.
    assert len(outcomes) >= pieces * 4 + 5
    assert not list(tmp_path.glob(".*.new-*"))


def test_a_finished_store_is_left_alone(finished):
    before = {name: (finished / name).stat().st_mtime_ns for name in tree(finished)}
    assert StoreWriter(finished, layout()).prepare() is True
    assert before == {name: (finished / name).stat().st_mtime_ns for name in tree(finished)}


def test_only_what_is_missing_is_computed_again(tmp_path, undisturbed):
    path = tmp_path / "store.zarr"
    with begun(path) as writer:
        first = [piece for array in layout().basis_arrays(0) for piece in writer.pending(array)]
        for piece in [*first, writer.pending(INTENSITY)[1]]:
            writer.write(piece, values_of(piece), rank=0, seconds=0.1)

    with begun(path) as writer:
        assert writer.pending(PARTIAL_SUMS) == []
        assert [piece.index for piece in writer.pending(INTENSITY)] == [0, 2]
        # A damaged record, or a file that is lost or cut short: not committed.
        (path / ".shards/basis-partial-000001.json").write_text("{}")
        (path / "intensity/c/1/0").unlink()
        os.truncate(path / "basis/partial/c/0/0/2", 100)
        assert [piece.index for piece in writer.pending(PARTIAL_SUMS)] == [1, 2]
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


def test_another_description_of_a_variant_is_refused(finished):
    """The file of a group may have changed since, under the same name."""
    plan = layout()
    plan.attributes["variants"][0]["lattice"] = {"alpha_deg": 89.6}
    with pytest.raises(StoreError, match=r"variants\.0\.lattice\.alpha_deg: the store has None, .* 89\.6"):
        StoreWriter(finished, plan).prepare()


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
