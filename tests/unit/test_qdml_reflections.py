"""Directions of PbS: which reflections share a factor."""

import numpy as np
import pytest

from hpc.structure.material import load_material
from qdml.augmentation.reflections import direction_weights

A = 5.936
Q = np.arange(1.0, 14.0, 0.01)


def at(h: int, k: int, l: int) -> int:
    return int(np.abs(Q - 2 * np.pi * np.sqrt(h * h + k * k + l * l) / A).argmin())


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return direction_weights(load_material("pbs"), Q, blend=0.05)


def test_every_point_is_shared_out(weights: np.ndarray) -> None:
    assert weights.min() >= 0
    assert weights.sum(axis=0) == pytest.approx(np.ones(len(Q)))


def test_multiples_of_one_reflection_share_its_factor(weights: np.ndarray) -> None:
    first = weights[:, at(1, 1, 1)].argmax()
    assert weights[first, at(1, 1, 1)] > 0.99
    assert weights[first, at(2, 2, 2)] > 0.9
    assert weights[first, at(2, 0, 0)] < 0.01
    second = weights[:, at(2, 0, 0)].argmax()
    assert weights[second, at(4, 0, 0)] > 0.9


def test_reflections_at_one_place_share_it_by_multiplicity(weights: np.ndarray) -> None:
    """333 (8 of them) lies on 511 (24)."""
    one, other = weights[:, at(1, 1, 1)].argmax(), np.argsort(weights[:, at(5, 1, 1)])[-1]
    assert weights[other, at(5, 1, 1)] / weights[one, at(5, 1, 1)] == pytest.approx(3, rel=0.05)


def test_forbidden_reflections_have_no_share(weights: np.ndarray) -> None:
    """100 and 110 are absent in a face-centred cell: 111 is the first."""
    assert weights[:, 0].argmax() == weights[:, at(1, 1, 1)].argmax()
