"""What every test shares: the marker of its folder, GPU and slow tests, running commands as subprocesses."""

import importlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("unit", "physics", "kernels", "mpi", "slurm", "integration", "architecture")

sys.path.insert(
    0, str(ROOT / "tests")
)  # dot_store.py and its neighbours: importlib mode adds no folder of its own

# Before NumPy or torch are imported: ranks and loaders share few cores, and one thread adds in one order.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", MPLBACKEND="Agg")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the research-size tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run_slow = config.getoption("--slow") or "slow" in config.getoption("-m")
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder not in FOLDERS:
            raise pytest.UsageError(f"{item.path}: tests live in one of tests/{{{','.join(FOLDERS)}}}/")
        item.add_marker(folder)
        if item.get_closest_marker("slow") and not run_slow:
            item.add_marker(pytest.mark.skip(reason="slow: run it with --slow or -m slow"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    marker = item.get_closest_marker("gpu")
    missing = _why_no_gpu(*marker.args, **marker.kwargs) if marker else None
    if missing and os.environ.get("QD_REQUIRE_GPU") == "1":
        pytest.fail(f"QD_REQUIRE_GPU=1, but {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


@cache
def _why_no_gpu(library: str = "cupy") -> str | None:
    """Why `library` cannot use a CUDA device, or None if it can."""
    try:
        module = importlib.import_module(library)
    except ImportError:
        return f"no GPU test: {library} is not installed"
    if not module.cuda.is_available():
        return f"no GPU test: {library} {module.__version__} sees no CUDA device or driver"
    return None


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the working tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Measured patterns and solvents that are not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("measured patterns are not beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `qd-simulate experiment=smoke`: 96 samples of dots of 2 to 3 nm. To be read only."""
    from runs import simulated

    return simulated(tmp_path_factory.mktemp("smoke") / "store.zarr")


@pytest.fixture(scope="module")
def few_for_whitening() -> Iterator[None]:
    """Networks whiten by what a thousand patterns say: enough for the sixty components of small ones.

    For one file: runs of other files are compared with those of the command line, which know nothing of it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qdml.trainer._WHITENING_PATTERNS", 1024)
        yield


@pytest.fixture
def run_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in `tmp_path` and return it with its output; see `_run`."""

    def run(command: Sequence[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
        return _run(command, **{"cwd": tmp_path, **options})

    return run


def _run(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 120,
    returncode: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run `command`, fail the test with its output unless it ends with `returncode` in `timeout` seconds.

    Args:
        command: Words; "python" is the Python that runs the tests; its folder is first on PATH, so that
            mpiexec, torchrun and qd-* come from there.
        cwd: Where it runs.
        env: Changes to the environment; None removes a variable.
        timeout: After this many seconds the command and all its children are killed.
        returncode: What it must return; None accepts anything but 0.
    """
    words = [sys.executable if word == "python" else str(word) for word in command]
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=_environment(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a time-out reaches the ranks below mpiexec or torchrun too
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        expected = "an error" if returncode is None else returncode
        problem = f"returned {process.returncode}, expected {expected}"
        passed = process.returncode != 0 if returncode is None else process.returncode == returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        problem, passed = f"still ran after {timeout:.0f} s", False
    if not passed:
        pytest.fail(
            f"$ {shlex.join(words)}\n{problem}\n"
            f"--- stdout (last 6000 characters)\n{stdout[-6000:]}\n"
            f"--- stderr (last 6000 characters)\n{stderr[-6000:]}",
            pytrace=False,
        )
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """A child's environment: no trace of a job around the tests, the tested Python first on PATH."""
    launchers = ("SLURM_", "PMI_", "PMIX_", "OMPI_", "HYDRA_", "TORCHELASTIC_")
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not (name.startswith(launchers) or name in ranks)
    }
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept
