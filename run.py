#!/usr/bin/env python3
"""Set up and run debye-dots on a machine that has nothing but git and Python 3.11, 3.12 or 3.13.

    python3 run.py demo            simulate, train, size patterns that the model has never seen: a report
    python3 run.py tests [ARGS]    ruff, mypy and pytest; ARGS go to pytest (for example: tests/unit -x, or -n 0 --pdb)

Both first make or update the Python environment in .venv; nothing outside this folder is changed.
"""

import hashlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STAMP = ROOT / ".venv" / "debye-dots-is-set-up"
INSTALL = "python -m pip install -c constraints/cpu.txt -e '.[test,mpich]'"
DEMO = {
    "Simulate PbS patterns and the basis of all sizes on 2 MPI ranks": (
        "mpiexec -n 2 python -m mpi4py -m hpc.simulate experiment=quick store.path=runs/quick/store.zarr"
    ),
    "Train a network on new dots in every batch, with 2 DDP processes": (
        "python -m torch.distributed.run --standalone --nproc-per-node 2 -m qdml.train"
        " experiment=quick data.store=runs/quick/store.zarr output=runs/quick/model"
    ),
    "Measure how good it is beside what can be known at all": (
        "python -m qdml.evaluate model=runs/quick/model data.store=runs/quick/store.zarr"
        " output=runs/quick/evaluation patterns=64 refine=false"
    ),
    "Make up measurements of solutions of PbS dots": "python -m qdml.example runs/quick/samples",
    "Size them": (
        "python -m qdml.predict runs/quick/samples/*.xye --wavelength 0.564162"
        " --model runs/quick/model -o runs/quick/sizes"
    ),
    "Collect everything in one report": "python -m qdml.report runs/quick",
}
# Most tests use one core. Whole files go to each worker, in the order of the folders: the fast ones come last. A worker
# needs 2 GB, and some tests start three processes.
WORKERS = ("-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile", "--no-loadscope-reorder")
COLUMNS = (("diameter_volume_nm", 1, "6.2f"), ("diameter_nm", 1, "6.2f"), ("sigma", 100, "6.1f"))
START = time.monotonic()


def main(*arguments: str) -> int:
    """Run the command that `arguments` name; returns its exit code."""
    if arguments != ("demo",) and arguments[:1] != ("tests",):
        print((__doc__ or "").strip())
        return 0 if arguments in (("-h",), ("--help",)) else 2
    os.chdir(ROOT)
    os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))  # two ranks share them
    set_up()
    return demo() if arguments[0] == "demo" else tests(*arguments[1:])


def demo() -> int:
    """From a grid of sizes to a report."""
    for number, (title, command) in enumerate(DEMO.items(), 1):
        code = step(f"{number}/{len(DEMO)} {title}", command)
        if code:
            print(f"\nStep {number} failed, see above. The same command goes on from there.", file=sys.stderr)
            return code
    run = ROOT / "runs" / "quick"
    truth = {sample["file"]: sample for sample in json.loads((run / "samples/truth.json").read_text())}
    print(f"\n{'':36}volume mean D_v (nm){'':12}mean D (nm){'':21}dispersion (%)")
    print(f"{'sample':36}" + f"true  found  68 %{'':15}" * 3)
    for result in json.loads((run / "sizes/results.json").read_text())["results"]:
        name = Path(result["file"]).name
        line = f"{name:34}"
        for quantity, scale, form in COLUMNS:
            mean, low, high = (format(scale * result[quantity][k], form) for k in ("mean", "lo68", "hi68"))
            line += f"{scale * truth[name][quantity]:{form}} {mean} {low} to{high}   "
        print(line.rstrip())
    print(f"\nReport with all figures: {run / 'report.html'}")
    return 0


def tests(*arguments: str) -> int:
    """Everything a change has to pass; the summary of pytest comes last."""
    checks = {"ruff": "python -m ruff check", "mypy": "python -m mypy"}
    failed = [tool for tool, command in checks.items() if step(f"Check the code with {tool}", command)]
    code = step("Run the tests", shlex.join(["python", "-m", "pytest", *WORKERS, *arguments]))
    if failed:
        print(f"\n{' and '.join(failed)} found problems, see above.", file=sys.stderr)
    return code or len(failed)


def set_up() -> None:
    """Make .venv what pyproject.toml and constraints/ ask for, unless that is already done."""
    requirements = [(ROOT / name).read_text() for name in ("pyproject.toml", "constraints/cpu.txt")]
    wanted = hashlib.sha256("\0".join([str(ROOT), *requirements]).encode()).hexdigest()
    usable = environment_works()
    if usable and STAMP.is_file() and STAMP.read_text() == wanted:
        return
    if not usable:
        if not (3, 11) <= sys.version_info[:2] <= (3, 13):
            sys.exit(f"This is Python {sys.version.split()[0]}; start run.py with Python 3.11, 3.12 or 3.13.")
        command = shlex.join([sys.executable, "-m", "venv", "--clear", ".venv"])
        if not importlib.util.find_spec("ensurepip") or step("Make a Python environment in .venv", command):
            sys.exit("Python can make no environment here. On Debian, Ubuntu: sudo apt install python3-venv")
    if step("Install debye-dots and what it needs in .venv, about 2 GB", INSTALL):
        sys.exit("pip could not install everything, see above. Is there a network, and room on the disk?")
    STAMP.write_text(wanted)


def environment_works() -> bool:
    """Whether .venv has a Python with pip: not so when it is half made, or its Python has been removed."""
    pip = [str(ROOT / ".venv" / "bin" / "python"), "-m", "pip", "--version"]
    try:
        return subprocess.call(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def step(title: str, command: str) -> int:
    """Say what runs and when, run it, return its exit code (128 + signal if a signal ended it)."""
    minutes, seconds = divmod(int(time.monotonic() - START), 60)
    print(f"\n[{minutes:02d}:{seconds:02d}] {title}\n$ {command}", flush=True)
    process = subprocess.Popen(["sh", "-c", f"exec {command}"])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()  # a launcher stops its ranks; a second Ctrl-C does not wait for it
        raise
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cancelled job ends like Ctrl-C
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from there.", file=sys.stderr)
        sys.exit(130)
