"""A grid of structural variants through every command: simulated, looked at, exported, learned from, evaluated."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from runs import evaluated, simulated, trained

from hpc import storetool
from hpc.schema import BASIS_ARRAYS
from hpc.store import open_store, verify_store
from qdml.dataset import fingerprint

VARIANTS = "variants={shape:[sphere,cube],lattice:[ideal,rhombohedral]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    simulated(folder / "store.zarr", "grid.strain=0 to 0.002 in 4", VARIANTS)
    return folder


def test_the_store_says_what_each_variant_is(folder: Path) -> None:
    store = open_store(folder / "store.zarr")
    assert verify_store(store.path) == []
    assert store.n_samples == 4 * 3 * 2 * 4
    np.testing.assert_array_equal(store.parameters["variant"], np.repeat(np.arange(4), 24))
    described = store.attrs["variants"]
    assert [one["title"] for one in described] == [
        "sphere",
        "sphere lattice.alpha_deg=89.6",
        "cube",
        "cube lattice.alpha_deg=89.6",
    ]
    assert described[3]["lattice"] == {"alpha_deg": 89.6}
    assert [kind["label"] for kind in described[3]["kinds"]] == ["Pb", "S"]
    sizes = [len(store.basis(variant)["diameter"]) for variant in range(4)]
    assert sizes[0] == sizes[1] > sizes[2] == sizes[3]
    # The same samples of different structure differ, all of them.
    patterns = store.read(0, store.n_samples).reshape(4, 24, -1)
    for a in range(4):
        for b in range(a):
            assert np.all(np.abs(patterns[a] / patterns[b] - 1).max(axis=1) > 1e-3)


def test_info_and_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storetool.main(["info", str(folder / "store.zarr")])
    text = capsys.readouterr().out
    assert "96 patterns of 551 points in 6 shards" in text
    assert "variant 3    cube lattice.alpha_deg=89.6" in text
    storetool.main(["export", str(folder / "store.zarr"), str(folder / "store.h5")])
    store = open_store(folder / "store.zarr")
    with h5py.File(folder / "store.h5") as file:
        np.testing.assert_array_equal(file["variant"][:], store.parameters["variant"])
        assert json.loads(file.attrs["variants"]) == store.attrs["variants"]
        for variant in range(4):
            basis = store.basis(variant)
            for name, field in BASIS_ARRAYS.items():
                array = file[f"basis/000{variant}/{name}"]
                np.testing.assert_array_equal(array[:], basis[name])
                assert tuple(dim.label for dim in array.dims) == field.axes


def test_networks_learn_from_it_and_are_evaluated_on_it(folder: Path) -> None:
    """Classes are sizes and dispersions; what else differs between patterns is variety to learn from."""
    model, store = folder / "model", folder / "store.zarr"
    trained(model, "training=smoke", f"data.store={store}", "trainer.steps=12", "trainer.evaluate_every=6")
    metrics = evaluated(model, store, folder / "evaluation", "draws=1")["classes"]
    assert list(metrics["network"]["diameter_nm"]["class_accuracy"]) == ["2.0", "2.5", "3.0"]
    assert 0 < metrics["network"]["sigma"]["accuracy"] <= 1
    card = json.loads((folder / "model/card.json").read_text())
    assert card["store"]["ranges"]["variant"] == [0.0, 3.0]
    assert card["store"]["fingerprint"] == fingerprint(open_store(folder / "store.zarr"))


def test_the_fingerprint_of_a_store_is_that_of_its_structures_too(folder: Path) -> None:
    store = open_store(folder / "store.zarr")
    before = fingerprint(store)
    store.attrs["variants"][2]["shape"] = {"name": "octahedron"}
    assert fingerprint(store) != before
