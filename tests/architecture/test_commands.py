"""Every command explains itself at once, without CUDA, MPI, SLURM or any library that is slow to load."""

import importlib.util
import os
import resource
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = [target.removesuffix(":main") for target in SCRIPTS.values()] + ["qdml.example", "qdml.report"]
TIME_LIMIT_S = 2.0

# What a help text must not wait for. Without an MPI library mpi4py raises RuntimeError, not ImportError.
BLOCKER = """
import sys

HEAVY = {"torch", "cupy", "numba", "zarr", "scipy", "matplotlib", "xraydb", "xraylib", "ase", "pandas"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)
        if name == "mpi4py.MPI":
            raise RuntimeError("cannot load MPI library (blocked by the test)")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """An environment where the heavy libraries cannot be imported and no launcher or scheduler is found."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": str(tmp_path), "PATH": str(Path(sys.executable).parent), "CUDA_VISIBLE_DEVICES": ""}


def test_the_blocker_blocks(run_command, bare_machine) -> None:
    assert (
        "blocked by the test"
        in run_command(["python", "-c", "import torch"], env=bare_machine, returncode=1).stderr
    )
    assert (
        "cannot load MPI library"
        in run_command(["python", "-c", "import mpi4py.MPI"], env=bare_machine, returncode=1).stderr
    )


def test_packages_import_on_a_bare_machine(run_command, bare_machine) -> None:
    run_command(["python", "-c", "import hpc, qdml, conf"], env=bare_machine)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_immediate(command: str, run_command, bare_machine) -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = run_command(["python", "-m", command, "--help"], env=bare_machine)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert len(shown.stdout.splitlines()) > 5, f"says too little:\n{shown.stdout}"
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # CPU time, the better of two: the first run may compile, and other programs may use the machine.
    assert min(cpu_seconds(), cpu_seconds()) < TIME_LIMIT_S


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_its_module(script: str) -> None:
    module, function = SCRIPTS[script].split(":")
    assert function == "main"
    assert importlib.util.find_spec(module)
    installed = Path(sys.executable).parent / script
    assert os.access(installed, os.X_OK), "run `pip install -e .` again"
