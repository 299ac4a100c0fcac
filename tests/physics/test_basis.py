"""The compressed basis against exact sums, and patterns made of it against those that qd-simulate writes."""

import dot_store
import numpy as np
import pytest
import torch
from runs import simulated
from torch.func import jvp

from hpc.ensemble import Resampler, number_weights, volume_mean_diameter
from hpc.store import Store, open_store
from qdml.augmentation.clean import CleanPatterns
from qdml.basis import DotBasis
from qdml.basis_building import build_basis
from qdml.dataset import read_rows

CPU = torch.device("cpu")
TOLERANCE, MARGIN = 2e-5, 0.1
SIZES = np.array([1.7, 2.1, 2.9, 2.9]), np.array([0.2, 0.05, 0.1, 0.04])


def make_store(path, *overrides) -> Store:
    words = [
        "grid=sobol", "grid.samples=32", "grid.diameter_nm=1.6 to 3.0",
        "grid.sigma=0.03 to 0.3", "grid.strain=-0.007 to 0.010", "grid.b_scale=0.8 to 2.5", "grid.tail=1e-3",
        "grid.largest_nm=4.5", "q={min: 0.9, max: 12.0, step: 0.03}",
    ]  # fmt: skip
    return open_store(simulated(path, *words, *overrides))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Three variants: the second has a kind of its own, which the others lack."""
    return make_store(
        tmp_path_factory.mktemp("basis") / "store.zarr",
        "variants=[{shape: sphere}, {shape: cube, surface: skin}, {shape: octahedron}]",
    )


@pytest.fixture(scope="module")
def basis(store) -> DotBasis:
    return build_basis(store, store.q, tolerance=TOLERANCE, device=CPU, margin=MARGIN)


@pytest.fixture(scope="module")
def memory():
    return dot_store.dot_store()


def arguments(variant: int, diameter=SIZES[0], sigma=SIZES[1]) -> tuple[torch.Tensor, ...]:
    log_volume = np.log(volume_mean_diameter(diameter, sigma))
    as_float = (torch.tensor(x, dtype=torch.float32) for x in (log_volume, sigma))
    return torch.full((len(sigma),), variant), *as_float


def exact_partial(store, variant: int, q: np.ndarray, diameter=SIZES[0], sigma=SIZES[1]) -> np.ndarray:
    """(m, pair, q) float64, with the variant's own kinds."""
    family = store.basis(variant)
    weights = number_weights(family["diameter"], diameter, sigma)
    weights /= (weights @ (family["n_atoms"] @ occupancy(store, variant)))[:, None]
    resample = Resampler(q, step=family["q_fine"][1], n_fine=len(family["q_fine"]))
    return np.stack([resample(weights @ partial) for partial in family["partial"]], axis=1)


def occupancy(store, variant: int) -> list[float]:
    return [kind["occupancy"] for kind in store.attrs["variants"][variant]["kinds"]]


def test_partial_sums_are_those_of_exact_weights(store, basis) -> None:
    """Pairs with S may be off by more than those of Pb: f is a fifth, so that patterns show less of them."""
    for variant in (0, 2):
        exact = exact_partial(store, variant, basis.q)
        got = basis.average(*arguments(variant)).partial.double().numpy()
        peak = np.abs(exact).max(axis=(1, 2))
        for index, (pair, factor) in enumerate((((0, 0), 1), ((0, 1), 5), ((1, 1), 25))):
            off = np.abs(got[:, basis.pairs.index(pair)] - exact[:, index]).max(axis=1)
            assert (off / peak).max() < factor * TOLERANCE, (variant, pair)
    assert 0 < basis.error <= TOLERANCE


def test_sites_and_near_pairs_are_those_of_exact_weights(store, basis) -> None:
    family = store.basis(0)
    weights = number_weights(family["diameter"], *SIZES)
    weights /= (weights @ family["n_atoms"].sum(axis=1))[:, None]
    got = basis.average(*arguments(0))
    # Of the skin, S of the inside beside that of the whole dot: `hpc.structure.sites.dot_kinds`.
    assert [(kind.element, kind.occupancy) for kind in basis.kinds] == [
        ("Pb", 1), ("S", 1), ("S", 0.875), ("S", 0.125),
    ]  # fmt: skip
    np.testing.assert_allclose(got.shares[:, :2], weights @ family["n_atoms"], rtol=1e-5)
    assert np.all(got.shares[:, 2:].numpy() == 0), "no skin in this variant"
    for pair in range(3):
        for r, pairs in zip(family["near_distance"], family["near_pairs"][pair].T, strict=True):
            if pairs.any():
                key = ((0, 0), (0, 1), (1, 1))[pair]
                column = np.flatnonzero(
                    (basis.near_pair == basis.pairs.index(key)) & (np.abs(basis.near_distance - r) < 1e-5)
                )
                np.testing.assert_allclose(got.near[:, column[0]], weights @ pairs, rtol=3e-5, atol=1e-6)
    skin = basis.average(*arguments(1))
    assert (skin.shares[:, 2:] > 0).all()
    occupied = skin.shares.numpy() @ [kind.occupancy for kind in basis.kinds]
    np.testing.assert_allclose(occupied, 1, rtol=1e-5)


def test_atoms_beyond_the_largest_dot_are_counted(store, basis) -> None:
    largest = store.basis(0)["diameter"][-1]
    diameter, sigma = np.full(3, 3.0), np.array([0.05, 0.15, 0.25])
    fine = np.linspace(0.5, 15, 20000)
    weights = np.diff(number_weights(fine, diameter, sigma).cumsum(axis=1), prepend=0, axis=1)
    atoms = weights * fine**3
    wanted = atoms[:, fine > largest].sum(axis=1) / atoms.sum(axis=1)
    got = basis.average(*arguments(0, diameter, sigma)).beyond
    np.testing.assert_allclose(got, wanted, rtol=5e-3, atol=1e-7)


def test_derivatives_are_those_of_exact_weights(store, basis) -> None:
    variant, log_volume, sigma = arguments(2)
    exact_log, exact_sigma = (x.double().numpy() for x in (log_volume, sigma))
    step = 1e-4

    def partial(shift_log: float, shift_sigma: float) -> np.ndarray:
        s = exact_sigma + shift_sigma
        return exact_partial(store, 2, basis.q, np.exp(exact_log + shift_log) / (1 + s**2) ** 3, s)

    for tangents, shifts in (((1.0, 0.0), (step, 0.0)), ((0.0, 1.0), (0.0, step))):
        wanted = (partial(*shifts) - partial(*(-x for x in shifts)))[:, 0] / (2 * step)
        _, got = jvp(
            lambda *x: basis.average(variant, *x).partial[:, 0],
            (log_volume, sigma),
            tuple(torch.full_like(x, t) for x, t in zip((log_volume, sigma), tangents, strict=True)),
        )
        off = np.abs(got.double().numpy() - wanted).max(axis=1) / np.abs(wanted).max(axis=1)
        assert off.max() < 1e-3


def test_rows_of_several_variants_are_those_of_each(basis) -> None:
    variant = torch.tensor([2, 0, 1, 0, 2, 1, 1])
    diameter, sigma = torch.linspace(0.6, 1.1, 7), torch.linspace(0.05, 0.25, 7)
    together = basis.average(variant, diameter, sigma)
    on_gpu = DotBasis(*basis.to_tensors(), device=CPU)
    on_gpu._stacked_MG = torch.cat(on_gpu._modes_MG)  # as it is where the host must not look at a batch
    masked = on_gpu.average(variant, diameter, sigma)
    for row in range(7):
        alone = basis.average(*(x[row : row + 1] for x in (variant, diameter, sigma)))
        for name in ("partial", "shares", "near", "beyond"):
            for found in (together, masked):
                torch.testing.assert_close(
                    getattr(found, name)[row], getattr(alone, name)[0], rtol=2e-5, atol=1e-5
                )


@pytest.mark.gpu("torch")
def test_a_gpu_has_the_same_means_and_never_waits(basis) -> None:
    rows = torch.arange(300) % 3, torch.linspace(0.6, 1.1, 300), torch.linspace(0.05, 0.2, 300)
    wanted = basis.average(*rows)
    on_gpu = DotBasis(*basis.to_tensors(), device=torch.device("cuda"))
    moved = [x.cuda() for x in rows]
    on_gpu.average(*moved)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = on_gpu.average(*moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name in ("partial", "shares", "near", "beyond"):
        torch.testing.assert_close(getattr(got, name).cpu(), getattr(wanted, name), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("compton=true", "energy_kev=8.05", "variants=null", "shape=cube"),
        ("anomalous=false", "energy_kev=null", "variants=null", "material=cdse_wurtzite"),
    ],
    ids=["variants", "Compton at 8 keV", "without energy"],
)
def test_patterns_are_those_of_the_store(overrides, store, basis, tmp_path) -> None:
    if overrides:
        store = make_store(tmp_path / "store.zarr", *overrides)
        basis = build_basis(store, store.q, tolerance=TOLERANCE, device=CPU, margin=MARGIN)
    rows = read_rows(store, np.arange(store.n_samples), CPU, intensity=True)
    got = CleanPatterns(basis, CPU)(rows.main())
    off = (got - rows.intensity).abs().amax(dim=1) / rows.intensity.amax(dim=1)
    assert off.max() < 1e-4, int(off.argmax())
    assert off.median() < TOLERANCE


def test_a_basis_is_the_same_from_its_tensors(basis) -> None:
    again = DotBasis(*basis.to_tensors(), device=CPU)
    one, two = (b.average(*arguments(1)) for b in (basis, again))
    assert torch.equal(one.partial, two.partial)
    assert (again.kinds, again.ranges, again.error) == (basis.kinds, basis.ranges, basis.error)
    np.testing.assert_array_equal(again.q[again.inside], basis.q[basis.inside])


def test_the_crystal_goes_beyond_the_patterns_at_all_strains(store, basis) -> None:
    np.testing.assert_allclose(basis.q[basis.inside], store.q, rtol=1e-12)
    low, high = basis.ranges["strain"]
    assert basis.q[0] <= store.q[0] * (1 + low) - MARGIN
    assert store.q[-1] * (1 + high) + MARGIN - basis.q[-1] < basis.step
    assert basis.extent >= 1.4 * 10 * basis.largest_nm, "corner to corner of an octahedron"


@pytest.mark.parametrize(
    ("q", "margin", "tolerance", "message"),
    [
        (
            dot_store.Q + 0.005,
            0.1,
            1e-4,
            r"needs the grid of the patterns of memory, 0\.9 to 1.* got 655 points",
        ),
        (dot_store.Q[::2], 0.1, 1e-4, "needs the grid of the patterns"),
        (np.append(dot_store.Q, 14.02), 0.1, 1e-4, "needs the grid of the patterns"),
        (dot_store.Q[:3], 0.1, 1e-4, "needs the grid of the patterns"),
        (dot_store.Q, 1.0, 1e-4, r"the basis of memory ends at .* larger q\.max, or ask for a smaller range"),
        (dot_store.Q, 0.1, 1e-7, r"off by .* more than the tolerance of 1e-07; ask for a larger one"),
    ],
    ids=["shifted", "coarser", "longer", "short", "beyond", "tolerance"],
)
def test_a_basis_that_does_not_cover_what_is_asked_is_refused(memory, q, margin, tolerance, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_basis(memory, q, tolerance=tolerance, device=CPU, margin=margin)


def test_monodisperse_dots_are_no_basis(memory) -> None:
    memory = type(memory)(**vars(memory) | {"parameters": memory.parameters | {"sigma": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"monodisperse dots alone; simulate with grid\.sigma above 0"):
        build_basis(memory, memory.q, tolerance=1e-4, device=CPU, margin=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"particle": "neutron"}, "for X-rays alone, this one is of a store of neutrons"),
        (
            {"variants": [{"title": "sphere motion.smooth=2.2", "motion": {"smooth": 2.2}}]},
            "move independently",
        ),
    ],
)
def test_patterns_of_other_dots_are_refused(basis, changes, message) -> None:
    tensors, content = basis.to_tensors()
    other = DotBasis(tensors, content | {"attrs": content["attrs"] | changes}, device=CPU)
    with pytest.raises(ValueError, match=message):
        CleanPatterns(other, CPU)
