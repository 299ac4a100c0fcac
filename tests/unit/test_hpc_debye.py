"""The Debye sum on pair tables: coefficients and array namespaces."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpc.debye import fq, gr, iq, pair_sums, partials, sq
from hpc.form_factors import compton, scattering_factor
from hpc.scattering import coefficients, intensity, reduced_pdf
from hpc.structure.material import load_material
from hpc.transform import partial_sums, sinc

PBS = load_material("pbs")
Q = np.array([0.0, 0.7, 5.0, 19.0])


def occupied(lead, sulfur):
    kinds = (replace(PBS.kinds[0], occupancy=lead), replace(PBS.kinds[1], occupancy=sulfur))
    return replace(PBS, kinds=kinds)


def test_sinc_at_zero_and_elsewhere():
    x = np.array([0.0, 1e-9, np.pi, -2.0])
    np.testing.assert_allclose(sinc(x), [1.0, 1.0, 0.0, np.sin(2) / 2], atol=1e-15)


def test_coefficients_of_two_kinds():
    material = PBS.with_b_iso({"Pb": 1.3, "S": 0.6})
    terms = coefficients(material.kinds, Q, energy_kev=22.0)
    f = {e: scattering_factor(e, Q, energy_kev=22.0) for e in ("Pb", "S")}
    damp = lambda b: np.exp(-b * Q**2 / (16 * np.pi**2))  # noqa: E731
    np.testing.assert_allclose(terms.pair()[0], abs(f["Pb"]) ** 2 * damp(2.6), rtol=1e-13)
    np.testing.assert_allclose(terms.pair()[1], (f["Pb"] * f["S"].conj()).real * damp(1.9), rtol=1e-13)
    np.testing.assert_allclose(terms.pair()[2], abs(f["S"]) ** 2 * damp(1.2), rtol=1e-13)
    np.testing.assert_allclose(terms.self, [abs(f["Pb"]) ** 2, abs(f["S"]) ** 2], rtol=1e-13)
    np.testing.assert_allclose(terms.pair(0.5)[1], (f["Pb"] * f["S"].conj()).real * damp(0.95), rtol=1e-13)


def test_the_self_term_carries_the_occupancy_once():
    full = coefficients(PBS.kinds, Q, energy_kev=None, anomalous=False)
    part = coefficients(occupied(0.8, 0.5).kinds, Q, energy_kev=None, anomalous=False)
    np.testing.assert_allclose(part.self, full.self * [[0.8], [0.5]])
    np.testing.assert_allclose(part.pair(), full.pair() * [[0.64], [0.4], [0.25]])
    debussy = coefficients(occupied(0.8, 0.5).kinds, Q, energy_kev=None, anomalous=False, self_term="squared")
    np.testing.assert_allclose(debussy.self, full.self * [[0.64], [0.25]])
    with pytest.raises(ValueError, match="'exact' or 'squared', got 'half'"):
        coefficients(PBS.kinds, Q, energy_kev=None, anomalous=False, self_term="half")


def test_compton_adds_to_the_self_term_only():
    without = coefficients(occupied(0.8, 1.0).kinds, Q, energy_kev=22.0)
    with_ = coefficients(occupied(0.8, 1.0).kinds, Q, energy_kev=22.0, with_compton=True)
    np.testing.assert_array_equal(with_.pair(), without.pair())
    np.testing.assert_allclose(
        with_.self - without.self, [0.8 * compton("Pb", Q), compton("S", Q)], atol=1e-9
    )


def test_numpy_and_torch_answer_alike_and_in_kind():
    rng = np.random.default_rng(0)
    counts, distance, n_atoms = rng.random((3, 5, 40)), rng.uniform(2, 300, 40), rng.random((5, 2))
    terms = coefficients(PBS.kinds, Q, energy_kev=22.0)
    numpy_ = intensity([partial_sums(c, distance, Q) for c in counts], n_atoms, terms.pair(), terms.self)
    t = torch.from_numpy
    torch_ = intensity(
        [partial_sums(t(c), t(distance), t(Q)) for c in counts], t(n_atoms), t(terms.pair()), t(terms.self)
    )
    assert isinstance(torch_, torch.Tensor)
    assert torch_.dtype == torch.float64
    np.testing.assert_allclose(torch_.numpy(), numpy_, rtol=1e-12)


def test_partial_sums_are_differentiable():
    distance = torch.tensor([3.0, 4.5], dtype=torch.float64, requires_grad=True)
    counts, q = (
        torch.tensor([[2.0, 5.0]], dtype=torch.float64),
        torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(lambda r: partial_sums(counts, r, q), (distance,))


BARE = {"anomalous": False}
DIMER = (np.array([[0.0, 0, 0], [0, 0, 3.0]]), ["S", "S"])


def test_a_dimer_in_every_quantity():
    q = np.linspace(0, 20, 101)
    f = scattering_factor("S", q, anomalous=False).real
    wave = np.sinc(3 * q / np.pi)
    np.testing.assert_allclose(iq(*DIMER, q, **BARE), 2 * f**2 * (1 + wave), rtol=1e-6)
    np.testing.assert_allclose(iq(*DIMER, q, **BARE, per_atom=True), f**2 * (1 + wave), rtol=1e-6)
    np.testing.assert_allclose(sq(*DIMER, q, **BARE), 1 + wave, atol=1e-6)
    np.testing.assert_allclose(fq(*DIMER, q, **BARE), q * wave, atol=2e-5)
    assert list(partials(*DIMER, q)) == [("S", "S")]
    np.testing.assert_allclose(partials(*DIMER, q)["S", "S"], 1 + wave, atol=1e-6)
    added = iq(*DIMER, q, **BARE, compton=True) - iq(*DIMER, q, **BARE)
    np.testing.assert_allclose(added, 2 * compton("S", q), atol=1e-9)


def test_the_limit_at_q_zero():
    """I(0) = |Σf|²; S(0) = 1 + what all pairs add."""
    position, element = np.diag([3.0, 4.0, 5.0]), ["Pb", "S", "S"]
    f = [scattering_factor(e, np.zeros(1), energy_kev=22.0)[0] for e in element]
    i0 = iq(position, element, np.zeros(1), energy_kev=22.0)[0]
    assert i0 == pytest.approx(abs(sum(f)) ** 2, rel=1e-12)
    s0 = sq(position, element, np.zeros(1), energy_kev=22.0)[0]
    assert s0 == pytest.approx(1 + (i0 - sum(abs(x) ** 2 for x in f)) / (3 * abs(np.mean(f)) ** 2), rel=1e-12)


def test_structure_factors_follow_from_partials():
    """S - 1 = Σ weight (A - 1), with Faber-Ziman weights; B may differ by element."""
    rng = np.random.default_rng(1)
    position, q = (
        2.5 * np.indices((3, 3, 3)).reshape(3, -1).T + rng.normal(0, 0.1, (27, 3)),
        np.linspace(0, 15, 40),
    )
    element = np.array(["Pb", "S", "Cd"])[rng.integers(0, 3, 27)]
    particle = {"occupancy": np.where(element == "S", 0.7, 1.0), "b_iso": {"Pb": 1.3, "S": 0.5}}
    parts = partials(position, element, q, **particle)
    assert list(parts) == [("Cd", "Cd"), ("Cd", "Pb"), ("Cd", "S"), ("Pb", "Pb"), ("Pb", "S"), ("S", "S")]
    number = {e: float(particle["occupancy"][element == e].sum()) for e in ("Pb", "S", "Cd")}
    share = {e: n / sum(number.values()) for e, n in number.items()}
    f = {e: scattering_factor(e, q, energy_kev=22.0) for e in share}
    mean = sum(share[e] * f[e] for e in share)
    total = sum(
        (1 if a == b else 2) * share[a] * share[b] * (f[a] * f[b].conj()).real / abs(mean) ** 2 * (values - 1)
        for (a, b), values in parts.items()
    )
    np.testing.assert_allclose(sq(position, element, q, energy_kev=22.0, **particle) - 1, total, rtol=1e-10)
    # the definition of S from the intensity
    self_ = sum(number[e] * abs(f[e]) ** 2 for e in share)
    i = iq(position, element, q, energy_kev=22.0, **particle)
    np.testing.assert_allclose(
        total, (i - self_) / (sum(number.values()) * abs(mean) ** 2), rtol=1e-9, atol=1e-12
    )


def test_mixed_sites_are_the_mean_over_their_occupations():
    """Cd or Zn on each of 3 positions (0.6 / 0.4), S on a fourth: all 8 particles, weighted; no pair at distance 0."""
    where = np.array([[0.0, 0, 0], [3.0, 0, 0], [0, 4.0, 0], [0, 0, 2.5]])
    q, b = np.linspace(0, 12, 25), {"Cd": 0.5, "Zn": 0.8, "S": 0.0}
    expected = np.zeros_like(q)
    for choice in np.ndindex(2, 2, 2):
        weight = np.prod([(0.6, 0.4)[c] for c in choice])
        element = [*[("Cd", "Zn")[c] for c in choice], "S"]
        expected += weight * iq(where, element, q, **BARE, b_iso=[b[e] for e in element])
    position = np.concatenate([where, where[:3]])
    element = ["Cd", "Cd", "Cd", "S", "Zn", "Zn", "Zn"]
    mixed = iq(position, element, q, **BARE, occupancy=[0.6, 0.6, 0.6, 1, 0.4, 0.4, 0.4], b_iso=b)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_vacancies_are_the_mean_over_independent_occupations():
    q = np.linspace(0, 12, 25)
    f = scattering_factor("S", q, anomalous=False).real
    one = iq(*DIMER, q, **BARE, occupancy=[0.5, 0.5])
    np.testing.assert_allclose(one, f**2 * (1 + 0.5 * np.sinc(3 * q / np.pi)), rtol=1e-6)
    # per atom that is there
    np.testing.assert_allclose(iq(*DIMER, q, **BARE, occupancy=0.5, per_atom=True), one)


def test_order_place_and_orientation_do_not_matter():
    rng = np.random.default_rng(2)
    position = 2.5 * np.indices((4, 3, 3)).reshape(3, -1).T + rng.normal(0, 0.2, (36, 3))
    element, q = np.where(rng.random(36) < 0.5, "Pb", "S"), np.linspace(0.2, 20, 60)
    reference = iq(position, element, q, energy_kev=22.0)
    order = rng.permutation(36)
    np.testing.assert_allclose(iq(position[order], element[order], q, energy_kev=22.0), reference, rtol=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    np.testing.assert_allclose(
        iq(position @ rotation + [3, -200, 1], element, q, energy_kev=22.0), reference, rtol=1e-6
    )


def test_a_pair_distribution_counts_neighbours():
    """G(r) of a block of fcc: first peak at a/√2; the area of r G(r) below it is the mean number of neighbours."""
    a, b_iso = 5.0, 1.0
    position = a / 2 * np.indices((6, 6, 6)).reshape(3, -1).T
    position = position[np.rint(2 / a * position).sum(axis=1) % 2 == 0]
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    neighbours = np.isclose(distance, a / np.sqrt(2)).sum() / len(position)
    r, q = np.arange(2.4, 4.4, 0.005), np.arange(0, 30.001, 0.02)
    g = gr(position, ["Pb"] * len(position), r, q, **BARE, b_iso=b_iso)
    assert r[g.argmax()] == pytest.approx(a / np.sqrt(2), abs=0.005)
    assert np.trapezoid(r * g, r) == pytest.approx(neighbours, rel=1e-3)
    # a Gaussian of variance 2 <u²>
    spread = np.trapezoid(r * g * (r - a / np.sqrt(2)) ** 2, r) / neighbours
    assert spread == pytest.approx(2 * b_iso / (8 * np.pi**2), rel=0.02)


def test_a_lorch_window_removes_ripples():
    r, q = np.linspace(4, 12, 400), np.arange(0, 20.001, 0.02)
    plain, smooth = (gr(*DIMER, r, q, **BARE, lorch=lorch) for lorch in (False, True))
    assert np.abs(plain).max() > 0.09
    assert np.abs(smooth).max() < 0.1 * np.abs(plain).max()


def test_the_integral_over_q_is_exact_for_smooth_functions():
    q, r = np.linspace(1, 9, 401), np.array([0.5, 2.0])
    found = reduced_pdf(q, np.cos(q), r)
    exact = [
        (np.cos(1 - x) - np.cos(9 * (1 - x))) / (2 * (x - 1))
        + (np.cos(1 + x) - np.cos(9 * (1 + x))) / (2 * (1 + x))
        for x in r
    ]
    np.testing.assert_allclose(found, 2 / np.pi * np.array(exact), rtol=1e-5)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (np.array([0.0, 1, 2]), "uniform, increasing q of at least 8 points"),
        (np.geomspace(1, 20, 50), "uniform, increasing q of at least 8 points"),
        (
            np.arange(0, 20, 0.5),
            r"step of q must be < 0\.483 1/Å to keep distances up to 3 Å out of G\(r\) up to r = 10 Å",
        ),
    ],
)
def test_a_pair_distribution_needs_a_fine_uniform_q(q, message):
    with pytest.raises(ValueError, match=message):
        gr(*DIMER, np.linspace(1, 10, 10), q, **BARE)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((*DIMER, []), BARE, "q must be a list of numbers >= 0"),
        ((*DIMER, [-1.0]), BARE, "q must be a list of numbers >= 0"),
        ((*DIMER, [np.nan]), BARE, "q must be a list of numbers >= 0"),
        ((*DIMER, [1.0]), {}, "photon energy is missing"),
        ((*DIMER, [1.0]), {**BARE, "b_iso": {"Pb": 1.0}}, r"b_iso: the elements are \['S'\], got \['Pb'\]"),
        ((0 * DIMER[0], DIMER[1], [1.0]), BARE, "on top of each other"),
        ((*DIMER, [20.0]), {**BARE, "width": 1.0}, "width"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        iq(*arguments, **options)


def test_bins_may_be_chosen():
    q = np.linspace(0, 10, 20)
    fine, coarse = (pair_sums(*DIMER, q, **options) for options in ({"width": 0.004}, {"tolerance": 1e-3}))
    np.testing.assert_allclose(fine.partial, coarse.partial, atol=2e-3)
    np.testing.assert_allclose(fine.partial[0], 2 * np.sinc(3 * q / np.pi), atol=1e-8)
