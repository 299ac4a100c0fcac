"""The patterns of a store (tables, interpolation, float32) against exact patterns of each ensemble on its own."""

import numpy as np
import pytest
import xraydb
from runs import exact_samples, simulated_grid
from scipy.stats import lognorm

from hpc.dots import dot_pattern
from hpc.pairs.families import Sampling
from hpc.structure.material import load_material

OVERRIDES = [
    "q={min: 0.0, max: 15.0, step: 0.03}",
    "grid.diameter_nm=[1.7, 2.6]",
    "grid.sigma=[0.0, 0.07, 0.15]",
    "grid.strain=[-0.02, 0.0, 0.004]",
    "grid.b_scale=[0.0, 1.7]",
    "grid.tail=1e-9",
]


def make(path, *overrides):
    return simulated_grid(path, *OVERRIDES, *overrides)


@pytest.mark.parametrize("compton", [False, True])
def test_every_pattern_of_a_grid(tmp_path, compton):
    config, store = make(tmp_path / "store.zarr", f"compton={compton}")
    assert (store.n_samples, len(store.q)) == (36, 501)
    for sample, stored, exact in exact_samples(config, store, compton=compton):
        # Rounding to float32 (6e-8); interpolation and the different tails, which are relative to the largest value.
        np.testing.assert_allclose(stored, exact, rtol=6e-8, atol=3e-9 * exact.max(), err_msg=str(sample))


def test_every_pattern_of_a_grid_of_variants(tmp_path):
    """Shards straddle variants; each variant has an engine, kinds and a range of Q of its own."""
    config, store = make(
        tmp_path / "store.zarr",
        "grid.diameter_nm=[1.7, 2.2]",
        "grid.sigma=[0.0, 0.1]",
        "grid.strain=[0.0, 0.004]",
        "grid.b_scale=[1.7]",
        "grid.tail=1e-4",
        "particles.size_step_nm=0.5",
        "particles.realisations=2",
        "store.rows_per_shard=6",
        "store.rows_per_chunk=3",
        "seed=7",
        "variants=[{shape: cube, surface: skin}, {lattice: rhombohedral, faults: deformation}, "
        "{lattice: size_strain}, {disorder: disordered}]",
    )
    assert (store.n_samples, len(store.q)) == (32, 501)
    sampling = Sampling(size_step=5.0, realisations=2, seed=7)
    for sample, stored, exact in exact_samples(config, store, sampling=sampling):
        # The tails, which differ, and the tolerance of the bins.
        np.testing.assert_allclose(stored, exact, rtol=1e-6, atol=2e-4 * exact.max(), err_msg=str(sample))
        if sample["sigma"] == 0:
            np.testing.assert_allclose(stored, exact, rtol=2e-6, atol=1e-8 * exact.max())


def test_a_tail_of_1e_4_changes_little():
    """What `tail` promises, on the pattern: the atoms left out are 1e-4 of all, and their scattering not much more."""
    q = np.arange(0.5, 12, 0.02)
    fine, coarse = (
        dot_pattern(load_material("pbs"), q=q, diameter_nm=3.0, sigma=0.1, energy_kev=22.0, tail=tail)
        for tail in (1e-10, 1e-4)
    )
    error = np.abs(coarse - fine) / fine
    assert 1e-7 < error.max() < 1e-3


def test_the_basis_is_the_particles_themselves(tmp_path, rocksalt_sphere):
    """Partial sums of single particles, from which users make any ensemble."""
    _, store = make(tmp_path / "store.zarr", "shape.centres=[Pb]", "grid.sigma=[0.05]")
    basis = store.basis()
    assert np.all(np.diff(basis["diameter"]) > 0)
    for k in (0, 1, 4, 11):
        position, element = rocksalt_sphere(10 * basis["diameter"][k] * (1 + 1e-6), "Pb")
        assert basis["n_atoms"][k].tolist() == [np.sum(element == "Pb"), np.sum(element == "S")]
        for pair, (a, b) in enumerate((("Pb", "Pb"), ("Pb", "S"), ("S", "S"))):
            r = np.linalg.norm(
                position[element == a][:, None] - position[element == b][None], axis=-1
            ).ravel()
            r = r[r > 0]
            some = np.arange(0, len(basis["q_fine"]), 37)
            waves = np.sinc(basis["q_fine"][some, None] * r / np.pi).sum(axis=1) * (1 if a == b else 2)
            np.testing.assert_allclose(basis["partial"][pair, k, some], waves, rtol=1e-10, atol=1e-9)


def test_intensities_per_atom_at_q_0_are_the_mean_square_over_the_mean_number(tmp_path):
    """σ > 0 weighs large particles: I(0)/N̄ = <N²>/<N> f² for one kind of atom; here with both kinds summed."""
    _, store = make(
        tmp_path / "store.zarr", "grid.sigma=[0.15]", "grid.strain=[0.0]", "grid.diameter_nm=[2.6]"
    )
    basis = store.basis()
    log_sd = np.sqrt(np.log(1 + 0.15**2))
    cdf = lognorm(log_sd, scale=2.6 * np.exp(-(log_sd**2) / 2)).cdf(np.append(basis["diameter"], np.inf))
    weights = np.diff(cdf)
    f = [
        xraydb.f0(e, 0)[0] + xraydb.f1_chantler(e, 22000.0) + 1j * xraydb.f2_chantler(e, 22000.0)
        for e in ("Pb", "S")
    ]
    # Pairs of the mean over centres are not the square of mean numbers: take P(0) from the basis, which counts them.
    pairs = basis["partial"][:, :, 0]
    square = abs(f[0]) ** 2 * pairs[0] + (f[0] * np.conj(f[1])).real * pairs[1] + abs(f[1]) ** 2 * pairs[2]
    square = square + basis["n_atoms"] @ np.abs(f) ** 2
    expected = (weights @ square) / (weights @ basis["n_atoms"].sum(axis=1))
    assert store.read(0, 1)[0, 0] == pytest.approx(expected, rel=2e-7)
