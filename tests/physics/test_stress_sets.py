"""Stress sets: reproducible, exact, stored once, and refused when they are not what was asked for."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray

from hpc.dots import dot_pattern
from hpc.liquids.terms import liquid_profile
from hpc.structure.material import load_material
from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.config import AllaraConfig, SolventConfig
from qdml.augmentation.recipe import Main
from qdml.stress.files import open_set, read_set
from qdml.stress.make import AREA, Design, design_of, expected_patterns, make_set, shown_q
from qdml.stress.sets import StressConfig, load_stress, stress_names

#: A few small dots on a coarse grid: the same code in a second.
SMALL = {
    "diameter_nm": [2.0, 2.5], "q": {"min": 0.99, "max": 9.99, "step": 0.02}, "per_size": 8, "tail": 1e-6
}  # fmt: skip


def small(name: str, **changes: object) -> StressConfig:
    return load_stress(name, **(SMALL | changes))


def row_by_hand(config: StressConfig, row: int, q: np.ndarray, design: Design | None = None) -> np.ndarray:
    """One pattern of the published recipe at any Q, its shares over the whole of it."""
    design = design or design_of(config)
    dots = dot_pattern(
        load_material("pbs").with_b_iso({"Pb": 1.32, "S": 1.49}),
        q=q,
        diameter_nm=float(design.diameter_nm[row]),
        sigma=float(design.sigma[row]),
        strain=float(design.strain[row]),
        energy_kev=22.14003543,
        shape=config.shape,
        tail=1e-6,
    )
    solvent = liquid_profile(config.solvents[design.solvent[row]], q)
    share = design.fraction[row] if len(config.fractions) > 1 else 1.0
    return AREA / config.q.step * (share * dots / dots.sum() + (1 - share) * solvent / solvent.sum())


def test_every_set_says_what_it_changes_and_nothing_else() -> None:
    base = load_stress("published")
    names = stress_names()
    assert names[0] == "published" and len(names) == 13
    assert len({load_stress(name).fingerprint for name in names}) == len(names)
    for name in names:
        config = load_stress(name)
        # The table's standard error: 1 % at most where nine of ten are right.
        assert np.sqrt(0.9 * 0.1 / config.n_patterns) < 0.01
        assert (config.seed, config.per_size, config.q) == (base.seed, base.per_size, base.q)
        assert config.goal is None or config.goal >= config.published


def test_the_published_grid_is_the_published_one() -> None:
    q = shown_q(load_stress("published"))
    np.testing.assert_allclose(q, np.arange(0.99, 15, 0.0028), rtol=0, atol=1e-9)
    assert len(q) == 5004


def test_every_size_meets_every_cell_and_dispersion() -> None:
    config = load_stress("published")
    design = design_of(config)
    assert len(design) == config.n_patterns == 1088
    for size in config.diameter_nm:
        of_size = design.diameter_nm == size
        cells = np.stack([design.solvent, design.fraction, design.scale], axis=1)[of_size]
        _, counts = np.unique(cells, axis=0, return_counts=True)
        assert counts.tolist() == [2] * 32
        assert np.unique(design.sigma[of_size], return_counts=True)[1].tolist() == [16] * 4
        assert np.unique(design.strain[of_size]).size == 19


@pytest.mark.parametrize("name", ["published", "octahedron"])
def test_patterns_are_exact(name: str) -> None:
    config = small(name)
    design, q = design_of(config), shown_q(config)
    expected = expected_patterns(config, design)
    for row in (0, 5, 11, 15):
        by_hand = row_by_hand(config, row, q)
        # The largest particle is that of all rows: what differs is the tail of 1e-6.
        np.testing.assert_allclose(expected[row], by_hand, rtol=0, atol=1e-5 * by_hand.max())
    np.testing.assert_allclose(expected.sum(axis=1) * config.q.step, AREA)


def test_resolution_widens_by_its_full_width() -> None:
    """A direct convolution with the Gaussian, over a grid that reaches further than the set's."""
    config = small("resolution_05")
    design, q = design_of(config), shown_q(config)
    step, sigma, far = config.q.step, 0.05 / (2 * np.sqrt(2 * np.log(2))), 20
    wide = q[0] + step * np.arange(-far, len(q) + far)
    row = int(np.argmin(np.abs(design.fraction - 0.65)))
    dots = row_by_hand(small("published", fractions=[1.0], scales=[1.0]), row, wide, design)
    solvent = liquid_profile(config.solvents[design.solvent[row]], wide)
    # Shares count over the visible points.
    parts = [(0.65, dots), (0.35, solvent)]
    ideal = sum(share * y / y[far:-far].sum() for share, y in parts) * AREA / step
    kernel = np.exp(-0.5 * (np.arange(-far, far + 1) * step / sigma) ** 2)
    convolved = np.convolve(ideal, kernel / kernel.sum(), mode="valid")
    seen = expected_patterns(config, design)[row]
    np.testing.assert_allclose(seen, convolved, rtol=0, atol=1e-4 * convolved.max())
    assert np.abs(seen - ideal[far:-far]).max() > 4e-3 * seen.max(), "it does something"


def test_zero_shift_moves_reflections_to_larger_q() -> None:
    plain, moved = small("published"), small("zero_shift")
    q, design = shown_q(plain), design_of(plain)
    before, after = expected_patterns(plain, design)[0], expected_patterns(moved, design)[0]
    shifts = np.arange(-0.03, 0.0301, 0.001)
    error = [np.square(np.interp(q - s, q, before) - after)[5:-5].sum() for s in shifts]
    assert shifts[np.argmin(error)] == pytest.approx(0.01, abs=0.0011)


def test_background_is_flat_and_a_fifth_of_the_area() -> None:
    plain, lifted = small("published"), small("background")
    design = design_of(plain)
    difference = expected_patterns(lifted, design) - expected_patterns(plain, design)
    np.testing.assert_allclose(difference, 0.2 * AREA / (len(shown_q(plain)) * plain.q.step), rtol=1e-9)


def test_counts_are_poisson() -> None:
    config = small("published", per_size=64)
    made, expected = make_set(config), expected_patterns(config, design_of(config))
    scale = made.design.scale[:, None]
    z = (made.intensity - expected) * np.sqrt(scale / expected)
    # 128 x 451 points: the mean of z² of Poisson numbers is 1, known to √(2/n) = 0.006 (counts are far above 1).
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.03)
    assert np.abs(made.noise * scale - np.sqrt(np.maximum(made.intensity * scale, 1))).max() < 1e-2


def test_the_window_hides_what_the_instrument_does_not_see() -> None:
    made = make_set(load_stress("window_lab", **(SMALL | {"q": {"min": 0.99, "max": 9.99, "step": 0.02}})))
    visible = made.q[made.mask]
    assert visible.min() >= 1.42 and visible.max() <= 7.06
    assert visible.min() < 1.44 and visible.max() > 7.04


def test_a_set_is_made_once_and_read_back(tmp_path: Path) -> None:
    config, said = small("cube"), []
    first = open_set("cube", config, tmp_path, said.append)
    again = open_set("cube", config, tmp_path, said.append)
    assert said == ["stress set cube: simulating 16 patterns (once)"]
    np.testing.assert_array_equal(first.intensity, again.intensity)
    np.testing.assert_array_equal(make_set(config).intensity, again.intensity)
    assert [path.name for path in tmp_path.iterdir()] == ["cube.zarr"], "nothing half-made is left"
    with xarray.open_zarr(tmp_path / "cube.zarr") as data:
        assert data.intensity.dims == ("pattern", "q")
        assert data.attrs["fingerprint"] == config.fingerprint
        assert data.attrs["config"]["shape"] == "cube"
        np.testing.assert_array_equal(data.diameter, first.design.diameter_nm)


def test_another_set_of_the_same_name_is_refused(tmp_path: Path) -> None:
    open_set("cube", small("cube"), tmp_path)
    other = small("cube", seed=1)
    with pytest.raises(
        ValueError, match="holds another set: its fingerprint is .* choose another stress.folder"
    ):
        open_set("cube", other, tmp_path)
    with pytest.raises(ValueError, match="fingerprint"):
        read_set(tmp_path / "cube.zarr", small("octahedron"))


def test_damage_is_seen(tmp_path: Path) -> None:
    config = small("published")
    open_set("published", config, tmp_path)
    path = tmp_path / "published.zarr"
    shutil.rmtree(path / "sigma" / "c")  # zarr takes what is not there for zeros
    with pytest.raises(ValueError, match="is damaged: its checksum is"):
        read_set(path, config)
    (path / "zarr.json").unlink()
    with pytest.raises(ValueError, match="is no stress set"):
        read_set(path, config)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sphere", {}, r"stress sets are \['published', .* or all; got 'sphere'"),
        ("published", {"colour": 1}, "unknown key stress/published.colour"),
        ("published", {"fractions": [0.0]}, r"fractions must lie in 0 < fraction <= 1, got \[0.0\]"),
        ("published", {"window": [0.5, 7.0]}, "window must be"),
        ("published", {"sigma": [-0.1]}, "sigma must be >= 0"),
        ("published", {"b_iso": 1.0}, "stress/published.b_iso must be a group of keys"),
    ],
)
def test_what_cannot_be(name: str, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_stress(name, **change)


def test_the_recipe_of_training_expects_the_same() -> None:
    """What models learn from and what they are tried on are one world: the same pattern in the same cell."""
    config = small("published")
    design, q = design_of(config), shown_q(config)
    liquids = tuple(SolventConfig(name=name, file=None, wavelength=None) for name in config.solvents)
    recipe = AllaraRecipe(
        AllaraConfig(name="allara2024", solvents=liquids, fractions=config.fractions, scales=config.scales),
        SimpleNamespace(q=q, attrs={"energy_kev": config.energy_kev}),  # type: ignore[arg-type]
        torch.device("cpu"),
        torch.float64,
    )
    clean = dot_pattern(
        load_material("pbs").with_b_iso(config.b_iso),
        q=q,
        diameter_nm=design.diameter_nm,
        sigma=design.sigma,
        strain=design.strain,
        energy_kev=config.energy_kev,
        tail=config.tail,
    )
    names = [
        f"{config.solvents[s]}, {100 * f:g} %, scale {k:g}"
        for s, f, k in zip(design.solvent, design.fraction, design.scale, strict=True)
    ]
    cells = torch.tensor([recipe.cells.index(name) for name in names])
    unused = torch.zeros(len(cells), dtype=torch.float64)
    main = Main(
        log_volume_diameter=unused,
        sigma=unused,
        strain=unused,
        b_scale=unused,
        variant=unused.long(),
        intensity=torch.from_numpy(clean),
    )
    expected = recipe.expected(main, recipe.setting(cells), recipe.latents(cells))
    counts = (expected.intensity * expected.rate).numpy()
    by_set = expected_patterns(config, design) * design.scale[:, None]
    np.testing.assert_allclose(counts, by_set, rtol=1e-9)
