"""What is installed elsewhere is complete: configurations, kernels and documents travel with the code."""

import shutil
import zipfile
from pathlib import Path


def test_wheel_carries_all_files_of_the_packages(
    project_files, repo_root: Path, tmp_path: Path, run_command
) -> None:
    source = tmp_path / "source"  # a build leaves folders behind
    for path in project_files:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repo_root / path, source / path)
    run_command(
        ["python", "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", tmp_path],
        cwd=source,
    )
    (wheel,) = tmp_path.glob("*.whl")
    carried = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path) for path in project_files if path.parts[0] in ("hpc", "qdml", "conf")}
    assert wanted - carried == set()
    assert not [name for name in carried if name.startswith(("tests", "slurm", "benchmarks", "run.py"))]
