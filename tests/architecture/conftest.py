"""The files of the project, as git knows them, and the commands that it installs."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Every file of the project, tracked or about to be, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        files = [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    else:  # an unpacked archive
        unwanted = {"__pycache__", "build", "dist", "runs", "outputs", "multirun"}
        files = []
        for folder, folders, names in os.walk(ROOT):
            folders[:] = [
                f for f in folders if not (f.startswith(".") or f.endswith(".egg-info")) and f not in unwanted
            ]
            files += [(Path(folder) / name).relative_to(ROOT) for name in names]
    assert Path("pyproject.toml") in files
    return sorted(files)


@pytest.fixture(scope="session")
def project() -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
