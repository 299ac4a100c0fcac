"""Launching `qd-simulate` on ranks, and stores as bytes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from runs import simulated

#: Many small shards, so that every rank gets some: 96 patterns in 24 shards, the basis in 4 strips.
GRID = (
    "experiment=smoke",
    "store.rows_per_shard=4",
    "store.rows_per_chunk=2",
    "store.path=store.zarr",
    "device=cpu",
)

#: One variant for each way of counting pairs: integers on the lattice, real positions in one pass, one by one. Each has
#: another sort of motion.
VARIANTS = (
    "grid.diameter_nm=[1.5,2.0]",
    "grid.sigma=[0.0,0.1]",
    "grid.strain=[0.0,0.002]",
    "particles.size_step_nm=0.5",
    "particles.realisations=2",
    "lattice.size_strain=[0.001,0.0]",
    (
        "variants=[{motion:{correlation:[0.5,0.3],halo:[0.1],surface_b:2}},{faults:{deformation:0.05},motion:{smooth:2}},"
        "{disorder:{relaxation:0.1,core:0.05},motion:{surface_b:2}}]"
    ),
)


def pytest_collection_modifyitems(items):
    if not (Path(sys.executable).parent / "mpiexec").exists() and shutil.which("mpiexec") is None:
        missing = pytest.mark.skip(reason="no mpiexec: pip install -e '.[mpich]'")
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def grid():
    return GRID


@pytest.fixture
def simulate(run_command):
    """Run `qd-simulate` with n ranks; 0 is one process without MPI."""

    def run(n_ranks, *overrides, program=("-m", "hpc.simulate"), **options):
        launcher = ["mpiexec", "-n", str(n_ranks), "python", "-m", "mpi4py"] if n_ranks else ["python"]
        # A store names the commit that made it, which may change while the tests run.
        env = {"GIT_DIR": "/nowhere", **options.pop("env", {})}
        return run_command([*launcher, *program, *GRID, *overrides], env=env, **options)

    return run


@pytest.fixture(scope="session")
def store_bytes():
    """Every file of a store by name; records without who made them and how long it took."""

    def read(path):
        files = {
            str(file.relative_to(path)): file.read_bytes() for file in Path(path).rglob("*") if file.is_file()
        }
        for name in files:
            if name.startswith(".shards/"):
                record = json.loads(files[name])["content"]
                files[name] = {key: value for key, value in record.items() if key not in ("rank", "seconds")}
        return files

    return read


@pytest.fixture(scope="session")
def simulate_here():
    """One undisturbed process without MPI, this one, makes or finishes a store."""

    def run(path, *overrides):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GIT_DIR", "/nowhere")
            return simulated(path, *GRID[1:3], *overrides)

    return run


@pytest.fixture(scope="session")
def reference(tmp_path_factory, simulate_here, store_bytes):
    """The store of the grid."""
    files = store_bytes(simulate_here(tmp_path_factory.mktemp("reference") / "store.zarr"))
    assert sum(name.startswith("intensity/c/") for name in files) == 24
    return files


@pytest.fixture(scope="session")
def variants():
    return VARIANTS


@pytest.fixture(scope="session")
def reference_of_variants(tmp_path_factory, simulate_here, store_bytes):
    """The store of three variants."""
    files = store_bytes(simulate_here(tmp_path_factory.mktemp("variants") / "store.zarr", *VARIANTS))
    assert sum(name.startswith("intensity/c/") for name in files) == 6
    assert {name.split("/")[1] for name in files if name.startswith("basis/0")} == {"0000", "0001", "0002"}
    return files
