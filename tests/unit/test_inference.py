"""From class probabilities to numbers with intervals, and the simulated pattern that belongs to them."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.structure.material import load_material
from qdml.asking import model_grid
from qdml.files.noise import Noise
from qdml.files.patterns import OnGrid
from qdml.measured.answer import doubts
from qdml.measured.comparison import compare
from qdml.measured.inference import (
    ClassProbabilities,
    class_edges,
    estimate_of_classes,
    trained_windows,
    volume_diameter,
)

SIZES = np.arange(2.0, 10.1, 0.5)
SIGMAS = np.array([0.05, 0.10, 0.15, 0.20])


def one_hot(n: int, index: int) -> np.ndarray:
    return np.eye(n)[index]


def test_edges_lie_between_centres_and_never_below_zero() -> None:
    np.testing.assert_allclose(class_edges(SIGMAS), [0.025, 0.075, 0.125, 0.175, 0.225])
    np.testing.assert_allclose(class_edges(np.array([0.0, 0.1, 0.3])), [0.0, 0.05, 0.2, 0.4])


def test_a_certain_class_gives_its_centre_and_its_width() -> None:
    estimate = estimate_of_classes(SIZES, one_hot(17, 4))
    assert estimate.mean == pytest.approx(4.0)
    assert (estimate.lo68, estimate.hi68) == pytest.approx((4.0 - 0.34 * 0.5, 4.0 + 0.34 * 0.5))
    assert (estimate.lo95, estimate.hi95) == pytest.approx((4.0 - 0.475 * 0.5, 4.0 + 0.475 * 0.5))


def test_two_classes_with_a_gap_between_them() -> None:
    """A third at 3 nm, two thirds at 7 nm: no quantile may lie in the empty gap."""
    p = one_hot(17, 2) / 3 + 2 * one_hot(17, 10) / 3
    estimate = estimate_of_classes(SIZES, p)
    assert estimate.mean == pytest.approx((3.0 + 2 * 7.0) / 3)
    assert estimate.lo68 == pytest.approx(2.75 + 0.16 * 3 * 0.5)
    assert estimate.hi68 == pytest.approx(7.25 - 0.16 * 1.5 * 0.5)


def test_fine_classes_of_a_normal_distribution_give_its_intervals() -> None:
    centres = np.arange(2.0, 8.0, 0.02)
    p = np.exp(-0.5 * ((centres - 5.0) / 0.3) ** 2)
    estimate = estimate_of_classes(centres, p / p.sum())
    assert estimate.mean == pytest.approx(5.0, abs=1e-6)
    # 0.9945 and 1.9600 standard deviations
    assert (estimate.lo68, estimate.hi68) == pytest.approx((5 - 0.2983, 5 + 0.2983), abs=2e-3)
    assert (estimate.lo95, estimate.hi95) == pytest.approx((5 - 0.5880, 5 + 0.5880), abs=2e-3)


def test_volume_diameter_of_certain_classes() -> None:
    joint = np.outer(one_hot(17, 6), one_hot(4, 1))
    estimate = volume_diameter(ClassProbabilities(diameter_nm=SIZES, sigma=SIGMAS, joint=joint))
    # over the cell 4.75 to 5.25 nm, σ 0.075 to 0.125: mean of (1 + σ²)³ by its moments
    s = np.linspace(0.075, 0.125, 100_001)
    assert estimate.mean == pytest.approx(5.0 * ((1 + s**2) ** 3).mean(), rel=1e-4)
    assert 4.75 * 1.075**0.01 < estimate.lo95 < estimate.lo68 < estimate.hi68 < estimate.hi95 < 5.25 * 1.048


def test_volume_diameter_keeps_the_correlation_of_a_joint_head() -> None:
    """Larger σ with smaller D: D_v is narrower than its product of marginals."""
    sizes, sigmas = np.array([4.75, 5.0, 5.25]), np.array([0.05, 0.15, 0.25])
    joint = np.fliplr(np.eye(3)) / 3
    classes = ClassProbabilities(diameter_nm=sizes, sigma=sigmas, joint=joint)
    product = ClassProbabilities(
        diameter_nm=sizes, sigma=sigmas, joint=np.outer(classes.of_diameter, classes.of_sigma)
    )
    tight, wide = volume_diameter(classes), volume_diameter(product)
    assert tight.hi95 - tight.lo95 < 0.8 * (wide.hi95 - wide.lo95)


Q = np.arange(1.0, 13.0, 0.01)
PBS = load_material("pbs")
TRUTH = SimpleNamespace(diameter_nm=3.3, sigma=0.1, strain=0.003, energy_kev=22.0)


@pytest.fixture(scope="module")
def measured() -> OnGrid:
    """Dots on a background that bends, seen from Q = 1.4 to 12 Å⁻¹."""
    dots = dot_pattern(PBS, q=Q, **vars(TRUTH))
    mask = (Q > 1.4) & (Q < 12.0)
    y = dots / dots.mean() * (1 - 0.02 * Q) + 0.4 + np.exp(-Q / 3)
    return OnGrid(
        intensity=np.where(mask, y, 0.0),
        mask=mask,
        window=(float(Q[mask][0]), float(Q[mask][-1])),
        n_points=1000,
        coverage=float(mask.mean()),
        noise=np.full(len(Q), 1e-3),
        noise_source=Noise(sigma=np.full(10, 1e-3), source="third column"),
        counts=1e6,
        notes=(),
    )


def test_the_right_answer_describes_the_pattern(measured: OnGrid) -> None:
    comparison = compare(measured, Q, material=PBS, diameter_nm=3.3, sigma=0.1, energy_kev=22.0)
    assert comparison.rwp < 0.005
    assert comparison.explained > 0.999
    assert comparison.strain == pytest.approx(0.003, abs=2e-4)
    np.testing.assert_array_equal(np.isnan(comparison.total), ~measured.mask)
    assert (comparison.background[measured.mask] >= 0).all()


def test_a_wrong_answer_is_seen(measured: OnGrid) -> None:
    wrong = compare(measured, Q, material=PBS, diameter_nm=5.0, sigma=0.1, energy_kev=22.0)
    assert wrong.explained < 0.93


def test_a_featureless_pattern_is_seen(measured: OnGrid) -> None:
    bare = OnGrid(
        intensity=np.where(measured.mask, 1 + np.exp(-Q), 0.0),
        mask=measured.mask,
        window=measured.window,
        n_points=1000,
        coverage=measured.coverage,
        noise=np.full(len(Q), 1e-3),
        noise_source=Noise(sigma=np.full(10, 1e-3), source="third column"),
        counts=1e6,
        notes=(),
    )
    comparison = compare(bare, Q, material=PBS, diameter_nm=3.3, sigma=0.1, energy_kev=22.0)
    assert comparison.rwp < 0.01
    assert comparison.explained < 0.5


def card_of(*windows: dict) -> dict:
    """What the checks below read of a card; unless other windows are given the whole grid was trained on."""
    grid = {"min": 1.0, "max": 12.99, "step": 0.01, "size": 1200}
    everything = {"first": [1.0, 1.0], "last": [12.99, 12.99]}
    return {
        "q": grid, "windows": list(windows) or [everything], "store": {"ranges": {"strain": [0.0, 0.005]}}
    }  # fmt: skip


def test_windows_of_the_training() -> None:
    np.testing.assert_allclose(model_grid(card_of()), Q)
    assert trained_windows(card_of()) == ((1.0, 12.99), pytest.approx(11.99))
    far = {"first": [0.5, 1.5], "last": [10.0, 19.0]}
    near = {"first": [1.2, 1.6], "last": [5.0, 7.5]}
    assert trained_windows(card_of(near)) == ((1.2, 7.5), pytest.approx(3.4))
    assert trained_windows(card_of(near, far)) == ((1.0, 12.99), pytest.approx(3.4))


def answer_of(measured: OnGrid, *, strain: float = 0.003, edge: bool = False) -> tuple:
    p = one_hot(17, 16 if edge else 3)
    classes = ClassProbabilities(diameter_nm=SIZES, sigma=SIGMAS, joint=np.outer(p, one_hot(4, 1)))
    comparison = SimpleNamespace(rwp=0.02, explained=0.99, strain=strain)
    return classes, measured, comparison


def test_a_good_answer_is_not_doubted(measured: OnGrid) -> None:
    card = card_of({"first": [1.0, 1.5], "last": [9.0, 12.0]})
    assert doubts(*answer_of(measured), card) == []


def test_doubts(measured: OnGrid) -> None:
    card = card_of({"first": [1.0, 1.5], "last": [9.0, 12.0]})
    (edge,) = doubts(*answer_of(measured, edge=True), card)
    assert edge.startswith("D is at the edge of what the model knows: 10 nm")
    assert edge.endswith("larger")
    (strained,) = doubts(*answer_of(measured, strain=0.011), card)
    assert "strained by 1.10 %, training went from 0.00 to 0.50 %" in strained
    (window,) = doubts(*answer_of(measured), card_of())
    assert "covers 10.59 Å⁻¹ of Q, the smallest window in training was 11.99" in window
