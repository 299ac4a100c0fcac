"""The published augmentation, against the same operations written out with NumPy, pattern by pattern.

Its results must not change with this program: area 1000, fractions of the area, y' = Poisson(y·scale)/scale, 5004
points.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import train_config

from hpc.dots import dot_pattern
from hpc.liquids import liquid_profile
from hpc.structure.material import load_material
from qdml.augmentation.allara import AREA, AllaraRecipe
from qdml.augmentation.config import AllaraConfig, SolventConfig
from qdml.augmentation.recipes import build_recipe
from qdml.dataset import Rows

#: Of the publication: 0.99 to 15 Å⁻¹ in steps of 0.0028.
Q = np.arange(0.99, 15, 0.0028)
FRACTIONS, SCALES = (1.0, 0.65, 0.37, 0.15), (200, 30, 8, 3)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    pbs = load_material("pbs").with_b_iso({"Pb": 1.32, "S": 1.49})
    return np.stack(
        [
            dot_pattern(pbs, q=Q, diameter_nm=d, sigma=0.1, energy_kev=22.14003543, tail=1e-3)
            for d in (2.0, 4.0)
        ]
    )


@pytest.fixture(scope="module")
def recipe() -> AllaraRecipe:
    config = train_config("augment=allara2024", "data.store=x")
    made = build_recipe(
        config.augment, SimpleNamespace(q=Q, attrs={"energy_kev": 22.14003543}), torch.device("cpu")
    )
    assert isinstance(made, AllaraRecipe)
    return made


def rows_of(clean: np.ndarray) -> Rows:
    same = {"diameter": 3.0, "sigma": 0.1, "strain": 0.0, "b_scale": 1.0}
    return Rows(
        variant=torch.zeros(len(clean), dtype=torch.int64),
        intensity=torch.tensor(clean),
        **{name: torch.full((len(clean),), value, dtype=torch.float64) for name, value in same.items()},
    )


def published(clean: np.ndarray, solvent: np.ndarray, fraction: float) -> np.ndarray:
    """One pattern without noise: dots and solvent share the area 1000."""
    step = 0.0028
    dots = clean * (1000 * fraction / (clean.sum() * step))
    liquid = solvent * (1000 * (1 - fraction) / (solvent.sum() * step))
    return dots + liquid


def test_the_grid_is_the_published_one(recipe) -> None:
    assert len(Q) == 5004
    assert AREA == 1000
    assert len(recipe.cells) == 32
    assert recipe.cells[0] == "hexane, 100 %, scale 200"
    assert recipe.cells[-1] == "toluene, 15 %, scale 3"
    assert recipe.windows == [((Q[0], Q[0]), (Q[-1], Q[-1]))] * 32
    assert recipe.needs_intensity, "it works on the patterns of any store"
    assert list(recipe.space.names) == ["fraction", "solvent"]


def test_every_cell_is_the_published_mixture(recipe, clean) -> None:
    main, cell = rows_of(clean).main(), 0
    for name in ("hexane", "toluene"):
        solvent = liquid_profile(name, Q)
        for fraction in FRACTIONS:
            for scale in SCALES:
                assert recipe.scale(cell) == scale
                cells = torch.full((2,), cell)
                expected = recipe.expected(main, recipe.setting(cells), recipe.latents(cells))
                got = (expected.intensity * expected.rate).double().numpy() / scale
                for index in range(2):
                    wanted = published(clean[index], solvent, fraction)
                    # Tables and latents are float32.
                    assert np.allclose(got[index], wanted, rtol=5e-6, atol=0)
                    assert wanted.sum() * 0.0028 == pytest.approx(1000)
                assert expected.intensity.mean(dim=1).numpy() == pytest.approx(1, rel=1e-5)
                parts = expected.parts
                assert torch.allclose(parts["dots"] + parts["solvent"], expected.intensity)
                cell += 1
    assert cell == 32


def test_the_prior_of_the_unknowns_has_the_moments_of_the_cells(recipe) -> None:
    """Mean 0 and variance 1 over the 32 cells, as a standard normal number has."""
    z = recipe.latents(torch.arange(32))
    assert z.shape == (32, 2)
    assert z.mean(dim=0).numpy() == pytest.approx(0, abs=1e-6)
    assert z.square().mean(dim=0).numpy() == pytest.approx(1, rel=1e-5)


def test_three_solvents_are_points_of_the_unknowns_too(clean) -> None:
    names = ("hexane", "toluene", "octane")
    config = AllaraConfig(
        name="allara2024",
        solvents=tuple(SolventConfig(name=name, file=None, wavelength=None) for name in names),
        fractions=(0.5,),
        scales=(10,),
    )
    recipe = build_recipe(
        config, SimpleNamespace(q=Q, attrs={"energy_kev": 22.14003543}), torch.device("cpu")
    )
    cells = torch.arange(3)
    main = rows_of(np.repeat(clean[:1], 3, axis=0)).main()
    parts = recipe.expected(main, recipe.setting(cells), recipe.latents(cells)).parts
    for cell, name in enumerate(names):
        solvent = liquid_profile(name, Q)
        assert np.allclose(parts["solvent"][cell].numpy(), 0.5 * solvent / solvent.mean(), rtol=1e-4)


@pytest.mark.parametrize("cell", [0, 15, 31])
def test_counts_are_those_of_poisson_at_the_scale(cell, recipe, clean) -> None:
    """Whole numbers; 200 draws of 2 x 5004 points have the mean, variance and zeros of Poisson counts."""
    scale = recipe.scale(cell)
    many = rows_of(np.repeat(clean, 200, axis=0))
    seen = recipe.cell(cell, many, torch.Generator().manual_seed(5))
    assert seen.intensity.shape == (400, 5004)
    assert bool((seen.mask == 1).all())
    # Intensities are of mean 1; published ones are 1000/0.0028/5004 times that.
    unit = scale * 1000 / 0.0028 / 5004
    drawn = seen.intensity.double() * unit
    assert torch.allclose(seen.noise.double() * unit, drawn.clamp(min=1).sqrt(), rtol=1e-5)
    assert torch.allclose(seen.conditions[:, -1].double().exp(), drawn.mean(dim=1), rtol=1e-5)
    counts = drawn.numpy().reshape(2, 200, -1)
    assert np.abs(counts - np.rint(counts)).max() < 1e-2
    name, fraction = ("hexane", "toluene")[cell // 16], FRACTIONS[cell // 4 % 4]
    rate = np.stack([scale * published(one, liquid_profile(name, Q), fraction) for one in clean])
    # 200 draws: standard errors; of 10 008 points the largest lies below 4.8 of them in 98 % of such tests.
    error = np.sqrt(rate / 200)
    assert (np.abs(counts.mean(axis=1) - rate) < 4.8 * error).all()
    # Chi squared of 2 million numbers is known to 0.1 %, where rates of 1 and more hold.
    assert ((counts - rate[:, None]) ** 2 / rate[:, None]).mean() == pytest.approx(1, abs=0.006)
    skewness = ((counts - rate[:, None]) ** 3 / rate[:, None]).mean()
    assert skewness == pytest.approx(1, abs=6 * np.sqrt(15 * rate.mean() / counts.size) + 0.05)
    assert (counts == 0).mean() == pytest.approx(np.exp(-rate).mean(), abs=3e-4)


def test_training_draws_all_cells_alike(recipe, clean) -> None:
    """The scale shows in the step between values; every scale comes up in a quarter of the patterns."""
    many = rows_of(np.repeat(clean, 400, axis=0))
    y = recipe.random(many, torch.Generator().manual_seed(2)).intensity * (1000 / 0.0028 / 5004)
    fits = {
        scale: (((y * scale) - (y * scale).round()).abs().amax(dim=1) < 2e-2).double().mean()
        for scale in SCALES
    }
    # Counts at scale 8 are not whole at 30 or 3, but those at 8 are at 200.
    assert float(fits[3]) == pytest.approx(0.25, abs=0.06)
    assert float(fits[30]) == pytest.approx(0.5, abs=0.08), "those of scale 3 and 30"
    assert float(fits[200]) == pytest.approx(0.5, abs=0.08), "those of scale 8 and 200"
    again = recipe.random(many, torch.Generator().manual_seed(2)).intensity * (1000 / 0.0028 / 5004)
    assert torch.equal(y, again)
