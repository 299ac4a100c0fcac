"""Fixtures of the store tests, and the way to the modules that tests of this folder share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # small_store.py

from small_store import run, tree


@pytest.fixture
def finished(tmp_path):
    run(tmp_path / "store.zarr")
    return tmp_path / "store.zarr"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "store.zarr"
    run(path)
    return tree(path)
