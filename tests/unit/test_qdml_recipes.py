"""Recipes: the right effects in the right cells, reproducibly, from stores that have what they need."""

from dataclasses import replace
from types import SimpleNamespace

import dot_store
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from qdml.augmentation.recipes import build_recipe
from qdml.config import TrainConfig, read_config
from qdml.dataset import Rows, read_rows

CPU = torch.device("cpu")
Q = dot_store.Q
NAMES = ["synchrotron_strip", "synchrotron_area", "lab_cu", "lab_mo", "lab_ag"]


@pytest.fixture(scope="module")
def store() -> SimpleNamespace:
    return dot_store.dot_store()


def config_of(name: str, *overrides: str):
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=[f"augment={name}", "data.store=x", *overrides])
    return read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True)).augment


def recipe_of(name: str, store: SimpleNamespace, *overrides: str, device: torch.device = CPU):
    return build_recipe(config_of(name, *overrides), store, device)


def rows_of(store: SimpleNamespace, recipe, n: int, device: torch.device = CPU) -> Rows:
    rows = read_rows(store, np.arange(3), device, recipe.atoms)
    return rows.take(torch.arange(n, device=device) % 3)


@pytest.fixture(scope="module")
def instrument(store):
    return recipe_of("instrument", store)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["allara2024", "instrument"])
def test_recipes_repeat_with_the_seed_and_stay_finite(name: str, store) -> None:
    recipe = recipe_of(name, store)
    many = rows_of(store, recipe, 96)
    clean = many.intensity.clone()
    y, mask = recipe.random(many, generator(1))
    again, other = recipe.random(many, generator(1))[0], recipe.random(many, generator(2))[0]
    assert torch.equal(y, again)
    assert not torch.allclose(y, other)
    assert y.dtype == mask.dtype == torch.float32
    assert torch.isfinite(y).all()
    assert y.min() >= 0
    assert (y * mask).sum(dim=1).min() > 0
    assert torch.equal(many.intensity, clean), "the clean patterns stay as they are"


def test_instruments_have_their_windows_and_frequencies(instrument, store) -> None:
    assert instrument.cells == NAMES
    assert len(instrument.windows) == 5
    q = torch.tensor(Q)
    for cell, ((first, _), (_, last)) in enumerate(instrument.windows):
        y, mask = instrument.cell(cell, rows_of(store, instrument, 48), generator())
        seen = q[mask.bool().any(dim=0)]
        assert seen[0] >= first - 0.02
        assert seen[-1] <= last + 0.02
        assert (y[mask == 0] == 0).all()
        # Of mean 1, but for noise.
        assert ((y * mask).sum(dim=1) / mask.sum(dim=1)).numpy() == pytest.approx(1, abs=0.05)
    _, mask = instrument.random(rows_of(store, instrument, 3000), generator())
    ends = q[len(q) - 1 - mask.flip(1).argmax(dim=1)]
    # Only the copper anode, 30 % of the patterns, never reaches 7.1 Å⁻¹.
    assert float((ends < 7.1).double().mean()) == pytest.approx(0.3, abs=0.03)


def test_patterns_keep_what_tells_sizes_apart(instrument, store) -> None:
    """In the mean over many draws the pattern of each size is nearest to its own clean pattern."""
    from qdml.preprocess import network_input

    rows = rows_of(store, instrument, 600)
    q = torch.as_tensor(Q)
    y, mask = instrument.cell(0, rows, generator())
    seen = network_input(y, mask, q, "log_smooth")[:, 0]
    clean = network_input(rows.intensity[:3], torch.ones(3, len(Q)), q, "log_smooth")[:, 0]
    inner = (q > 2.3) & (q < 8)
    means = torch.stack([seen[k::3, inner].mean(dim=0) for k in range(3)])
    nearest = torch.corrcoef(torch.cat([means, clean[:, inner]]))[:3, 3:]
    assert nearest.argmax(dim=1).tolist() == [0, 1, 2]


OFF = (
    "augment.dots.correlation=[0,0]", "augment.dots.halo=0", "augment.dots.surface_b=[0,0]",
    "augment.dots.model_error=0",
)  # fmt: skip


def plain(fraction: float) -> str:
    return (
        f"augment.instruments=[{{name: synchrotron_strip, weight: 1, fraction: [{fraction}, {fraction}], "
        "texture: [0, 0], energy_kev: [22, 22]}]"
    )


def test_nothing_but_an_instrument_leaves_the_pattern(store) -> None:
    """A strip detector on a synchrotron: with no other effect, the clean pattern but for smooth factors."""
    recipe = recipe_of("instrument", store, *OFF, plain(1.0))
    rows = rows_of(store, recipe, 300)
    y, mask = recipe.random(rows, generator())
    seen = (mask.sum(dim=0) == len(mask)).numpy()
    ratio = (y / rows.intensity)[:, seen].double()
    smooth = np.polynomial.Polynomial.fit
    rest = []
    for k in range(3):
        mean = ratio[k::3].mean(dim=0).numpy()
        x = np.linspace(-1, 1, len(mean))
        rest.append(np.abs(mean / smooth(x, mean, 6)(x) - 1).max())
    assert max(rest) < 0.03, "reflections keep their places and heights"


def test_shares_of_the_dots_are_those_of_the_settings(store) -> None:
    """Dots of twice the share have twice the contrast of their reflections."""
    contrast = []
    for fraction in (0.4, 0.8):
        recipe = recipe_of("instrument", store, *OFF, plain(fraction), "augment.surroundings.spread=0")
        rows = rows_of(store, recipe, 300)
        y, _ = recipe.random(rows, generator())
        one = y[1::3].mean(dim=0)
        q = torch.tensor(Q)
        peak, valley = ((one[(q > low) & (q < low + 0.1)]).mean() for low in (3.45, 3.25))
        contrast.append(float(peak - valley))
    assert contrast[1] / contrast[0] == pytest.approx(2, rel=0.25)


def test_a_solvent_file_beside_the_liquids_and_instead_of_them(store, tmp_path) -> None:
    q = np.arange(0.5, 16, 0.01)
    np.savetxt(tmp_path / "spike.xy", np.stack([q, 1 + 50 * np.exp(-0.5 * ((q - 6) / 0.2) ** 2)], axis=1))
    spike = f"{{name: spike, file: '{tmp_path / 'spike.xy'}', wavelength: null}}"
    hexane = "{name: hexane, file: null, wavelength: null}"
    shown = {}
    for title, solvents in (("without", hexane), ("beside", f"{hexane}, {spike}"), ("instead", spike)):
        recipe = recipe_of(
            "instrument", store, *OFF, plain(0.1), f"augment.surroundings.solvents=[{solvents}]",
            "augment.surroundings.background_share=[0,0]",
        )  # fmt: skip
        y, _ = recipe.random(rows_of(store, recipe, 200), generator())
        shown[title] = float(y[:, np.abs(Q - 6).argmin()].mean())
    assert shown["without"] < 1.5 < shown["beside"] < shown["instead"]


def test_a_solvent_file_that_does_not_cover_q(store, tmp_path) -> None:
    q = np.arange(1.0, 12, 0.01)
    np.savetxt(tmp_path / "short.xy", np.stack([q, 3 + np.sin(q)], axis=1))
    short = f"{{name: short, file: '{tmp_path / 'short.xy'}', wavelength: null}}"
    with pytest.raises(ValueError, match=r"must cover the patterns' Q, 0.9 to 13.98 Å⁻¹"):
        recipe_of("instrument", store, f"augment.surroundings.solvents=[{short}]")


def test_a_grid_without_room_for_an_instrument(store) -> None:
    narrow = SimpleNamespace(**{**vars(store), "q": np.arange(0.9, 2.5, 0.02)})
    with pytest.raises(ValueError, match=r"windows of instrument synchrotron_strip .* at least\s+1 Å⁻¹"):
        recipe_of("instrument", narrow)


def test_stores_that_do_not_fit(store) -> None:
    neutrons = SimpleNamespace(**{**vars(store), "attrs": store.attrs | {"particle": "neutron"}})
    with pytest.raises(ValueError, match="is for X-rays, memory holds patterns of neutrons"):
        recipe_of("instrument", neutrons)
    moving = [store.attrs["variants"][0] | {"motion": {"smooth": 2.0}}]
    already = SimpleNamespace(**{**vars(store), "attrs": store.attrs | {"variants": moving}})
    with pytest.raises(ValueError, match="holds patterns that have them already"):
        recipe_of("instrument", already)


def test_rows_without_atoms(instrument, store) -> None:
    rows = replace(rows_of(store, instrument, 3), atoms=None)
    with pytest.raises(ValueError, match=r"rows know nothing of their atoms; read them with Recipe\.atoms"):
        instrument.random(rows, generator())


@pytest.mark.gpu("torch")
def test_a_gpu_never_waits_and_draws_the_same_distribution(store) -> None:
    """No transfer within a batch, the same batch twice, and means that agree with those of the CPU."""
    device = torch.device("cuda")
    both = {}
    for where in (CPU, device):
        recipe = recipe_of("instrument", store, device=where)
        rows = rows_of(store, recipe, 3000, where)
        drawn = [recipe.random(rows, torch.Generator(where).manual_seed(3)) for _ in range(2)]
        assert torch.equal(drawn[0][0], drawn[1][0])
        y, mask = (part.double().cpu() for part in drawn[0])
        both[where.type] = (y.sum(dim=0) / mask.sum(dim=0).clamp(min=1)), mask.mean(dim=0)
        if where.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            try:
                recipe.random(rows, torch.Generator(where).manual_seed(4))
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(both["cpu"][1], both["cuda"][1], atol=0.05)
    assert torch.allclose(both["cpu"][0], both["cuda"][0], rtol=0.1)
