"""Recipes: the right effects in the right cells, reproducibly."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.dots import dot_pattern
from hpc.structure.material import load_material
from qdml.augmentation.recipes import AREA, build_recipe
from qdml.augmentation.solvents import liquid_profile
from qdml.config import TrainConfig, read_config

CPU = torch.device("cpu")
Q = np.arange(0.9, 14.0, 0.02)
MATERIAL = {
    "name": "PbS", "space_group": "F m -3 m", "cell_angstrom": [5.936, 5.936, 5.936, 90, 90, 90],
    "sites": {
        "Pb": {"element": "Pb", "position": [0, 0, 0], "occupancy": 1.0, "b_iso": 1.28},
        "S": {"element": "S", "position": [0.5, 0.5, 0.5], "occupancy": 1.0, "b_iso": 1.25},
    },
}  # fmt: skip
ATTRS = {"energy_kev": 22.0, "config": {"material": MATERIAL, "b_iso": {}, "anomalous": True}}


def recipe_of(name: str, *overrides: str, q: np.ndarray = Q):
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=[f"augment={name}", "data.store=x", *overrides])
    config = read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))
    return build_recipe(config.augment, q, ATTRS, CPU)


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    pbs = load_material("pbs")
    patterns = [
        dot_pattern(pbs, q=Q, diameter_nm=d, sigma=0.1, energy_kev=22.0, tail=1e-3) for d in (2.0, 3.0)
    ]
    return torch.tensor(np.stack(patterns), dtype=torch.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_allara_has_the_published_cells() -> None:
    recipe = recipe_of("allara2024")
    assert len(recipe.cells) == len(set(recipe.cells)) == 32
    assert recipe.cells[0] == "hexane, 100 %, scale 200"
    assert recipe.cells[-1] == "toluene, 15 %, scale 3"
    assert recipe.scale(31) == 3


def test_allara_mixes_areas(clean: torch.Tensor) -> None:
    recipe, step = recipe_of("allara2024"), Q[1] - Q[0]
    pure, diluted = (recipe.expected(torch.full((2,), cell), clean) for cell in (0, 15))
    assert (pure.sum(dim=1) * step).tolist() == pytest.approx([AREA, AREA], rel=1e-5)
    solvent = liquid_profile("hexane", Q)
    solvent = torch.tensor(AREA * solvent / solvent.sum() / step, dtype=torch.float32)
    assert torch.allclose(diluted, 0.15 * pure + 0.85 * solvent, rtol=1e-4)


def test_allara_counts(clean: torch.Tensor) -> None:
    recipe = recipe_of("allara2024")
    y, mask = recipe.cell(31, clean.repeat(200, 1), generator())
    assert mask.all()
    assert torch.allclose(3 * y, (3 * y).round(), atol=1e-3)
    expected = recipe.expected(torch.full((2,), 31), clean)
    # 200 draws of ~200 counts: the mean is known to 0.5 %, its largest deviation over 655 points to 2 %.
    assert torch.allclose(y.view(200, 2, -1).mean(dim=0), expected, rtol=0.025)


def test_a_solvent_file_replaces_a_liquid(clean: torch.Tensor, tmp_path) -> None:
    q = np.arange(0.5, 15, 0.01)
    np.savetxt(tmp_path / "slope.xy", np.stack([q, 1 + 0.1 * q], axis=1))
    solvent = f"{{name: slope, file: '{tmp_path / 'slope.xy'}', wavelength: null}}"
    recipe = recipe_of("allara2024", f"augment.solvents=[{solvent}]")
    assert len(recipe.cells) == 16
    y = recipe.expected(torch.full((2,), 12), clean)
    pure = recipe.expected(torch.full((2,), 0), clean)
    rest = y - 0.15 * pure
    slope = torch.tensor(1 + 0.1 * Q, dtype=torch.float32)
    assert torch.allclose(rest / slope, (rest[0, 0] / slope[0]).expand_as(rest), rtol=1e-3)


@pytest.mark.parametrize("name", ["allara2024", "instrument"])
def test_recipes_repeat_with_the_seed_and_stay_finite(name: str, clean: torch.Tensor) -> None:
    recipe, many = recipe_of(name), clean.repeat(32, 1)
    y, mask = recipe.random(many, generator(1))
    again, other = recipe.random(many, generator(1))[0], recipe.random(many, generator(2))[0]
    assert torch.equal(y, again)
    assert not torch.allclose(y, other)
    assert torch.isfinite(y).all()
    assert y.min() >= 0
    assert (y * mask).sum(dim=1).min() > 0
    assert torch.equal(clean.repeat(32, 1), many), "the clean patterns stay as they are"


def test_instruments_have_their_windows_and_counts(clean: torch.Tensor) -> None:
    recipe, many = recipe_of("instrument"), clean.repeat(64, 1)
    assert list(recipe.cells) == ["synchrotron", "laboratory"]
    ends = []
    for cell in (0, 1):
        y, mask = recipe.cell(cell, many, generator())
        last = torch.tensor(Q)[(mask * torch.arange(len(Q))).argmax(dim=1)]
        ends.append((float(last.min()), float(last.max())))
        assert (y[mask == 0] == 0).all()
    assert ends[0][0] > 9.9
    assert 4.9 < ends[1][0] < ends[1][1] < 7.7


QUIET = (
    "augment.near_neighbours.shells=0", "augment.background_spread=0", "augment.solvent_spread=0",
    "augment.background_share=[0,0]",
)  # fmt: skip


def test_an_instrument_without_any_effect_shows_the_clean_pattern(clean: torch.Tensor) -> None:
    plain = (
        "{name: plain, weight: 1, q_first: [0, 0], q_last: [20, 20], resolution: [0, 0], kalpha2: false, "
        "zero_shift: 0, peak_counts: [1.0e+12, 1.0e+12], fraction: [1, 1], texture: [0, 0]}"
    )
    recipe = recipe_of("instrument", *QUIET, f"augment.instruments=[{plain}]")
    y, mask = recipe.random(clean, generator())
    assert mask.all()
    assert torch.allclose(y, clean / clean.mean(dim=1, keepdim=True), rtol=1e-4)


def test_a_window_beyond_the_patterns() -> None:
    with pytest.raises(
        ValueError, match="windows start at up to 1.6 Å⁻¹, but the store's patterns end at 2.48"
    ):
        recipe_of("instrument", q=np.arange(0.9, 2.5, 0.02))
