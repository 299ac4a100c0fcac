"""Recipes: the right effects in the right cells, reproducibly, differentiable, from stores that have what they need."""

from dataclasses import replace
from types import SimpleNamespace

import dot_store
import numpy as np
import pytest
import torch
from runs import train_config
from torch.func import jvp

from qdml.augmentation.recipe import Main, Recipe
from qdml.augmentation.recipes import build_recipe
from qdml.dataset import Rows
from qdml.observation import CONDITIONS, Observation

CPU = torch.device("cpu")
Q = dot_store.Q
NAMES = ["synchrotron_strip", "synchrotron_area", "lab_cu", "lab_mo", "lab_ag"]


@pytest.fixture(scope="module")
def store() -> SimpleNamespace:
    return dot_store.dot_store()


def config_of(name: str, *overrides: str):
    return train_config(f"augment={name}", "data.store=x", *overrides).augment


def recipe_of(name: str, store: SimpleNamespace, *overrides: str, device=CPU, dtype=torch.float32) -> Recipe:
    return build_recipe(config_of(name, *overrides), store, device, dtype)


def rows_of(store: SimpleNamespace, n: int, device: torch.device = CPU) -> Rows:
    """The three dots of the store, over and over."""
    index = np.arange(n) % 3
    return Rows(
        intensity=torch.tensor(store.read(0, 3)[index], device=device),
        **{name: torch.tensor(values[index], device=device) for name, values in store.parameters.items()},
    )


@pytest.fixture(scope="module")
def instrument(store) -> Recipe:
    return recipe_of("instrument", store)


@pytest.fixture(scope="module")
def precise(store) -> Recipe:
    return recipe_of("instrument", store, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_of(observation: Observation) -> torch.Tensor:
    return (observation.intensity * observation.mask).sum(dim=1) / observation.mask.sum(dim=1)


@pytest.mark.parametrize("name", ["allara2024", "instrument"])
def test_recipes_repeat_with_the_seed_and_stay_finite(name: str, store, instrument) -> None:
    recipe = instrument if name == "instrument" else recipe_of(name, store)
    many = rows_of(store, 96)
    assert recipe.needs_intensity == (name == "allara2024")
    seen = recipe.random(many, generator(1))
    again, other = recipe.random(many, generator(1)), recipe.random(many, generator(2))
    assert torch.equal(seen.intensity, again.intensity)
    assert torch.equal(seen.conditions, again.conditions)
    assert not torch.allclose(seen.intensity, other.intensity)
    assert len(seen) == 96
    assert seen.conditions.shape == (96, len(CONDITIONS))
    for values in (seen.intensity, seen.noise, seen.mask, seen.conditions):
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
    assert seen.intensity.min() >= 0
    assert seen.noise.min() > 0
    assert mean_of(seen).numpy() == pytest.approx(1, abs=0.1)


def test_instruments_have_their_windows_and_frequencies(instrument, store) -> None:
    assert instrument.cells == NAMES
    assert len(instrument.windows) == 5
    q = torch.tensor(Q)
    for cell, ((first, _), (_, last)) in enumerate(instrument.windows):
        got = instrument.cell(cell, rows_of(store, 48), generator())
        seen = q[got.mask.bool().any(dim=0)]
        assert seen[0] >= first - 0.02
        assert seen[-1] <= last + 0.02
        assert (got.intensity[got.mask == 0] == 0).all()
        assert mean_of(got).numpy() == pytest.approx(1, abs=0.05)
    mask = instrument.random(rows_of(store, 3000), generator()).mask
    ends = q[len(q) - 1 - mask.flip(1).argmax(dim=1)]
    assert 0.3 < float((ends < 7.1).double().mean()) < 0.45, "all of the copper anode, and short scans"
    known = instrument.random(rows_of(store, 3000), generator()).conditions
    plate = dict(zip(CONDITIONS, known.T, strict=True))["plate"]
    assert float(plate.double().mean()) == pytest.approx(0.3, abs=0.03), "those of the copper anode"


def test_conditions_are_those_of_the_instrument(instrument, store) -> None:
    known = {}
    for cell, name in enumerate(NAMES):
        rows = instrument.cell(cell, rows_of(store, 48), generator()).conditions
        known[name] = dict(zip(CONDITIONS, rows.T, strict=True))
    assert np.exp(known["lab_cu"]["log_wavelength"].numpy()) == pytest.approx(1.5406, abs=1e-3)
    wavelength = np.exp(known["synchrotron_strip"]["log_wavelength"].numpy())
    assert 12.398 / 30 < wavelength.min() < 0.5
    assert 0.6 < wavelength.max() < 12.399 / 16
    for name in NAMES:
        assert (known[name]["plate"] == (name == "lab_cu")).all()
        doublet = {"lab_cu": 0.249, "lab_mo": 0.603, "lab_ag": 0.785}.get(name, 0.0)
        assert known[name]["doublet"].numpy() == pytest.approx(doublet, abs=2e-3)
    width = {name: known[name]["log_width_5"].exp() for name in NAMES}
    # What conf/augment says of the synchrotron: 0.002 to 0.06 Å⁻¹.
    assert 0.0015 < float(width["synchrotron_strip"].min()) < 0.004
    assert 0.03 < float(width["synchrotron_strip"].max()) < 0.08
    assert float(width["lab_cu"].mean()) < float(width["synchrotron_area"].mean())


def test_declared_noise_is_that_of_the_photons_that_came(instrument, store) -> None:
    rows = rows_of(store, 200)
    setting, z = instrument.draw(rows, generator(), cell=2)
    expected = instrument.expected(rows.main(), setting, z)
    seen = instrument.observe(expected, generator(1))
    counts = seen.intensity * expected.rate
    assert torch.allclose(seen.noise * expected.rate, counts.clamp(min=1).sqrt(), rtol=1e-4)
    pull = ((seen.intensity - expected.intensity) / seen.noise)[expected.mask > 0].double()
    assert float(pull.mean()) == pytest.approx(0, abs=0.05)
    assert float(pull.std()) == pytest.approx(1, abs=0.02)
    # The highest point of one step of the instrument has the dose.
    assert float((counts.amax(dim=1, keepdim=True) / setting.dose).min()) > 0.9
    visible = (counts * seen.mask).sum(dim=1) / seen.mask.sum(dim=1)
    assert torch.allclose(seen.conditions[:, -1].exp(), visible, rtol=1e-4)


def test_parts_add_up_and_have_their_shares(instrument, store) -> None:
    rows = rows_of(store, 60)
    setting, z = instrument.draw(rows, generator())
    z[:, instrument.space.names["model_error"]] = 0
    z[:, instrument.space.names["solvent_gain"]] = 0
    z[:, instrument.space.names["background_gain"]] = 0
    expected = instrument.expected(rows.main(), setting, z)
    assert torch.allclose(sum(expected.parts.values()), expected.intensity, atol=1e-4)
    share = (expected.parts["dots"] * setting.mask).sum(dim=1) / setting.mask.sum(dim=1)
    low = torch.where(setting.instrument == NAMES.index("synchrotron_strip"), 0.12, 0.15)
    fraction = low + (1 - low) * instrument.space.values(z)["fraction"][:, 0]
    assert share.numpy() == pytest.approx(fraction.numpy(), abs=0.01)


def double_main(rows: Rows) -> Main:
    main = rows.main()
    names = ("log_volume_diameter", "sigma", "strain", "b_scale")
    return replace(main, **{name: getattr(main, name).double() for name in names}, intensity=None)


LATENTS = (
    "fraction", "solvent", "container", "ring", "container_share", "background_share", "background_decay",
    "fluorescence_share", "solvent_gain", "background_gain", "zero_deg", "displacement_mm", "absorption", "resolution",
    "b_ratio", "correlation", "correlation_fall", "correlation_law", "halo", "halo_b", "surface_b", "texture_spread",
    "texture", "model_error_size", "model_error",
)  # fmt: skip


def test_every_latent_is_named_here(precise) -> None:
    assert sorted(precise.space.names) == sorted(LATENTS)


@pytest.mark.parametrize("name", LATENTS)
def test_derivatives_with_respect_to_every_latent(name: str, precise, store) -> None:
    """Forward derivatives against differences, on every instrument; each unknown changes the pattern."""
    rows = rows_of(store, 5)
    setting = precise._optics.draw(torch.arange(5), generator(1))
    z = precise.space.draw(5, generator(2), torch.float64)
    main = double_main(rows)

    def pattern(z: torch.Tensor) -> torch.Tensor:
        return precise.expected(main, setting, z).intensity * setting.mask

    along = torch.zeros_like(z)
    where = precise.space.names[name]
    along[:, where] = torch.randn(5, where.stop - where.start, generator=generator(3), dtype=torch.float64)
    _, got = jvp(pattern, (z,), (along,))
    h = 1e-5
    wanted = (pattern(z + h * along) - pattern(z - h * along)) / (2 * h)
    assert got.abs().max() > 1e-4
    # The ring of a liquid is moved by linear interpolation: a difference may lie across a point of it.
    assert float((got - wanted).abs().max()) < (3e-2 if name == "ring" else 1e-5) * float(wanted.abs().max())


@pytest.mark.parametrize("recipe_name", ["instrument", "allara2024"])
def test_derivatives_with_respect_to_the_dots(recipe_name: str, precise, store) -> None:
    recipe = precise if recipe_name == "instrument" else recipe_of("allara2024", store, dtype=torch.float64)
    rows = rows_of(store, 5)
    setting, z = recipe.draw(rows, generator(1))
    main = double_main(rows)
    # The basis is made when it is first needed, which is no function of the dots.
    assert recipe.basis is not None
    for name, h in (("log_volume_diameter", 3e-3), ("sigma", 3e-3), ("strain", 1e-4), ("b_scale", 1e-3)):

        def pattern(x: torch.Tensor, name: str = name) -> torch.Tensor:
            return recipe.expected(replace(main, **{name: x}), setting, z).intensity

        x = getattr(main, name)
        _, got = jvp(pattern, (x,), (torch.ones_like(x),))
        wanted = (pattern(x + h) - pattern(x - h)) / (2 * h)
        assert wanted.abs().max() > 1e-2
        # The averages over sizes are float32, and the pattern is not linear over the step.
        assert float((got - wanted).abs().max()) < 5e-3 * float(wanted.abs().max())


def test_fields_give_their_columns_of_the_jacobian(precise, store) -> None:
    rows = rows_of(store, 5)
    setting, z = precise.draw(rows, generator(1))
    main, mask = double_main(rows), setting.mask
    expected = precise.expected(main, setting, z)
    assert set(precise.space.fields) == {"solvent_gain", "background_gain", "model_error"}
    for name, field in precise.space.fields.items():
        along = torch.zeros_like(z)
        k = torch.randn(5, len(field.basis), generator=generator(3), dtype=torch.float64)
        along[:, field.slice] = k
        _, wanted = jvp(lambda z: precise.expected(main, setting, z).intensity, (z,), (along,))
        column = expected.amplitudes[name] * expected.parts[field.part] * (k @ field.basis)
        column = column - expected.intensity * (column * mask).sum(dim=1, keepdim=True) / mask.sum(
            dim=1, keepdim=True
        )
        off = ((column - wanted) * mask).abs().max()
        # The solvent has its factor on a coarse grid.
        assert off < (3e-3 if name == "solvent_gain" else 1e-5) * (wanted * mask).abs().max()


def test_dots_of_the_published_recipe_come_from_the_basis_too(store) -> None:
    recipe = recipe_of("allara2024", store)
    rows = rows_of(store, 3)
    setting, z = recipe.draw(rows, generator())
    given = recipe.expected(rows.main(), setting, z).intensity
    made = recipe.expected(replace(rows.main(), intensity=None), setting, z).intensity
    assert float(((given - made).abs().amax(dim=1) / given.amax(dim=1)).max()) < 1e-4


def test_patterns_keep_what_tells_sizes_apart(instrument, store) -> None:
    """In the mean over many draws the pattern of each size is nearest to its own clean pattern."""
    rows = rows_of(store, 600)
    q = torch.as_tensor(Q)
    seen = instrument.cell(0, rows, generator())
    inner = (q > 2.3) & (q < 8)
    mask = torch.ones(1, len(Q))

    def rough(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The logarithm of y less its smooth, in which sizes show."""
        log = torch.log((y / y.mean(dim=1, keepdim=True)).clamp(min=1e-3)) * mask
        kernel = torch.exp(-0.5 * (torch.arange(-70, 71) * 0.02 / 0.35) ** 2)[None, None]
        smooth, weight = (
            torch.nn.functional.conv1d(one[:, None], kernel, padding=70)[:, 0]
            for one in (log, mask.expand_as(y))
        )
        return (log - smooth / weight.clamp(min=1e-6))[:, inner]

    means = torch.stack([rough(seen.intensity, seen.mask)[k::3].mean(dim=0) for k in range(3)])
    clean = rough(rows.intensity[:3], mask)
    assert torch.corrcoef(torch.cat([means, clean]))[:3, 3:].argmax(dim=1).tolist() == [0, 1, 2]


OFF = (
    "augment.dots.correlation=[0,0]", "augment.dots.halo=0", "augment.dots.surface_b=[0,0]",
    "augment.dots.model_error=[1e-9,1e-9]", "augment.dots.b_ratio=[1,1]",
)  # fmt: skip


def plain(fraction: float) -> str:
    return (
        f"augment.instruments=[{{name: synchrotron_strip, weight: 1, fraction: [{fraction}, {fraction}], "
        "texture: [0, 0], energy_kev: [22, 22], ranges: {}}]"
    )


def test_nothing_but_an_instrument_leaves_the_pattern(store) -> None:
    """A strip detector on a synchrotron: with no other effect, the clean pattern but for smooth factors."""
    recipe = recipe_of("instrument", store, *OFF, plain(1.0))
    rows = rows_of(store, 300)
    got = recipe.random(rows, generator())
    seen = (got.mask.sum(dim=0) == len(rows)).numpy()
    ratio = (got.intensity / rows.intensity)[:, seen].double()
    smooth = np.polynomial.Polynomial.fit
    rest = []
    for k in range(3):
        mean = ratio[k::3].mean(dim=0).numpy()
        x = np.linspace(-1, 1, len(mean))
        rest.append(np.abs(mean / smooth(x, mean, 6)(x) - 1).max())
    assert max(rest) < 0.03, "reflections keep their places and heights"


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
        y = recipe.random(rows_of(store, 200), generator()).intensity
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


def test_ranges_of_an_instrument_that_differ_in_a_recipe(store) -> None:
    own = plain(0.5).replace("ranges: {}", "ranges: {resolution_factor: [7, 7]}")
    assert config_of("instrument", own).instruments[0].load().random.resolution_factor == (7, 7)
    for wrong, message in (
        ("{width: [1, 2]}", r"ranges may hold \['zero_deg', .* got 'width'"),
        ("{zero_deg: [1, 0]}", r"ranges\.zero_deg must be \[low, high\]"),
        ("{zero_deg: [0, 9]}", r"random\.zero_deg must be low <= high within -5 to 5"),
    ):
        with pytest.raises(ValueError, match=message):
            config_of("instrument", own.replace("{resolution_factor: [7, 7]}", wrong))


def test_stores_that_do_not_fit(store) -> None:
    neutrons = SimpleNamespace(**{**vars(store), "attrs": store.attrs | {"particle": "neutron"}})
    with pytest.raises(ValueError, match="is for X-rays, memory holds patterns of neutrons"):
        recipe_of("instrument", neutrons)
    moving = [store.attrs["variants"][0] | {"motion": {"smooth": 2.0}}]
    already = SimpleNamespace(**{**vars(store), "attrs": store.attrs | {"variants": moving}})
    with pytest.raises(ValueError, match="holds patterns that have them already"):
        recipe_of("instrument", already)


@pytest.mark.gpu("torch")
def test_a_gpu_never_waits_and_draws_the_same_distribution(store) -> None:
    """No transfer within a batch, the same batch twice, and means that agree with those of the CPU."""
    device = torch.device("cuda")
    both = {}
    for where in (CPU, device):
        recipe = recipe_of("instrument", store, device=where)
        rows = rows_of(store, 3000, where)
        drawn = [recipe.random(rows, torch.Generator(where).manual_seed(3)) for _ in range(2)]
        assert torch.equal(drawn[0].intensity, drawn[1].intensity)
        y, mask = (part.double().cpu() for part in (drawn[0].intensity, drawn[0].mask))
        both[where.type] = (y.sum(dim=0) / mask.sum(dim=0).clamp(min=1)), mask.mean(dim=0)
        if where.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
            try:
                recipe.random(rows, torch.Generator(where).manual_seed(4))
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(both["cpu"][1], both["cuda"][1], atol=0.05)
    assert torch.allclose(both["cpu"][0], both["cuda"][0], rtol=0.1)
