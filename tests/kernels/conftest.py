"""Compilers and devices of the kernel tests."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc.device import Device, select_device

sys.path.insert(
    0, str(Path(__file__).parent)
)  # cuda_on_cpu.py and cupy_on_cpu.py are shared by the tests beside them


@pytest.fixture(scope="session")
def nvcc() -> str:
    """The CUDA compiler."""
    path = shutil.which("nvcc")
    if path is None:
        pytest.skip("nvcc is not on the PATH: kernels are not compiled for a GPU")
    return path


@pytest.fixture(scope="session")
def cpu_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which CUDA sources are compiled for the CPU, once for all tests."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not on the PATH: kernels are not executed on the CPU")
    return tmp_path_factory.mktemp("cuda_on_cpu")


@pytest.fixture
def on_cpu(cpu_kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    """Makes a GPU out of the CPU; its properties are the options of `CupyOnCpu`."""
    from cupy_on_cpu import CupyOnCpu

    import hpc.cuda.nested
    import hpc.cuda.pairs

    def install(**properties: int) -> Device:
        monkeypatch.setitem(sys.modules, "cupy", CupyOnCpu(cpu_kernels, **properties))
        return select_device("cuda")

    caches = hpc.cuda.nested._kernel, hpc.cuda.pairs._kernel
    for cache in caches:  # of a real GPU
        cache.cache_clear()
    yield install
    for cache in caches:
        cache.cache_clear()
