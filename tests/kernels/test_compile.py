"""Does nvcc accept every kernel for the GPUs we name, without spilling registers?"""

import re
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

SOURCES = sorted(entry.name for entry in (files("hpc") / "cuda").iterdir() if entry.name.endswith(".cu"))


def test_there_are_kernels() -> None:
    assert {"nested.cu", "pairs.cu"} <= set(SOURCES)


# Sources and what the host compiles them with: the defaults, and what the benchmarks try.
VARIANTS = [(source, "") for source in SOURCES] + [
    ("pairs.cu", "-DMOMENTS=6"),
    ("pairs.cu", "-DTILE=64"),
    ("pairs.cu", "-DTILE=256 -DTHREADS=512"),
    ("pairs.cu", "-DTHREADS=512"),
]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("source", "macros"), VARIANTS)
def test_compiles_without_spills(
    source: str,
    macros: str,
    architecture: str,
    nvcc: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    text = (files("hpc") / "cuda" / source).read_text()
    (tmp_path / source).write_text(text)
    command = [
        nvcc,
        f"-arch={architecture}",
        "-std=c++17",
        "-cubin",
        "-Xptxas",
        "-v",
        "-Werror",
        "all-warnings",
        *(["-ftz=true"] if source == "pairs.cu" else []),  # as hpc.cuda.pairs does
        *macros.split(),
    ]
    done = subprocess.run([*command, source], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    kernels = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)]
    spills = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr
    )
    assert len(kernels) == len(registers) == text.count("__global__") > 0
    for kernel, count in zip(kernels, registers, strict=True):
        record_property(f"{kernel}_{architecture}_registers", count)
        print(f"{source} {macros}: {kernel} on {architecture} uses {count} registers")  # noqa: T201  shown by pytest -rP
    assert spills
    assert set(spills) == {("0", "0", "0")}, done.stderr
