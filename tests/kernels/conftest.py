"""Compilers and devices of the kernel tests."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # cuda_on_cpu.py is shared by the tests beside it


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
