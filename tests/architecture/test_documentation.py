"""What the documentation tells people to type works; files stay short and free of any one machine."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = {name: target.removesuffix(":main") for name, target in PROJECT["scripts"].items()}
TEMPLATES = {"slurm/simulate.sh": "hpc.simulate", "slurm/train_ddp.sh": "qdml.train"}
HYDRA = ("hpc.simulate", "qdml.train", "qdml.evaluate")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("[a-z]*/README.md"))]
OTHER_PROGRAMS = {"cd", "git", "source", ".", "ls", "cat", "cp", "export", "squeue", "scancel", "nvcc"}


def shell_lines(document: Path) -> list[str]:
    """Commands in the fenced blocks marked bash, sh or console (there, what follows `$`)."""
    lines = []
    for language, block in re.findall(r"^```(bash|sh|console)\n(.*?)^```", document.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            lines += [shlex.join(words)] if words else []
    return lines


COMMANDS = [
    pytest.param(line, id=f"{document.relative_to(ROOT)}: {line}")
    for document in DOCUMENTS
    for line in shell_lines(document)
]


def test_readme_has_commands() -> None:
    assert len(shell_lines(ROOT / "README.md")) > 5


@pytest.mark.parametrize("line", COMMANDS)
def test_documented_command_exists(line: str, run_command) -> None:
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    module, arguments = find_module(words)
    if module is None:
        check_other(words)
    elif module in HYDRA:
        given = [word for word in arguments if not word.startswith("<")]
        run_command(["python", "-m", module, *given, "--cfg", "job"])
    else:
        flags = {word.split("=")[0] for word in arguments if re.match(r"--?[a-zA-Z]", word)}
        known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(module)))
        assert flags <= known, f"{module} does not know {sorted(flags - known)}"


def find_module(words: list[str]) -> tuple[str | None, list[str]]:
    """The module of this project that a command line starts, through whatever launcher, and its arguments."""
    for position, word in enumerate(words):
        if started := {**SCRIPTS, **TEMPLATES}.get(word):
            assert word in SCRIPTS or (ROOT / word).is_file(), f"no file {word}"
            return started, words[position + 1 :]
        if word == "-m" and words[position + 1].split(".")[0] in ("hpc", "qdml"):
            assert importlib.util.find_spec(words[position + 1]), f"no module {words[position + 1]}"
            return words[position + 1], words[position + 2 :]
    return None, []


def check_other(words: list[str]) -> None:
    """A command that does not start a module of this project: its files, sub-commands and extras exist."""
    program, *arguments = Path(words[0]).name, *words[1:]
    if program.startswith("python") and arguments[0] == "run.py":
        assert arguments[1] in ("demo", "tests")
    elif program.startswith("python") and arguments[:2] == ["-m", "pip"]:
        for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    elif program.startswith("python") or program in ("sbatch", "bash", "pytest"):
        files = [word for word in arguments if word.endswith((".py", ".sh")) or word.startswith("tests/")]
        assert all((ROOT / word.split("::")[0]).exists() for word in files), f"no such file among {files}"
    else:
        assert program in OTHER_PROGRAMS, f"teach this test to check `{program}`"


@cache
def help_of(module: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_files_are_short(project_files) -> None:
    suffixes = {".py", ".cu", ".cuh", ".hpp", ".sh", ".yaml"}
    long = {
        str(path): lines
        for path in project_files
        if path.suffix in suffixes and (lines := len((ROOT / path).read_text().splitlines())) > 500
    }
    assert not long, "split a file before it passes 500 lines"


def test_no_file_names_a_development_machine(project_files) -> None:
    homes = re.compile(r"/(?:work|root|home|Users)/\w")
    named = [
        f"{path}:{number}: {line.strip()}"
        for path in project_files
        if b"\0" not in (content := (ROOT / path).read_bytes())
        for number, line in enumerate(content.decode().splitlines(), 1)
        if homes.search(line) or (path.parts[0] != "tests" and "../shared" in line)
    ]
    assert not named
