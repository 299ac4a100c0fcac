"""When a job ends, fails or goes back into the queue: the templates with a stand-in for every command of SLURM."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SLURM = Path(__file__).resolve().parents[2] / "slurm"

# The step: notes what it was given, ends with $STATUS, and if that is empty waits for a signal, whose name it notes.
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" "MASTER=${MASTER_ADDR:-}:${MASTER_PORT:-}" "NETMOD=${MPIR_CVAR_CH4_NETMOD:-}" > srun.new
for name in TERM USR1; do trap "echo $name > signal; sleep 0.5; touch stopped.txt; exit $AFTER_SIGNAL" "$name"; done
mv srun.new srun.txt
if [[ -n $STATUS ]]; then exit "$STATUS"; fi
for ((i = 0; i < 200; i++)); do sleep 0.1; done
"""
SCONTROL = """#!/usr/bin/env bash
case "$*" in
  "show hostnames node[7-8]") printf 'node7\\nnode8\\n' ;;
  "show node node7") echo "   NodeAddr=10.1.2.3 NodeHostName=host7 Version=22.05" ;;
  *) echo "$* $([[ -e stopped.txt ]] && echo after || echo during) the step" >> scontrol.txt ;;
esac
"""
JOB = {
    "SLURM_JOB_ID": "20042",
    "SLURM_JOB_NODELIST": "node[7-8]",
    "SLURM_CPUS_PER_TASK": "3",
    "SLURM_NTASKS_PER_NODE": "2",
    "QD_VENV": "venv",
}


class Finished:
    """What a batch script left behind."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.stdout, self.stderr = process.communicate(timeout=30)
        self.status = process.returncode
        read = {path.stem: path.read_text() for path in folder.glob("*.txt")}
        self.step: list[str] = read.get("srun", "").splitlines()
        self.scontrol = read.get("scontrol", "")
        self.signal = (folder / "signal").read_text().strip() if (folder / "signal").exists() else None


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with the templates, a Python environment, and in it the stand-ins."""
    shutil.copytree(SLURM, tmp_path / "slurm", ignore=shutil.ignore_patterns("site.env"))
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in {"python": "", "srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def run_job(repository: Path) -> Callable[..., Finished]:
    """Run a template as the batch script of a job; when the step runs, send USR1 `time_limit` times."""

    def run(
        template: str, *overrides: str, time_limit: int = 0, status: int | str = "", **env: str
    ) -> Finished:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "QD_", "MPIR_"))
        }
        # srun and scontrol come from the environment's folder: that job.sh puts it first is part of the test.
        outcome = {"STATUS": "" if time_limit else str(status), "AFTER_SIGNAL": str(status)}
        process = subprocess.Popen(
            ["bash", f"slurm/{template}", *overrides],
            cwd=repository,
            env=kept | JOB | outcome | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if time_limit:
            deadline = time.monotonic() + 20
            while not (repository / "srun.txt").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            for _ in range(time_limit):
                process.send_signal(signal.SIGUSR1)
                time.sleep(0.1)
        return Finished(repository, process)

    return run


def test_simulate_starts_one_step_with_all_overrides(run_job) -> None:
    job = run_job("simulate.sh", "experiment=smoke", "grid.sigma=[0.1, 0.2]", status=0)
    assert job.status == 0, job.stderr
    assert " ".join(job.step[:6]) == "--mpi=pmi2 -K1 --cpus-per-task=3 python -u -m"
    assert job.step[6:9] == ["mpi4py", "-m", "hpc.simulate"]
    assert job.step[9:11] == ["experiment=smoke", "grid.sigma=[0.1, 0.2]"]


def test_train_meets_at_the_address_of_its_first_node(run_job) -> None:
    job = run_job("train_ddp.sh", "experiment=smoke", status=0)
    assert job.status == 0, job.stderr
    assert " ".join(job.step[:6]) == "-K1 --cpus-per-task=3 python -u -m qdml.train"
    assert job.step[6:8] == ["output=runs/20042", "trainer.threads=3"]
    assert job.step[8:10] == ["experiment=smoke", "MASTER=10.1.2.3:10042"]


def test_only_the_mpich_of_the_environment_is_told_how_to_connect(run_job, repository: Path) -> None:
    assert run_job("simulate.sh", status=0).step[-1] == "NETMOD="
    (repository / "venv" / "lib").mkdir()
    (repository / "venv" / "lib" / "libmpi.so").touch()
    assert run_job("simulate.sh", status=0).step[-1] == "NETMOD=ofi"
    assert run_job("simulate.sh", status=0, MPIR_CVAR_CH4_NETMOD="ucx").step[-1] == "NETMOD=ucx"


def test_a_step_that_stops_before_it_is_finished_goes_on_in_the_next_part(run_job) -> None:
    """Training in parts of minutes (trainer.stop_after_minutes), without any signal."""
    job = run_job("train_ddp.sh", "trainer.stop_after_minutes=10", status=75)
    assert job.status == 75
    assert job.signal is None
    assert job.scontrol == "requeue 20042 during the step\n"  # nothing had to stop it


@pytest.mark.parametrize("status", [1, 137])
def test_a_step_that_fails_by_itself_fails_the_job(run_job, status: int) -> None:
    job = run_job("train_ddp.sh", status=status)
    assert job.status == status
    assert not job.scontrol


@pytest.mark.parametrize(
    ("template", "passed_on", "status"),
    [
        ("train_ddp.sh", "USR1", 75),
        ("train_ddp.sh", "USR1", 128 + signal.SIGTERM),  # -K1 stopped the ranks that were slower to stop
        ("train_ddp.sh", "USR1", 128 + signal.SIGUSR1),  # Python was still starting
        ("simulate.sh", "TERM", 128 + signal.SIGTERM),
        ("simulate.sh", "TERM", 128 + signal.SIGKILL),
    ],
)
def test_the_time_limit_stops_the_step_and_requeues(
    run_job, template: str, passed_on: str, status: int
) -> None:
    job = run_job(template, time_limit=1, status=status)
    assert job.signal == passed_on
    assert job.scontrol == "requeue 20042 after the step\n"
    assert "restart 1 of at most 20" in job.stdout
    assert job.status == status  # not 0: should the requeue get lost, the job counts as failed


@pytest.mark.parametrize("status", [0, 1])
def test_a_step_that_ends_at_the_time_limit_is_over(run_job, status: int) -> None:
    job = run_job("train_ddp.sh", time_limit=1, status=status)
    assert job.signal == "USR1"
    assert job.status == status
    assert not job.scontrol


def test_a_repeated_signal_does_not_cut_the_wait_short(run_job) -> None:
    job = run_job("train_ddp.sh", time_limit=3, status=75)
    assert job.status == 75
    assert job.scontrol == "requeue 20042 after the step\n"


def test_restarts_have_a_limit(run_job) -> None:
    limits = {"QD_MAX_REQUEUES": "3", "SLURM_RESTART_COUNT": "3"}
    job = run_job("train_ddp.sh", time_limit=1, status=75, **limits)
    assert job.status == 2
    assert not job.scontrol
    assert "restarted 3 times, and QD_MAX_REQUEUES is 3" in job.stderr


def test_site_settings_are_read_and_yield_to_the_environment(run_job, repository: Path) -> None:
    settings = [
        'module() { echo "module $*"; [[ -z $NOT_SET_ANYWHERE ]]; }',
        ': "${QD_MODULES:=cuda/12 mpich}" "${QD_SRUN_MPI:=pmix}"',
        "export GLOO_SOCKET_IFNAME=ib0",
    ]
    (repository / "slurm" / "site.env").write_text("\n".join(settings))
    job = run_job("simulate.sh", status=0)
    assert job.stdout == "module load cuda/12 mpich\n"
    assert job.step[0] == "--mpi=pmix"
    assert run_job("simulate.sh", status=0, QD_SRUN_MPI="pmi2").step[0] == "--mpi=pmi2"


def test_tasks_and_gpus_must_agree(run_job) -> None:
    job = run_job("simulate.sh", status=0, SLURM_GPUS_ON_NODE="4")
    assert job.status == 2
    assert "got 2 tasks and 4 GPUs per node: submit with sbatch --ntasks-per-node=4" in job.stderr
    assert not job.step
    assert run_job("simulate.sh", status=0, SLURM_GPUS_ON_NODE="2").status == 0


def test_outside_the_repository_it_says_where_to_submit(run_job, repository: Path) -> None:
    (repository / "slurm" / "job.sh").unlink()
    job = run_job("simulate.sh", status=0)
    assert job.status == 2
    assert f"expected to run in the repository, got {repository}: submit from there" in job.stderr
    assert not job.step


def test_without_its_python_environment_it_says_what_to_set(run_job) -> None:
    job = run_job("simulate.sh", status=0, QD_VENV="elsewhere")
    assert job.status == 2
    assert "found no elsewhere/bin/python: set QD_VENV in slurm/site.env" in job.stderr
