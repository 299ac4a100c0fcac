"""The Debye sum on pair tables: coefficients and array namespaces."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpc.debye import coefficients, intensity, partial_sums, sinc
from hpc.form_factors import compton, scattering_factor
from hpc.material import load_material

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
