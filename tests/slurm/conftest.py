"""A real SLURM with two nodes for the length of the test session, and the templates in a folder of their own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")
# A job in one of these states stays in it.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"}


class Cluster:
    """Submits the templates and watches their jobs."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        """Where jobs are submitted: a stand-in for the repository, with its templates."""
        self._environment = environment

    def run(self, *command: str | Path, env: dict[str, str] | None = None, timeout: float = 180) -> str:
        """Run a command in `folder`; returns its output."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self._environment | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, template: str, *overrides: str, options: tuple[str, ...] = (), **env: str) -> int:
        """`sbatch OPTIONS slurm/TEMPLATE OVERRIDES` with `env` set; returns the job's id."""
        answer = self.run("sbatch", "--parsable", *options, f"slurm/{template}", *overrides, env=env)
        return int(answer.strip().split(";")[0])

    def job(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self.run("scontrol", "--oneliner", "show", "job", str(job)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self, job: int) -> str:
        """What the job has printed."""
        return "".join(path.read_text() for path in self.folder.glob(f"*-{job}.log"))

    def wait(self, job: int, state: str, timeout: float = 120) -> dict[str, str]:
        """Wait until a job is in a state, such as PENDING or FAILED; returns what `scontrol show job` then says."""
        # Not `sbatch --wait`, which polls ever more slowly.
        self._poll(job, lambda shown: shown["JobState"] == state, state, timeout)
        return self.job(job)

    def completed(self, job: int) -> dict[str, str]:
        """Wait for a job that must succeed; the same."""
        shown = self.wait(job, "COMPLETED")
        assert shown["ExitCode"] == "0:0", f"{shown}\n{self.log(job)}"
        return shown

    def interrupt(self, job: int, begun: Callable[[], bool], timeout: float = 120) -> None:
        """Send the signal that announces the time limit, as soon as `begun` says that work has begun.

        SLURM itself looks at time limits only now and then, so a test cannot wait for it.
        """
        self._poll(job, lambda shown: begun(), "at work", timeout)
        self.run("scancel", "--signal=USR1", "--batch", str(job))

    def _poll(self, job: int, expected: Callable[[dict[str, str]], bool], name: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not expected(shown := self.job(job)):
            if shown["JobState"] in ENDED or time.monotonic() > deadline:
                pytest.fail(
                    f"expected job {job} to be {name} within {timeout:.0f} s\n{shown}\n{self.log(job)}"
                )
            time.sleep(0.1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """SLURM, taken down at the end of the session. Jobs use the Python that runs the tests."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_search_path()) is None]
    if missing:
        pytest.skip(
            f"no SLURM: {', '.join(missing)} not found (Debian, Ubuntu: apt-get install slurm-wlm munge)"
        )
    # Not below pytest's own folder: munged's socket path must be short.
    with tempfile.TemporaryDirectory(prefix="qd-slurm-", ignore_cleanup_errors=True) as temporary:
        simulator, folder = Path(temporary, "sim"), Path(temporary, "repository")
        shutil.copytree(ROOT / "slurm", folder / "slurm", ignore=shutil.ignore_patterns("site.env"))
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM_", "SBATCH_", "QD_", "PMI"))}
        environment = kept | {
            "PATH": _search_path(),
            "QD_VENV": sys.prefix,
            "SLURM_CONF": str(simulator / "slurm.conf"),
            "SLURM_SIM_DIR": str(simulator),
            "SLURM_SIM_PORT": str(_free_ports(3)),
        }
        cluster = Cluster(folder, environment)
        try:
            cluster.run("bash", HERE / "slurm_sim.sh", "up")
            yield cluster
        finally:
            cluster.run("bash", HERE / "slurm_sim.sh", "down")


def _search_path() -> str:
    """The tested Python first; daemons are installed where ordinary users do not look."""
    parts = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    return os.pathsep.join(parts)


def _free_ports(count: int) -> int:
    """The first of `count` free ports in a row."""
    start = 16000 + 40 * (os.getpid() % 250)  # two sessions on one machine look in different places
    for first in range(start, 30000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    pytest.fail(f"expected {count} free ports in a row between {start} and 30000, found none")
