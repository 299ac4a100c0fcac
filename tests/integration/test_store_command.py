"""`qd-store info | verify | export` on a real store."""

import shutil

import h5py
import numpy as np
import pytest

from hpc.schema import ARRAYS, PARAMETERS
from hpc.store import open_store
from hpc.storetool import main


@pytest.fixture
def store(smoke_store, tmp_path):
    return shutil.copytree(smoke_store, tmp_path / "smoke.zarr")


def refused(capsys, *arguments):
    """The one message of a command that fails."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code not in (0, None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qd-store: error: ")
    return captured.err


def test_the_contract_of_attributes(smoke_store):
    attributes = open_store(smoke_store).attrs
    assert {
        "format_version", "complete", "material", "energy_kev", "normalisation", "units", "config", "seed", "software",
        "git_commit", "device",
    } <= set(attributes)  # fmt: skip
    assert attributes["material"] == "PbS"
    assert attributes["energy_kev"] == 22.0
    assert "path" not in str(attributes["config"])


def test_info_says_what_a_store_holds(smoke_store, capsys):
    main(["info", str(smoke_store)])
    text = capsys.readouterr().out
    for part in (
        "96 patterns of 551 points in 6 shards",
        "PbS",
        "22.0 keV",
        "1 to 12 1/Å in steps of 0.02",
        "2 to 3, 3 distinct",
    ):
        assert part in text


def test_verify_passes_and_finds_one_flipped_byte(store, capsys):
    main(["verify", str(store)])
    assert "every byte is as it was written" in capsys.readouterr().out
    shard = store / "intensity/c/3/0"
    content = bytearray(shard.read_bytes())
    content[12345] ^= 4
    shard.write_bytes(content)
    message = refused(capsys, "verify", store)
    assert "1 file(s)" in message
    assert "intensity/c/3/0: the bytes differ from what was written" in message


def test_the_export_to_hdf5_is_the_store(smoke_store, tmp_path, capsys):
    main(["export", str(smoke_store), str(tmp_path / "out.h5")])
    store = open_store(smoke_store)
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["intensity"][:], store.read(0, 96))
        np.testing.assert_array_equal(file["q"][:], store.q)
        for name in PARAMETERS:
            np.testing.assert_array_equal(file[name][:], store.parameters[name])
        for name, values in store.basis().items():
            np.testing.assert_array_equal(file[f"basis/{name}"][:], values)
        for name, field in ARRAYS.items():
            assert file[name].dtype == field.dtype
            assert file[name].attrs["units"] == field.units
            assert tuple(dim.label for dim in file[name].dims) == field.axes
        assert file.attrs["material"] == "PbS"


def test_the_export_to_csv_is_the_store(smoke_store, tmp_path, capsys):
    main(["export", str(smoke_store), str(tmp_path / "out.csv")])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    values = np.loadtxt(lines[len(PARAMETERS) + 1 :], delimiter=",")
    store = open_store(smoke_store)
    np.testing.assert_array_equal(values[:, 1:].astype(np.float32).T, store.read(0, 96))
    np.testing.assert_allclose(values[:, 0], store.q, rtol=1e-8)
    for line, name in zip(lines, PARAMETERS, strict=False):
        label, *numbers = line.split(",")
        assert label == name
        np.testing.assert_allclose(np.array(numbers, dtype=float), store.parameters[name], rtol=1e-11)


@pytest.mark.parametrize("command", ["info", "verify", "export"])
def test_what_is_not_a_store_is_one_message(tmp_path, capsys, command):
    (tmp_path / "folder").mkdir()
    target = [tmp_path / "out.h5"] if command == "export" else []
    assert "does not exist; give the folder that qd-simulate wrote" in refused(
        capsys, command, tmp_path / "no", *target
    )
    assert "is not a zarr store" in refused(capsys, command, tmp_path / "folder", *target)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_an_export_that_cannot_be_leaves_nothing_behind(store, tmp_path, capsys):
    assert "must end in .h5, .hdf5, .csv" in refused(capsys, "export", store, tmp_path / "out.txt")
    message = refused(capsys, "export", store, tmp_path / "no folder" / "out.h5")
    assert "no folder" in message
    shutil.rmtree(store / "intensity/c/2")  # zarr reads a missing shard as zeros: an export must not
    assert "intensity" in refused(capsys, "export", store, tmp_path / "out.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["smoke.zarr"]
