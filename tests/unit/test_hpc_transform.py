"""Sums of sin(Qr)/(Qr): every route through the transform gives the plain table's numbers."""

import numpy as np
import pytest
import torch

from hpc.transform import partial_sums, sinc

RNG = np.random.default_rng(0)
DISTANCE = np.concatenate([[0.0], RNG.uniform(2.0, 300.0, 400)])
GRIDS = {
    "uniform": np.arange(0.5, 20.005, 0.01),
    "uniform from 0": np.linspace(0.0, 15.0, 401),
    "short": np.array([0.0, 0.3, 7.0]),
    "uneven": np.concatenate([np.arange(0.0, 3.0, 0.03), np.arange(3.0, 20.0, 0.2)]),
    "both signs": np.linspace(-4.0, 4.0, 81),
    "falling": np.linspace(9.0, 1.0, 200),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rows", [(), (3,), (2, 20)])
def test_every_route_equals_the_plain_table(grid, rows):
    counts, q = RNG.normal(size=(*rows, len(DISTANCE))), GRIDS[grid]
    expected = counts @ np.sinc(DISTANCE[:, None] * q / np.pi)
    found = partial_sums(counts, DISTANCE, q)
    assert found.shape == (*rows, len(q))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(counts).sum())


def test_the_limit_at_q_zero_is_the_number_of_pairs():
    counts = RNG.integers(0, 9, len(DISTANCE)).astype(float)
    for q in (GRIDS["uniform from 0"], GRIDS["short"]):
        assert partial_sums(counts, DISTANCE, q)[0] == pytest.approx(counts.sum(), rel=1e-15)


def test_strips_of_distances_change_nothing(monkeypatch):
    counts, q = RNG.normal(size=(30, len(DISTANCE))), GRIDS["uniform"]
    for used in (counts, counts[:2]):
        whole = partial_sums(used, DISTANCE, q)
        monkeypatch.setattr("hpc.transform._TABLE", 7 * len(q))
        np.testing.assert_allclose(partial_sums(used, DISTANCE, q), whole, rtol=0, atol=1e-11)
        monkeypatch.undo()


def test_no_distances_is_no_pairs():
    assert not partial_sums(np.empty((2, 0)), np.empty(0), GRIDS["uniform"]).any()


@pytest.mark.parametrize("rows", [(3,), (40,)])
def test_torch_answers_in_kind_and_differentiates(rows):
    q = np.linspace(0.0, 2.0, 33)
    counts, distance = RNG.random((*rows, 2)), np.array([3.0, 4.5])
    t = torch.from_numpy
    found = partial_sums(t(counts), t(distance), t(q))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), partial_sums(counts, distance, q), rtol=1e-13, atol=1e-13)
    variable = t(distance).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: partial_sums(t(counts), r, t(q)), (variable,))


def test_sinc_at_zero_and_elsewhere():
    x = np.array([0.0, 1e-9, np.pi, -2.0])
    np.testing.assert_allclose(sinc(x), [1.0, 1.0, 0.0, np.sin(2) / 2], atol=1e-15)
