"""Compile and run CUDA C on the CPU; `cuda_on_cpu.hpp` says what it detects.

Enough for kernels of one source file without templates: `CpuModule(source, folder).launch(...)` takes NumPy arrays and
scalars. Macros are given as to nvcc, `-DNAME=VALUE`.
"""

import ctypes
import hashlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_HEADERS = [Path(__file__).with_name(name) for name in ("cuda_on_cpu.hpp", "simt.hpp")]
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{")
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;")
_STATIC_SHARED = re.compile(r"__shared__\s+([\w ]+?)\s+(\w+)\s*\[([^\[\]]+)\]\s*;")
_POINTER = re.compile(r"^(.*?)\s*\*\s*(?:__restrict__\s+)?(\w+)$", re.DOTALL)


class KernelError(RuntimeError):
    """The kernel did something that a GPU leaves undefined, or the launch does not fit it."""


class CpuModule:
    """The kernels of one CUDA source, compiled with g++."""

    def __init__(self, source: str, folder: Path, macros: Sequence[str] = ()) -> None:
        kernels = {name: _parameters(text) for name, text in _KERNEL.findall(source)}
        program = _translate(source) + "".join(_entry(name, kernels[name]) for name in kernels)
        digest = hashlib.sha256("\n".join((*macros, program)).encode())
        for header in _HEADERS:
            digest.update(header.read_bytes())
        stem = folder / digest.hexdigest()[:16]
        library = stem.with_suffix(".so")
        if not library.exists():
            stem.with_suffix(".cpp").write_text(program)
            flags = ["-std=gnu++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wno-unknown-pragmas"]
            command = [
                "g++",
                *flags,
                *macros,
                f"-I{_HEADERS[0].parent}",
                stem.with_suffix(".cpp"),
                "-o",
                library,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise KernelError(f"g++ does not compile the CUDA source:\n{done.stderr}")
        self._library = ctypes.CDLL(str(library))
        self._kernels = kernels

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence,
        *,
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel to its end; arrays among the arguments are changed in place.

        Raises:
            KernelError: see the class.
        """
        parameters = self._kernels[kernel]
        if len(arguments) != len(parameters):
            raise KernelError(f"{kernel} takes {len(parameters)} arguments, got {len(arguments)}")
        threads = int(np.prod(block))
        if not 0 < threads <= 1024:
            raise KernelError(f"a block has 1 to 1024 threads, got {threads}")
        kept = [_checked(value, *parameter) for value, parameter in zip(arguments, parameters, strict=True)]
        packed = (_Argument * len(kept))(*(_Argument(array.ctypes.data, array.nbytes) for array in kept))
        entry = self._library[f"{kernel}_on_cpu"]
        entry.restype = ctypes.c_char_p
        entry.argtypes = [ctypes.c_uint * 3, ctypes.c_uint * 3, ctypes.c_size_t, ctypes.c_void_p]
        error = entry(_dim3(grid), _dim3(block), shared_bytes, packed)
        if error is not None:
            raise KernelError(f"{kernel}, {error.decode()}")


class _Argument(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


def _dim3(size: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_uint * 3)(*size, *(1,) * (3 - len(size)))


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    """(type, name, is a pointer) of each parameter of a kernel."""
    parameters = []
    for parameter in (" ".join(part.split()) for part in text.split(",") if part.strip()):
        pointer = _POINTER.match(parameter)
        kind, name = pointer.groups() if pointer else parameter.rsplit(" ", 1)
        parameters.append((kind, name, pointer is not None))
    return parameters


def _checked(value: object, kind: str, name: str, pointer: bool) -> np.ndarray:
    """An argument as an array that the kernel may use directly."""
    if pointer != (isinstance(value, np.ndarray) and value.ndim > 0):
        raise KernelError(
            f"argument {name} is {'an array' if pointer else 'a number'}, got {type(value).__name__}"
        )
    array = np.asarray(value)
    if not array.flags.c_contiguous:
        raise KernelError(f"argument {name} must be contiguous")
    if "const" not in kind.split() and pointer and not array.flags.writeable:
        raise KernelError(f"argument {name} is written to, got a read-only array")
    return array


def _translate(source: str) -> str:
    """The source with the declarations rewritten that the header cannot change by macros; lines keep their numbers."""

    def signature(match: re.Match[str]) -> str:
        rewritten = ", ".join(
            f"simt::Global<{kind}> {name}" if pointer else f"{kind} {name}"
            for kind, name, pointer in _parameters(match[2])
        )
        return match[0].replace(match[2], rewritten + "\n" * match[2].count("\n"))

    source = _DYNAMIC_SHARED.sub(r'auto& \2 = simt::dynamic_shared<\1>("\2");', source)
    source = _STATIC_SHARED.sub(r'static simt::Shared<\1> \2("\2", \3);', source)
    return f'#include "{_HEADERS[0].name}"\n#line 1\n{_KERNEL.sub(signature, source)}\n'


def _entry(kernel: str, parameters: list[tuple[str, str, bool]]) -> str:
    """A C function that launches the kernel with an array of arguments."""
    values = [
        f'simt::Global<{kind}>("{name}", arguments[{i}].data, arguments[{i}].bytes)'
        if pointer
        else f'simt::scalar<std::remove_const_t<{kind}>>("{name}", arguments[{i}])'
        for i, (kind, name, pointer) in enumerate(parameters)
    ]
    locals_ = "".join(f"    const auto argument{i} = {value};\n" for i, value in enumerate(values))
    call = ", ".join(f"argument{i}" for i in range(len(values)))
    return f"""
extern "C" const char* {kernel}_on_cpu(const unsigned* grid, const unsigned* block, size_t shared_bytes,
                                       const simt::Argument* arguments)
{{
    simt::error.clear();
{locals_}    return simt::launch(grid, block, shared_bytes, [=] {{ {kernel}({call}); }});
}}
"""
