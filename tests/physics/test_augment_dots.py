"""Dots of the augmentation against exact simulations of dots that do the same."""

from dataclasses import replace

import dot_store
import numpy as np
import pytest
import torch
from dot_store import Q, pattern
from runs import train_config

from hpc.form_factors import scattering_factor
from hpc.instrument.lines import seen
from hpc.motion import correlation_weights, smooth_correlation
from hpc.scattering import coefficients
from hpc.structure.crystal import shells
from hpc.structure.material import load_material
from qdml.augmentation.amplitudes import Amplitudes
from qdml.augmentation.config import DotsConfig
from qdml.augmentation.dots import Dots
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.recipe import Main
from qdml.basis import DotBasis
from qdml.basis_building import build_basis

CPU = torch.device("cpu")
# Of the patterns' highest point: the compressed basis, float32, and interpolation at the grid's step of 0.02 Å⁻¹.
EXACT = 5e-5
ENERGIES = (dot_store.ENERGY, 8.048, 75.0)


@pytest.fixture(scope="module")
def store():
    return dot_store.dot_store()


@pytest.fixture(scope="module")
def basis(store) -> DotBasis:
    return build_basis(store, Q, tolerance=2e-5, device=CPU, margin=0.15)


@pytest.fixture(scope="module")
def main(store) -> Main:
    value = {name: torch.tensor(v) for name, v in store.parameters.items()}
    return Main(
        log_volume_diameter=torch.log(value["diameter"] * (1 + value["sigma"] ** 2) ** 3).float(),
        sigma=value["sigma"].float(),
        strain=value["strain"].float(),
        variant=value["variant"],
        b_scale=value["b_scale"].float(),
    )


def config(**changes) -> DotsConfig:
    """All effects off, but for those that are given."""
    whole = train_config("augment=instrument", "data.store=x").augment.dots
    off = {"correlation": (0.0, 0.0), "halo": 0.0, "surface_b": (0.0, 0.0), "b_ratio": (1.0, 1.0)}
    return replace(whole, **(off | changes))


class World:
    """Dots with the effects that are given, and their latents."""

    def __init__(self, basis: DotBasis, **changes) -> None:
        self.space = LatentSpace()
        self.basis = basis
        self.dots = Dots(config(**changes), basis, (8.0, 90.0), self.space, CPU)
        self.q = torch.tensor(basis.q, dtype=torch.float32)

    def values(self, n: int, **chosen) -> dict[str, torch.Tensor]:
        """Values of all latents, 0 (uniform ones 1/2) but for those given."""
        values = self.space.values(torch.zeros(n, len(self.space)))
        return values | {name: torch.tensor(v).expand(values[name].shape) for name, v in chosen.items()}

    def patterns(self, main: Main, values, *, energy=dot_store.ENERGY, texture=0.0) -> np.ndarray:
        """(B, Q) on the grid of the patterns, strain applied."""
        n = len(main)
        y = self.dots(main, torch.full((n, 1), energy), values, torch.full((n, 1), texture))
        return on_grid(self.basis, main, y)


def on_grid(basis: DotBasis, main: Main, y: torch.Tensor) -> np.ndarray:
    q = torch.tensor(basis.q, dtype=torch.float32)
    return seen(y, q, [1.0], [1.0], main.strain[:, None] * q)[:, basis.inside].double().numpy()


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / wanted.max())


@pytest.mark.parametrize("energy", ENERGIES)
def test_perfect_dots_are_those_of_the_simulation_at_every_energy(energy, main, basis) -> None:
    """At three sizes, dispersions, strains and B, with f' and f'' of the energy that is asked for."""
    dots = Dots(None, basis, (8.0, 90.0), LatentSpace(), CPU)
    got = on_grid(basis, main, dots(main, torch.full((3, 1), energy)))
    for sample in range(3):
        assert error(got[sample], pattern(sample, energy_kev=energy)) < EXACT


def test_without_effects_dots_are_perfect(main, basis) -> None:
    world = World(basis)
    got = world.patterns(main, world.values(3))
    for sample in range(3):
        assert error(got[sample], pattern(sample)) < EXACT


def test_compton_scattering_is_that_of_the_simulation(main) -> None:
    store = dot_store.dot_store(compton=True)
    basis = build_basis(store, Q, tolerance=2e-5, device=CPU, margin=0.15)
    dots = Dots(None, basis, (22.0, 22.0), LatentSpace(), CPU)
    got = on_grid(basis, main, dots(main, torch.full((3, 1), 22.0)))
    wanted = pattern(1, compton=True)
    assert error(wanted, pattern(1)) > 30 * EXACT
    assert error(got[1], wanted) < EXACT


def test_elements_have_b_of_their_own(main, basis) -> None:
    """B of S 1.7 times what the row's factor says; that of Pb stays."""
    world = World(basis, b_ratio=(1.7, 1.7))
    got = world.patterns(main, world.values(3))
    for sample in range(3):
        wanted = pattern(sample, b_ratio=1.7)
        assert error(wanted, pattern(sample)) > 30 * EXACT
        assert error(got[sample], wanted) < EXACT


@pytest.mark.parametrize("energy", ENERGIES[:2])
@pytest.mark.parametrize("law", ["shells", "smooth"])
def test_correlated_motion_is_that_of_the_simulation(law, energy, main, basis) -> None:
    first = shells(load_material("pbs"), 1)[0][0]
    world = World(basis, shells=3, correlation=(0.6, 0.6))
    if law == "shells":
        chosen, motion = {"correlation_law": 1.0}, {"correlation": [0.6, 0.36, 0.18]}
        chosen["correlation_fall"] = [0.6, 0.5]
    else:
        chosen, motion = {"correlation_law": 0.0}, {"smooth": 0.6 * first}
    got = world.patterns(main, world.values(3, **chosen), energy=energy)
    for sample in range(3):
        wanted = pattern(sample, motion=motion, energy_kev=energy)
        assert error(wanted, pattern(sample, energy_kev=energy)) > 0.01
        assert error(got[sample], wanted) < EXACT


def test_halo_is_that_of_the_simulation(main, basis) -> None:
    """Amplitudes go with the share of the surface: here such that every dot has the same."""
    amplitude, b = torch.tensor([0.1, -0.05, 0.03, 0.0]), 3.3
    world = World(basis, halo=1.0, halo_b=(b, b))
    share = world.dots.surface_share(main.numbers())
    got = world.patterns(main, world.values(3) | {"halo": amplitude / share})
    for sample in range(3):
        wanted = pattern(sample, motion={"halo": amplitude[:3].tolist(), "halo_b": b})
        assert error(wanted, pattern(sample)) > 0.01
        assert error(got[sample], wanted) < EXACT


def test_correlation_lies_between_its_two_laws(basis) -> None:
    world = World(basis, correlation=(0.1, 0.8))
    values = world.space.values(
        torch.randn(4000, len(world.space), generator=torch.Generator().manual_seed(0))
    )
    c = world.dots.correlation(values)
    assert c.min() >= 0
    assert c.max() <= 0.8 + 1e-6
    first = int(np.argmin(basis.near_distance))
    assert float(c[:, first].mean()) == pytest.approx(0.45, abs=0.02)
    r, nodes = basis.near_distance, shells(load_material("pbs"), 5)[0]
    one = {"correlation": 0.5, "correlation_fall": [0.5, 0.5, 0.5]}
    ends = [
        world.dots.correlation(world.values(1, **one, correlation_law=law))[0].numpy() for law in (0.0, 1.0)
    ]
    c0 = 0.45
    assert ends[0] == pytest.approx(smooth_correlation(r, c0 * nodes[0]), abs=3e-6)
    assert ends[1] == pytest.approx(c0 * 0.5 ** np.arange(4) @ correlation_weights(r, nodes), abs=1e-6)
    middle = world.dots.correlation(world.values(1, **one, correlation_law=0.5))[0].numpy()
    assert middle == pytest.approx((ends[0] + ends[1]) / 2, abs=1e-6)


def test_texture_multiplies_the_bragg_part_alone(main, basis) -> None:
    """One direction with a gain of its own: what changes is Bragg scattering near its reflections."""
    from hpc.texture import reflection_groups

    world = World(basis)
    gain, sample = 1.8, 1
    z = torch.zeros(3, world.values(3)["texture"].shape[1])
    z[:, 0] = 1.0  # 111
    values = world.values(3) | {"texture": z}
    got = world.patterns(main, values, texture=float(np.log(gain)))
    clean = pattern(sample)
    kinds, b_scale = basis.kinds, dot_store.B_SCALES[sample]
    self_ = coefficients(kinds, Q, energy_kev=dot_store.ENERGY).self
    shares = basis.average(main.variant, main.log_volume_diameter, main.sigma).shares[sample].numpy()
    s2 = (Q / 4 / np.pi) ** 2
    diffuse = sum(
        x * one * (1 - np.exp(-2 * b_scale * kind.b_iso * s2))
        for x, one, kind in zip(shares, self_, kinds, strict=True)
    )
    groups = reflection_groups(
        load_material("pbs"), Q * (1 + dot_store.STRAINS[sample]), blend=config().texture_blend
    )
    wanted = clean + (gain - 1) * groups[0] * (clean - diffuse)
    assert error(wanted, clean) > 0.3
    # The groups are tables of the crystal's grid, read between its points.
    assert error(got[sample], wanted) < 3 * EXACT


def test_texture_ends_where_reflections_overlap(basis) -> None:
    few, many = (World(basis, texture_to=q).values(1)["texture"].shape[1] for q in (4.0, 9.0))
    # 111 200 220 311 (222) 331 (400) 420... below 4 Å⁻¹: 111, 100, 110, 311.
    assert few == 4
    assert many > 15


def test_atoms_of_the_surface_move_more(main, basis) -> None:
    """Against a simulation that has those atoms in their places, at the strength that the recipe uses."""
    extra = 1.3
    world = World(basis, surface_b=(extra, extra), surface_depth=2.968 / 2)
    got = world.patterns(main, world.values(3))
    # B of sites without six neighbours twice that of the others: 2.6 instead of 1.3 Å².
    for sample in (1, 2):
        clean = pattern(sample)
        wanted = pattern(sample, motion={"surface_b": 1 + extra / (1.27 * dot_store.B_SCALES[sample])})
        change, wanted = got[sample] - clean, wanted - clean
        assert np.corrcoef(change, wanted)[0, 1] > 0.9
        assert np.abs(change).sum() == pytest.approx(np.abs(wanted).sum(), rel=0.35)


def test_amplitudes_follow_energy_and_strain() -> None:
    q = np.linspace(0.8, 14.2, 30)
    amplitudes = Amplitudes(
        ["Pb", "S"], q, (8.0, 90.0), anomalous=True, with_compton=True, device=CPU, dtype=torch.float64
    )
    energy, strain = (8.048, 22.0, 60.0), (-0.01, 0.0, 0.02)
    real, imaginary, incoherent = amplitudes(torch.tensor(energy)[:, None], torch.tensor(strain)[:, None])
    for row, (e, one) in enumerate(zip(energy, strain, strict=True)):
        for element in range(2):
            wanted = scattering_factor(("Pb", "S")[element], q / (1 + one), energy_kev=e)
            # f' of one spline through all energies; 1 % of strain.
            assert real[row, element].numpy() == pytest.approx(wanted.real, abs=5e-3)
            assert float(imaginary[row, element, 0]) == pytest.approx(wanted[0].imag, abs=5e-3)
    assert incoherent is not None
    assert incoherent.shape == (3, 2, 30)
