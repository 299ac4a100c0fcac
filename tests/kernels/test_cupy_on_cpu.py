"""Does the stand-in for CuPy refuse what a GPU refuses?"""

from collections.abc import Callable

import array_api_compat
import numpy as np
import pytest
from cuda_on_cpu import KernelError
from cupy_on_cpu import DeviceArray

from hpc.device import Device

EMPTY = "__global__ void kernel(int* out)\n{\n}\n"


@pytest.fixture
def device(on_cpu: Callable[..., Device]) -> Device:
    return on_cpu()


def test_arithmetic_stays_on_the_device(device: Device) -> None:
    xp = device.xp
    a = xp.asarray(np.arange(6.0).reshape(2, 3))
    b = xp.where(a > 2, 2 * a - 1, xp.zeros(a.shape)) @ xp.ones((3, 2))
    b[0, :] = b[1, :].sum()
    b /= 2
    assert isinstance(b, DeviceArray)
    assert array_api_compat.array_namespace(b) is xp
    assert device.to_host(b).tolist() == [[21.0, 21.0], [10.5, 10.5]]
    assert device.to_host(xp.cumsum(a, axis=0)[:, np.array([2, 0])]).tolist() == [[2.0, 0.0], [7.0, 3.0]]


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here,
        lambda here, there: here.__setitem__(slice(None), there),
        lambda here, there: there.__setitem__(slice(None), here),
        lambda here, there: np.asarray(here),
        lambda here, there: np.sin(here, out=there),
    ],
    ids=["addition", "product", "assignment", "assignment to NumPy", "asarray", "output"],
)
def test_numpy_arrays_do_not_mix_with_those_of_the_device(mix: Callable, device: Device) -> None:
    with pytest.raises(TypeError, match=r"Implicit conversion|Unsupported type"):
        mix(device.xp.ones((3, 3)), np.ones((3, 3)))


def test_memory_is_not_shared(device: Device) -> None:
    host = np.zeros(3)
    there = device.xp.asarray(host)
    there += 1
    assert host.tolist() == [0, 0, 0]


def test_shared_memory_needs_an_opt_in(device: Device) -> None:
    kernel = device.xp.RawKernel(EMPTY, "kernel")
    arguments = (device.xp.zeros(64, dtype=np.int32),)
    with pytest.raises(KernelError, match="a block may use 49152 bytes of shared memory, got 50000"):
        kernel((1,), (64,), arguments, shared_mem=50_000)
    kernel.max_dynamic_shared_size_bytes = 50_000
    kernel((1,), (64,), arguments, shared_mem=50_000)


def test_kernel_takes_no_array_of_the_host(device: Device) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        device.xp.RawKernel(EMPTY, "kernel")((1,), (64,), (np.zeros(64, dtype=np.int32),))
