"""Does `select_device` take what was asked for, or say why it cannot?"""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hpc.device import require_cupy, select_device


def _install_cupy(monkeypatch: pytest.MonkeyPatch, *, gpus: int, error: str | None = None) -> list[int]:
    """A stand-in for CuPy that sees `gpus` devices; returns the list of those that were made current."""

    class CUDARuntimeError(RuntimeError):
        pass

    class Gpu:
        compute_capability = "90"
        mem_info = (70 * 2**30, 80 * 2**30)

        def __init__(self, index: int) -> None:
            self.index = index

        def use(self) -> None:
            current.append(self.index)

    def count() -> int:
        if error:
            raise CUDARuntimeError(error)
        return gpus

    current: list[int] = []
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=count,
        getDeviceProperties=lambda index: {"name": f"GPU number {index}".encode()},
    )
    module = SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime, Device=Gpu))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return current


@pytest.mark.parametrize(("local_rank", "expected"), [(0, 0), (1, 1), (2, 0), (5, 1)])
def test_ranks_share_the_visible_gpus(
    local_rank: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = _install_cupy(monkeypatch, gpus=2)
    device = select_device("cuda", local_rank=local_rank)
    assert (device.kind, device.index, device.name) == ("cuda", expected, f"GPU number {expected}")
    assert (device.compute_capability, device.free_bytes) == ("9.0", 70 * 2**30)
    assert device.xp is sys.modules["cupy"]
    assert current == [expected], "the GPU is CuPy's current device"


def test_auto_takes_a_gpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _install_cupy(monkeypatch, gpus=1)
    with caplog.at_level(logging.INFO):
        assert select_device("auto").kind == "cuda"
    assert "device=auto took GPU 0 (GPU number 0, compute capability 9.0, 70.0 GiB free)" in caplog.text


@pytest.mark.parametrize(
    ("gpus", "error", "reason"),
    [
        (0, None, r"no GPU is visible \(CUDA_VISIBLE_DEVICES=''\)"),
        (
            1,
            "cudaErrorInsufficientDriver",
            "CuPy 14.2.0 finds no usable GPU \\(cudaErrorInsufficientDriver\\)",
        ),
    ],
)
def test_no_usable_gpu(
    gpus: int,
    error: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _install_cupy(monkeypatch, gpus=gpus, error=error)
    with pytest.raises(ValueError, match=f"device=cuda: {reason}; run on a GPU node or choose device=cpu"):
        select_device("cuda")
    with caplog.at_level(logging.INFO):
        assert select_device("auto").kind == "cpu"
    assert "device=auto took the CPU" in caplog.text


def test_cupy_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # what Python does for a module that must not be found
    with pytest.raises(ValueError, match=r"device=cuda: .*debye-dots\[cuda12\] or debye-dots\[cuda13\]"):
        select_device("cuda")
    with pytest.raises(ValueError, match="cannot be imported"):
        require_cupy()
    assert select_device("auto").kind == "cpu"


def test_cpu_does_not_touch_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    device = select_device("cpu", local_rank=3)
    assert (device.kind, device.index, device.compute_capability) == ("cpu", 0, None)
    assert device.xp is np
    assert device.free_bytes > 0
    array = np.arange(3)
    assert device.to_host(array) is array


def test_unknown_request() -> None:
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'gpu'"):
        select_device("gpu")
