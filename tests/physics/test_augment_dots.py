"""The atoms' effects of the augmentation against exact simulations of dots that have them."""

from dataclasses import replace

import dot_store
import numpy as np
import pytest
import torch
from dot_store import Q, pattern
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.motion import REACH, correlation_weights, shells, smooth_correlation
from hpc.scattering import coefficients
from hpc.structure.material import load_material
from qdml.atoms import SampleAtoms
from qdml.augmentation.config import DotsConfig
from qdml.augmentation.dots import Dots
from qdml.augmentation.near import NearTables
from qdml.config_reader import read_config
from qdml.dataset import Rows, read_rows

CPU = torch.device("cpu")
EVERY = np.arange(3)
# Of the patterns' highest point, in float32.
EXACT = 1e-6


@pytest.fixture(scope="module")
def store():
    return dot_store.dot_store()


@pytest.fixture(scope="module")
def atoms(store) -> SampleAtoms:
    return SampleAtoms(store)


@pytest.fixture(scope="module")
def rows(store, atoms) -> Rows:
    return read_rows(store, EVERY, CPU, atoms)


@pytest.fixture(scope="module")
def near(atoms) -> NearTables:
    terms = coefficients(atoms.kinds, Q, energy_kev=dot_store.ENERGY)
    return NearTables(
        atoms, Q, undamped=terms.undamped, exponent=terms.exponent, shells=shells(load_material("pbs"), 3),
        halo=terms.undamped, halo_b=(2.0, 5.0), device=CPU,
    )  # fmt: skip


def config(**changes) -> DotsConfig:
    """All effects off, but for those that are given."""
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=["augment=instrument", "data.store=x"])
    whole = read_config(DotsConfig, OmegaConf.to_container(composed.augment.dots, resolve=True))
    off = {"correlation": (0.0, 0.0), "halo": 0.0, "surface_b": (0.0, 0.0), "model_error": 0.0}
    return replace(whole, **(off | changes))


def dots_of(store, atoms, **changes) -> Dots:
    return Dots(config(**changes), atoms, Q, store.attrs, CPU)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_atoms_of_samples(atoms, rows) -> None:
    """Half of the atoms are Pb; each has the six S neighbours of the bulk, less those that the surface lacks."""
    assert [kind.element for kind in atoms.kinds] == ["Pb", "S"]
    assert rows.atoms is not None
    assert rows.atoms.shares.numpy() == pytest.approx(0.5, abs=0.02)
    first = np.argmin(atoms.distance)
    assert atoms.distance[first] == pytest.approx(2.968)
    neighbours = rows.atoms.near[:, first].numpy()
    # A share 3.5 Å / D of a sphere's pairs at this distance is missing: 3r/2D to first order, less where cut at shells.
    assert neighbours == pytest.approx(6 * (1 - 1.5 * 0.2968 / np.array([2.6, 3.7, 5.05])), rel=0.03)
    assert atoms.distance.max() < REACH


@pytest.mark.parametrize("law", ["shells", "smooth"])
def test_correlated_motion_is_that_of_the_simulation(law, atoms, rows, near) -> None:
    if law == "shells":
        values = [0.6, 0.4, 0.2]
        c = np.array(values) @ correlation_weights(atoms.distance, shells(load_material("pbs"), 4)[0])
        motion = {"correlation": values}
    else:
        c = smooth_correlation(atoms.distance, 2.2)
        motion = {"smooth": 2.2}
    c_BC = torch.tensor(c, dtype=torch.float32).expand(3, -1)
    added = near(rows.atoms, c_BC, torch.zeros(3, 3), torch.full((3, 1), 3.0))
    for sample in EVERY:
        clean = pattern(sample)
        wanted = pattern(sample, motion=motion) - clean
        assert np.abs(wanted).max() > 0.01 * clean.max()
        assert np.abs(added[sample].numpy() - wanted).max() < EXACT * clean.max()


def test_halo_is_that_of_the_simulation(rows, near, atoms) -> None:
    amplitude, b = [0.1, -0.05, 0.03], [2.0, 3.3, 5.0]
    added = near(
        rows.atoms,
        torch.zeros(3, len(atoms.distance)),
        torch.tensor([amplitude] * 3),
        torch.tensor(b)[:, None],
    )
    for sample in EVERY:
        clean = pattern(sample)
        wanted = pattern(sample, motion={"halo": amplitude, "halo_b": b[sample]}) - clean
        assert np.abs(added[sample].numpy() - wanted).max() < EXACT * clean.max()


def test_without_effects_dots_stay_as_they_are(store, atoms, rows) -> None:
    got = dots_of(store, atoms)(rows, torch.zeros(3, 1), generator())
    assert torch.allclose(got, rows.intensity, rtol=1e-5)


def test_texture_multiplies_the_bragg_part_alone(store, atoms, rows) -> None:
    """What changes vanishes where nothing but diffuse scattering is left, and averages to the mean gain."""
    dots = dots_of(store, atoms)
    many, t = rows.take(torch.full((4000,), 1)), 0.3
    got = dots(many, torch.full((4000, 1), t), generator()).double()
    clean = pattern(1)
    # ln γ is normal: <γ> = e^{t²/2}. B = 1.3 Å²: Bragg scattering has gone at the end of the range.
    kinds = atoms.kinds
    self_ = coefficients(kinds, Q, energy_kev=dot_store.ENERGY).self
    diffuse = 0.5 * sum(
        one * (1 - np.exp(-2 * kind.b_iso * (Q / 4 / np.pi) ** 2))
        for one, kind in zip(self_, kinds, strict=True)
    )
    bragg = clean - diffuse
    assert bragg.min() > 0
    shown = got.mean(dim=0).numpy() - clean
    assert shown == pytest.approx((np.exp(t**2 / 2) - 1) * bragg, abs=0.015 * bragg.max())
    # 111 and 200 are directions of their own, 111 and 222 are one.
    at = [int(np.argmin(np.abs(Q - 2 * np.pi * np.sqrt(n) / 5.936))) for n in (3, 4, 12)]
    gain = ((got[:, at] - torch.tensor(clean[at])) / torch.tensor(bragg[at])).numpy()
    correlation = np.corrcoef(gain.T)
    assert abs(correlation[0, 1]) < 0.3
    # 311 lies 0.16 Å⁻¹ below 222 and has a part of it.
    assert correlation[0, 2] > 0.6


def test_atoms_of_the_surface_move_more(store, atoms, rows) -> None:
    """Against a simulation that has those atoms in their places, at the strength that the recipe uses."""
    extra = 1.3
    dots = dots_of(store, atoms, surface_b=(extra, extra), surface_depth=2.968 / 2)
    got = dots(rows, torch.zeros(3, 1), generator()).numpy()
    # B of sites without six neighbours twice that of the others: 2.6 instead of 1.3 Å².
    for sample in (1, 2):
        clean = pattern(sample)
        wanted = pattern(sample, motion={"surface_b": 1 + extra / (1.27 * dot_store.B_SCALES[sample])})
        change, wanted = got[sample] - clean, wanted - clean
        assert np.corrcoef(change, wanted)[0, 1] > 0.9
        assert np.abs(change).sum() == pytest.approx(np.abs(wanted).sum(), rel=0.35)


def test_model_error_is_a_smooth_factor(store, atoms, rows) -> None:
    dots = dots_of(store, atoms, model_error=0.02, model_error_length=0.3)
    many = rows.take(torch.full((2000,), 0))
    ratio = (dots(many, torch.zeros(2000, 1), generator()) / many.intensity).double()
    assert float(ratio.mean()) == pytest.approx(1, abs=1e-3)
    assert float(ratio.std()) == pytest.approx(0.02, rel=0.05)
    # Neighbouring points of the grid, 0.02 Å⁻¹ apart, share it.
    assert float((ratio[:, 1:] - ratio[:, :-1]).std()) < 0.1 * 0.02


def test_both_laws_of_correlation_are_drawn(store, atoms) -> None:
    dots = dots_of(store, atoms, correlation=(0.1, 0.8), smooth_share=0.5)
    c = dots.correlation(4000, generator())
    assert c.min() >= 0
    assert c.max() <= 0.8 + 1e-6
    far = atoms.distance > 8
    share = float((c[:, far].max(dim=1).values > 0).double().mean())
    assert share == pytest.approx(0.5, abs=0.03), "only the smooth law reaches beyond the shells"
    first = int(np.argmin(atoms.distance))
    assert float(c[:, first].mean()) == pytest.approx(0.45, abs=0.02)


def test_dots_repeat_with_the_seed(store, atoms, rows) -> None:
    dots = Dots(
        config(correlation=(0.1, 0.8), halo=0.1, surface_b=(0.0, 2.0), model_error=0.01),
        atoms,
        Q,
        store.attrs,
        CPU,
    )
    texture = torch.full((3, 1), 0.2)
    one, two, other = (dots(rows, texture, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)
