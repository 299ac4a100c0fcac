"""What every benchmark shares: timing with warm-up and device synchronisation, and one JSON record per result.

A record says what was measured (`benchmark`, `config`, `result`), how often (`timing`: median and quartiles of repeats
after a warm-up) and everything needed to repeat it (`machine`: hardware, versions, commit, date).
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hpc.device import Device, select_device

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "numba", "scipy", "zarr", "torch", "cupy-cuda12x", "cupy-cuda13x", "mpi4py")


def read_arguments(
    description: str,
    words: Sequence[str] | None = None,
    more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> argparse.Namespace:
    """The options of every benchmark, and `more` of one (from the command line, or `words`); `device` is selected."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--output", type=Path, help="append the JSON lines to this file too")
    parser.add_argument("--quick", action="store_true", help="sizes that take seconds: does it run?")
    for name, settings in more.items():
        parser.add_argument(name, **settings)
    arguments = parser.parse_args(words)
    arguments.device = select_device(arguments.device)
    return arguments


def measure(work: Callable[[], Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Time `work` after one warm-up: five times, and more often while that takes less than a second (`--quick`: once).

    The device is synchronised before each reading of the clock.

    Returns:
        median_s, quartiles_s (25 %, 75 %), repeats.
    """
    synchronise = _synchroniser(arguments.device)
    work()
    synchronise()
    least, seconds = (1, 0.0) if arguments.quick else (5, 1.0)
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 1000):
        start = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - start)
    quartiles = np.quantile(times, [0.25, 0.5, 0.75])
    return {
        "median_s": float(quartiles[1]),
        "quartiles_s": [float(quartiles[0]), float(quartiles[2])],
        "repeats": len(times),
    }


def _synchroniser(device: Device) -> Callable[[], Any]:
    if device.kind == "cpu":
        return lambda: None
    return device.xp.cuda.Device(device.index).synchronize


def emit(
    benchmark: str,
    arguments: argparse.Namespace,
    *,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    timing: Mapping[str, Any] | None,
) -> None:
    """Print one record as a JSON line, and append it to `--output`; timing is None where nothing could be timed."""
    record = {
        "benchmark": benchmark,
        "device": arguments.device.kind,
        "quick": arguments.quick,
        "config": config,
        "result": result,
        "timing": timing,
        "machine": machine(arguments.device),
    }
    line = json.dumps(record)
    print(line, flush=True)
    if arguments.output is not None:
        with arguments.output.open("a") as file:
            file.write(line + "\n")


@cache
def machine(device: Device) -> dict[str, Any]:
    """Hardware, versions, commit and date."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }
    if device.kind == "cuda":
        runtime = device.xp.cuda.runtime
        found["gpu"] = {
            "name": device.name,
            "compute_capability": device.compute_capability,
            "multiprocessors": device.xp.cuda.Device(device.index).attributes["MultiProcessorCount"],
            "memory_gib": round(device.xp.cuda.Device(device.index).mem_info[1] / 2**30, 1),
            "driver": runtime.driverGetVersion(),
            "runtime": runtime.runtimeGetVersion(),
        }
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, with "+" for uncommitted changes; QD_COMMIT where the files were copied without their history."""
    if "QD_COMMIT" in os.environ:
        return os.environ["QD_COMMIT"]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
