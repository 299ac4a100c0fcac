"""A stand-in for CuPy on a machine without a GPU: what the code for `device=cuda` sees in tests.

Kernels run on the CPU executor, and arrays of the stand-in refuse what arrays on a GPU refuse: to meet NumPy arrays in
an operation, or to become one without `asnumpy`. So a test finds both wrong launches and data on the wrong side. The
numbers are NumPy's; speed, memory and order of additions are not those of a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cuda_on_cpu import CpuModule, KernelError
from numpy.lib.mixins import NDArrayOperatorsMixin


class DeviceArray(NDArrayOperatorsMixin):
    """An array that lives on the stand-in's GPU."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()` to construct one.")

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            options["out"] = tuple(_to_numpy(array) for array in options["out"])
        return _to_device(getattr(function, method)(*map(_to_numpy, inputs), **options))

    def __array_namespace__(self, **_: object) -> "CupyOnCpu":
        return self.namespace

    def __getitem__(self, key: Any) -> Any:
        return _to_device(self.data[_index(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.data[_index(key)] = _to_numpy(value)

    def __len__(self) -> int:
        return len(self.data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.data, name)
        return _through(found) if callable(found) else _to_device(found)

    namespace: "CupyOnCpu"


def _to_numpy(value: Any) -> Any:
    """The data of a device array; a number as it is; NumPy arrays are refused, as CuPy does."""
    if isinstance(value, DeviceArray):
        return value.data
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, list | tuple):
        return type(value)(map(_to_numpy, value))
    return value


def _to_device(value: Any) -> Any:
    # Reductions of CuPy stay on the device as arrays of no dimension.
    return DeviceArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _index(key: Any) -> Any:
    """An index may hold NumPy arrays: CuPy copies them to the device."""
    if isinstance(key, tuple):
        return tuple(map(_index, key))
    return key.data if isinstance(key, DeviceArray) else key


def _through(function: Callable) -> Callable:
    """A function of NumPy that takes and gives device arrays."""

    def call(*arguments: Any, **options: Any) -> Any:
        options = {name: _to_numpy(value) for name, value in options.items()}
        return _to_device(function(*map(_to_numpy, arguments), **options))

    return call


class CupyOnCpu(ModuleType):
    """The module; whatever is not defined here is NumPy's function of the same name, on device arrays."""

    __version__ = "0 (on the CPU)"

    def __init__(
        self, folder: Path, *, gpus: int = 1, opt_in_bytes: int = 227 * 1024, free_bytes: int = 80 * 2**30
    ):
        """A machine.

        Args:
            folder: where kernels are compiled.
            gpus: how many there are.
            opt_in_bytes: shared memory that a block may ask for.
            free_bytes: memory that each GPU says it has left.
        """
        super().__init__("cupy")
        DeviceArray.namespace = self
        # array-api-compat would wrap arrays of this type with a module that imports the real CuPy; those of the
        # stand-in name their namespace themselves.
        self.ndarray = type("ndarray", (), {})
        self.cuda = _cuda(gpus, opt_in_bytes, free_bytes)
        self.RawKernel = _raw_kernel(folder, opt_in_bytes)

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return found if isinstance(found, type) or not callable(found) else _through(found)

    def asarray(self, value: Any, dtype: Any = None) -> DeviceArray:
        return value if isinstance(value, DeviceArray) and dtype is None else self.array(value, dtype)

    def array(self, value: Any, dtype: Any = None) -> DeviceArray:
        return DeviceArray(np.array(value.data if isinstance(value, DeviceArray) else value, dtype=dtype))

    def asnumpy(self, value: Any) -> np.ndarray:
        return np.array(value.data if isinstance(value, DeviceArray) else value)

    def get_default_memory_pool(self) -> Any:
        return _namespace(free_bytes=lambda: 0)


def _namespace(**members: Any) -> ModuleType:
    module = ModuleType("part of the stand-in for CuPy")
    module.__dict__.update(members)
    return module


def _cuda(gpus: int, opt_in_bytes: int, free_bytes_: int) -> ModuleType:
    class Device:
        compute_capability = "90"
        mem_info = (free_bytes_, free_bytes_)
        attributes: dict[str, int] = {  # noqa: RUF012  as CuPy has it
            "MaxSharedMemoryPerBlockOptin": opt_in_bytes,
            "MaxSharedMemoryPerMultiprocessor": opt_in_bytes + 1024,
            "MultiProcessorCount": 132,
            "ClockRate": 1_980_000,
        }

        def __init__(self, index: int) -> None:
            if not 0 <= index < gpus:
                raise ValueError(f"there is no GPU {index}")

        def use(self) -> None: ...

        def synchronize(self) -> None: ...

        def __enter__(self) -> "Device":
            return self

        def __exit__(self, *_: object) -> None: ...

    runtime = _namespace(
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: gpus,
        getDeviceProperties=lambda index: {"name": b"CPU as GPU"},
    )
    return _namespace(Device=Device, runtime=runtime, is_available=lambda: gpus > 0)


def _raw_kernel(folder: Path, opt_in_bytes: int) -> type:
    class RawKernel:
        max_dynamic_shared_size_bytes = 48 * 1024

        def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
            macros = [option for option in options if option.startswith("-D")]
            self._module, self._name = CpuModule(code, folder, macros), name

        def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
            allowed = min(self.max_dynamic_shared_size_bytes, opt_in_bytes)
            if shared_mem > allowed:
                raise KernelError(f"a block may use {allowed} bytes of shared memory, got {shared_mem}")
            arguments = [_to_numpy(argument) for argument in args]
            self._module.launch(self._name, grid, block, arguments, shared_bytes=shared_mem)

    return RawKernel
