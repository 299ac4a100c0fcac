"""Does `benchmarks/on_gpu.sh` go on after a failing step, leave out what needs a GPU, and report both?"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def on_gpu(run_command: Run, repo_root: Path, tmp_path: Path) -> Run:
    """Runs the script with an MPI that cannot start ranks."""
    launcher = tmp_path / "mpiexec"
    launcher.write_text(
        '#!/bin/sh\ntest "$1" = --version && echo "broken MPI 1.0" && exit\necho "no ranks" >&2\nexit 3\n'
    )
    launcher.chmod(0o755)
    script = (
        f"PATH={tmp_path}:$PATH QD_WORK={tmp_path}/work exec bash {repo_root}/benchmarks/on_gpu.sh " + '"$@"'
    )

    def run(*words: str | Path, returncode: int | None = 0) -> subprocess.CompletedProcess[str]:
        return run_command(["bash", "-c", script, "bash", *words], returncode=returncode)

    return run


def test_failing_step_does_not_stop_the_others(on_gpu: Run, tmp_path: Path) -> None:
    on_gpu("--dry-run", tmp_path / "results", "mpi", "gpu-tests", "machine", returncode=1)
    text = (tmp_path / "results" / "on_gpu.md").read_text()
    steps = [json.loads(line) for line in text.splitlines() if line.startswith('{"step"')]
    assert {step["step"]: step["outcome"] for step in steps} == {
        "mpi": "failed",
        "gpu-tests": "needs a device",
        "machine": "passed",
    }
    assert "## End of the log of mpi\n\n```text\nno ranks\n```" in text
    assert "broken MPI 1.0" in (tmp_path / "work" / "machine.log").read_text()


def test_missing_tool_and_lack_of_time_are_no_failures(on_gpu: Run, repo_root: Path, tmp_path: Path) -> None:
    """With every step replaced by one that says what it lacks, and one that takes too long."""
    script = (repo_root / "benchmarks/on_gpu.sh").read_text()
    lines = [line for line in script.splitlines() if line.startswith("command -v compute-sanitizer")]
    assert len(lines) == 2
    machine = "python3 --version\n"
    assert script.count(machine) == 1
    copy = tmp_path / "benchmarks" / "on_gpu.sh"
    copy.parent.mkdir()
    (copy.parent / "write_results.py").write_text((repo_root / "benchmarks/write_results.py").read_text())
    copy.write_text(script.replace(machine, "exit 77\n").replace("step mpi cpu", "step mpi gpu"))
    command = f"PATH={tmp_path}:$PATH QD_WORK={tmp_path}/work QD_LIMIT_S=12 bash {copy} {tmp_path}/results "
    sleep = tmp_path / "mpiexec"
    sleep.write_text("#!/bin/sh\nsleep 40\n")
    done = subprocess.run(
        ["bash", "-c", command + "machine mpi simulate-gpu"], capture_output=True, text=True, check=False
    )
    text = (tmp_path / "results" / "on_gpu.md").read_text()
    steps = [json.loads(line) for line in text.splitlines() if line.startswith('{"step"')]
    outcomes = {step["step"]: step["outcome"] for step in steps if step["step"] != "install"}
    assert outcomes == {
        "machine": "tool is missing",
        "mpi": "stopped, no time left",
        "simulate-gpu": "no time left",
    }, done.stderr


def test_list_has_every_test_that_needs_a_gpu(on_gpu: Run) -> None:
    listed = on_gpu("--list").stdout
    assert "gpu-tests (gpu): Every test that needs a GPU" in listed
    assert "tests/kernels/test_nested_cuda.py::test_gpu_equals_all_pairs" in listed
    assert "tests/kernels/test_pairs_cuda.py::test_gpu_equals_the_reference_twice" in listed
    assert "compute-sanitizer --tool racecheck" in listed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry-run", "results", "nothing"], "error: there is no step nothing; the steps are: machine mpi"),
        (["--dryrun"], "error: expected --list, --dry-run or a folder for the results, got --dryrun"),
    ],
)
def test_wrong_arguments(words: list[str], message: str, on_gpu: Run) -> None:
    assert message in on_gpu(*words, returncode=2).stderr
