"""The benchmark of measured patterns on a pattern that is known: does it find the size, and does it read names?"""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.structure.material import load_material


@pytest.fixture
def benchmark(repo_root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    yield import_module("fit_measured")
    sys.modules.pop("fit_measured", None)


def test_names_say_wavelength_and_size(benchmark) -> None:
    assert benchmark.parse_name(Path("dots_wl0p5641A_5p03nm_hexane.xye")) == (0.5641, 5.03)
    with pytest.raises(ValueError, match="wavelength and size in the name"):
        benchmark.parse_name(Path("dots_5p03nm.xye"))


def test_every_choice_of_the_cases_exists(benchmark) -> None:
    from hpc.structure.variant import Variant

    for case in benchmark.CASES:
        for chosen in (case.variant, case.mixed):
            groups = {name: benchmark.CHOICES.get(one, one) for name, one in chosen}
            Variant.from_config({"material": "pbs", "shape": "sphere", **groups})
    names = [case.name for case in benchmark.CASES]
    assert len(set(names)) == len(names)
    assert set(benchmark.FIGURE) <= set(names)


def test_a_known_pattern(benchmark, tmp_path: Path) -> None:
    wavelength, size, sigma = 0.5641, 3.0, 0.1
    two_theta = np.arange(4, 60, 0.02)
    q = 4 * np.pi / wavelength * np.sin(np.radians(two_theta) / 2)
    pattern = dot_pattern(
        load_material("pbs"), q=q, diameter_nm=size, sigma=sigma, energy_kev=12.398419843320026 / wavelength
    )
    file = tmp_path / "dots_wl0p5641A_3p00nm.xy"
    np.savetxt(file, np.column_stack((two_theta, 1000 + pattern)))
    benchmark.main([str(file), "--only", "^perfect spheres$|no zero shift", "-o", str(tmp_path / "out")])
    table = (tmp_path / "out" / "fit_measured.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| perfect spheres |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert abs(float(cells[4])) < 0.02  # D_n - name
    assert float(cells[6]) == pytest.approx(100 * sigma, abs=1)
    assert (tmp_path / "out" / "fit_measured.png").stat().st_size > 10_000
