"""The job templates keep the habits that make them work on any cluster; no SLURM needed."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

SLURM = Path(__file__).resolve().parents[2] / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sh"))
TEMPLATES = [script for script in SCRIPTS if "\n#SBATCH" in script.read_text()]
LAUNCHED = {
    # Without -m mpi4py one rank's exception hangs the others.
    "simulate.sh": "python -u -m mpi4py -m hpc.simulate",
    # From the job id, so that a restarted job finds its folder.
    "train_ddp.sh": 'python -u -m qdml.train output="runs/$SLURM_JOB_ID"',
}
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
each_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)


def code(script: Path) -> str:
    """The script without comments, continued lines joined."""
    lines = script.read_text().replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def test_every_template_is_known() -> None:
    assert {template.name for template in TEMPLATES} == LAUNCHED.keys()


@each_script
def test_bash_parses_it(script: Path, run_command) -> None:
    run_command(["bash", "-n", script])


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(run_command) -> None:
    scripts = [*SCRIPTS, *SLURM.parent.glob("tests/slurm/*.sh")]
    run_command(["shellcheck", "--external-sources", *scripts], cwd=SLURM.parent)


@each_template
def test_each_directive_has_its_reason_above(template: Path) -> None:
    lines = template.read_text().splitlines()
    for above, line in pairwise(lines):
        if line.startswith("#SBATCH"):
            assert re.match(r"# [A-Z].*\.$", above), f"{line}: say why on the line before it"
            assert line.count("#") == 1, f"{line}: a comment here is given to sbatch"


@each_template
def test_a_restart_is_possible_and_announced(template: Path) -> None:
    directives = re.findall(r"^#SBATCH (\S+)$", template.read_text(), re.M)
    assert "--requeue" in directives
    assert "--open-mode=append" in directives  # or a restart wipes the log
    assert any(re.fullmatch(r"--signal=B:USR1@\d+", directive) for directive in directives)
    assert any(re.fullmatch(r"--time=\d\d:\d\d:\d\d", directive) for directive in directives)


@each_template
def test_what_differs_between_sites_is_not_in_the_template(template: Path) -> None:
    text = template.read_text()
    directives = " ".join(re.findall(r"^#SBATCH (.*)$", text, re.M))
    assert not re.search(
        r"--(account|partition|qos|constraint|reservation|gres|gpus|mem)|-[ApqC] ", directives
    )
    assert not re.search(r"module (load|purge)|_IFNAME|\.venv", code(template))


@each_template
def test_overrides_reach_one_step_of_all_tasks(template: Path) -> None:
    lines = code(template).splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1].startswith("run_step ")
    step = " ".join(lines[-1].split())
    assert re.search(r"^run_step \w+ srun .*-K1 ", step)
    assert f" {LAUNCHED[template.name]} " in step
    assert step.endswith(' "$@"')  # last, so that a user's value wins


@each_template
def test_without_slurm_it_says_how_to_run_and_does_nothing(
    template: Path, run_command, tmp_path: Path
) -> None:
    done = run_command(["bash", template, "experiment=smoke", "grid.sigma=[0.1, 0.2]"], returncode=2)
    module = re.search(r"-m ((?:hpc|qdml)\S+)", LAUNCHED[template.name])[1]
    overrides = r"experiment=smoke grid.sigma=\[0.1\,\ 0.2\]"
    commands = [line.strip() for line in done.stderr.splitlines() if line.startswith("    ")]
    assert commands[0] == f"sbatch slurm/{template.name} {overrides}"
    assert commands[-1] == f"python -m {module} {overrides}"
    assert len(commands) == 3
    assert commands[1].endswith(f"-m {module} {overrides}")
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_site_settings_and_their_example_agree(run_command) -> None:
    example = SLURM / "site.env.example"
    read = {name for script in SCRIPTS for name in re.findall(r"\bQD_\w+", code(script))}
    assert set(re.findall(r'^: "\$\{(QD_\w+):=', example.read_text(), re.M)) == read
    # As it comes it changes nothing: a copy that nobody edited works.
    check = 'source "$1"; [[ $QD_VENV == .venv && $QD_SRUN_MPI == pmi2 ]]'
    unset = dict.fromkeys(read)
    run_command(["bash", "-euo", "pipefail", "-c", check, "bash", example], env=unset)
    assert "slurm/site.env" in (SLURM.parent / ".gitignore").read_text().splitlines()


@each_template
def test_readme_lists_it(template: Path) -> None:
    assert f"| `{template.name}` |" in (SLURM / "README.md").read_text()
