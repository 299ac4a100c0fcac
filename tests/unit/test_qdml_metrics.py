"""Metrics against their formulas; calibration of exact posteriors, and of deliberately wrong ones."""

import numpy as np
import pytest
import torch

from qdml.answers import QUANTITIES, targets_of
from qdml.config import ClassConfig
from qdml.densities import GaussianMixture
from qdml.evaluation.scores import Scored, group_scores, ideal_answers, score
from qdml.metrics import (
    accuracy,
    calibration_error,
    class_accuracy,
    confusion_matrix,
    coverage,
    mean_absolute_error,
    rank_test,
    reliability,
    rms_ratio,
    rms_ratio_error,
    robust_ratio,
)

P = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])
LABEL = np.array([0, 1, 2, 2])


def test_accuracy_and_confusion() -> None:
    assert accuracy(P, LABEL) == 0.75
    confusion = confusion_matrix(P, LABEL)
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 2]]
    assert class_accuracy(confusion) == [1.0, 0.0, 1.0]
    assert class_accuracy(np.zeros((2, 2), dtype=int)) == [None, None]


def test_mean_absolute_error() -> None:
    error = mean_absolute_error(P, np.array([2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0, 4.0]))
    assert error["mean"] == pytest.approx((0.1 + 0.5 + 0.6 + 0.3) / 4)
    assert error["most_probable"] == pytest.approx(0.25)


def test_calibration() -> None:
    # Confidence 0.9, 0.6, 0.6, 0.8; right, wrong, right, right.
    assert calibration_error(P, LABEL, bins=10) == pytest.approx((0.1 + 2 * 0.1 + 0.2) / 4)
    assert sum(n for n, _, _ in reliability(P, LABEL)) == 4
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], size=50_000)
    label = (rng.random(50_000)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    # 50 000 draws in 15 bins: each frequency is known to about 1 %.
    assert calibration_error(honest, label) < 0.01
    assert calibration_error(honest**3 / (honest**3).sum(axis=1, keepdims=True), label) > 0.1


def test_coverage_counts_central_intervals() -> None:
    rank = np.array([0.01, 0.1, 0.3, 0.5, 0.55, 0.8, 0.9, 0.999])
    assert coverage(rank) == {"50": 3 / 8, "68": 4 / 8, "95": 6 / 8}


def test_rank_test_of_uniform_and_of_wrong_ranks() -> None:
    uniform = np.random.default_rng(1).random(4000)
    histogram, p = rank_test(uniform)
    assert len(histogram) == 20 and sum(histogram) == 4000
    assert p > 0.01
    z = np.random.default_rng(2).standard_normal(4000)
    cdf = lambda x: torch.special.ndtr(torch.from_numpy(x)).numpy()  # noqa: E731
    for wrong in (1.2 * z, 0.8 * z, z + 0.15):  # overconfident, too wide, biased
        assert rank_test(cdf(wrong))[1] < 1e-6
    # Few patterns: fewer bins, five patterns in each at least.
    assert len(rank_test(uniform[:32])[0]) == 6


def test_ratios() -> None:
    error, bound = np.array([1.0, -2.0, 2.0]), np.array([1.0, 2.0, 1.0])
    assert rms_ratio(error, bound) == pytest.approx(np.sqrt(2.0))
    normal = np.random.default_rng(0).standard_normal(100_000)
    assert robust_ratio(2 * normal, np.ones(100_000)) == pytest.approx(2.0, rel=0.01)
    assert robust_ratio(np.append(normal, [1e9] * 100), np.ones(100_100)) == pytest.approx(1.0, rel=0.01)


def test_the_error_of_an_rms_is_that_of_resampled_patterns() -> None:
    rng = np.random.default_rng(4)
    # Heavy tails: one pattern in ten is five times worse.
    error, bound = rng.standard_normal(400) * np.where(rng.random(400) < 0.1, 5, 1), np.full(400, 2.0)
    found = rms_ratio_error(error, bound)
    again = [rms_ratio(error[i], bound[i]) for i in rng.integers(400, size=(2000, 400))]
    # 2000 resamplings know a standard deviation to 1.6 %; to first order in 1/400 both are the same.
    assert found == pytest.approx(np.std(again), rel=0.08)
    normal = rng.standard_normal(10_000)
    assert rms_ratio_error(normal, np.ones(10_000)) == pytest.approx(1 / np.sqrt(20_000), rel=0.03)
    assert rms_ratio_error(error[:1], bound[:1]) is None


CLASSES = ClassConfig(diameter_nm=(3.0, 4.0, 5.0, 6.0), sigma=(0.06, 0.10, 0.16))
#: A prior and a measurement, both normal in the targets: the posterior is known.
PRIOR_MEAN = torch.tensor([np.log(4.5), np.log(0.12), 0.001], dtype=torch.float64)
PRIOR = torch.diag(torch.tensor([0.2, 0.4, 0.002], dtype=torch.float64) ** 2)
NOISE = torch.tensor(
    [[0.02**2, -0.02 * 0.3 * 0.6, 0.0], [-0.02 * 0.3 * 0.6, 0.3**2, 0.0], [0.0, 0.0, 3e-4**2]],
    dtype=torch.float64,
)
N = 4000


def measured(*, narrow: float = 1.0, shift: float = 0.0) -> tuple[GaussianMixture, torch.Tensor]:
    """Posteriors of N measurements, exact but for what is asked, and the truths."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda c: torch.randn(N, 3, dtype=torch.float64, generator=generator) @ torch.linalg.cholesky(c).T  # noqa: E731
    truth = PRIOR_MEAN + draw(PRIOR)
    seen = truth + draw(NOISE)
    covariance = torch.linalg.inv(torch.linalg.inv(PRIOR) + torch.linalg.inv(NOISE))
    mean = (torch.linalg.inv(PRIOR) @ PRIOR_MEAN + (torch.linalg.inv(NOISE) @ seen.T).T) @ covariance
    tril = narrow * torch.linalg.cholesky(covariance)
    sd = covariance.diagonal().sqrt()
    posterior = GaussianMixture(
        logits=torch.zeros(N, 1, dtype=torch.float64),
        mean=(mean + shift * sd)[:, None],
        scale_tril=tril.expand(N, 1, 3, 3),
    )
    return posterior, truth


def scored_of(posterior: GaussianMixture, truth: torch.Tensor, bound: torch.Tensor = NOISE) -> Scored:
    return score(posterior, truth, bound.expand(len(truth), 3, 3), CLASSES, np.arange(len(truth)), seed=0)


def is_calibrated(scored: Scored) -> bool:
    """What the evaluation calls calibrated: every rank test passes at 10⁻³, coverage within 2.5 points.

    4000 patterns know a coverage of 68 % to 0.7 points, and four quantities of 1000 pass at 10⁻³ but for one in 250.
    """
    scores = group_scores(scored, prior_spread=0.05)
    passed = min(scores["rank_p_value"].values()) > 1e-3
    off = [
        abs(100 * share - float(level)) for one in scores["coverage"].values() for level, share in one.items()
    ]
    return passed and max(off) < 2.5


def test_exact_posteriors_are_calibrated() -> None:
    """Ranks of all quantities, D too, which is no linear function of the targets."""
    assert is_calibrated(scored_of(*measured()))


@pytest.mark.parametrize(
    "wrong", [{"narrow": 0.8}, {"narrow": 1.3}, {"shift": 0.2}], ids=["overconfident", "too wide", "biased"]
)
def test_wrong_posteriors_are_not(wrong: dict) -> None:
    scored = scored_of(*measured(**wrong))
    assert not is_calibrated(scored)
    assert max(rank_test(scored.rank[:, k])[1] for k in (1, 3)) < 1e-6


def test_overconfidence_shows_in_coverage_and_spread() -> None:
    scores = group_scores(scored_of(*measured(narrow=0.5)), prior_spread=0.05)
    # Half as wide: the 68 % interval covers what ±0.497 standard deviations do.
    assert scores["coverage"]["diameter_volume_nm"]["68"] == pytest.approx(0.381, abs=0.02)
    assert scores["spread_over_bound"]["strain"] == pytest.approx(0.5, abs=0.05)


def test_an_estimator_at_the_bound_has_the_ratio_one() -> None:
    """Ideal answers: error over bound, coverage and spread are those of the bound itself."""
    truth = targets_of(
        torch.full((N,), 5.0), torch.full((N,), 0.1), torch.linspace(-0.002, 0.002, N, dtype=torch.float64)
    )
    bound = (NOISE / 25).expand(N, 3, 3)
    ideal = ideal_answers(truth, bound, torch.Generator().manual_seed(0))
    scores = group_scores(scored_of(ideal, truth, bound), prior_spread=0.05)
    for name in QUANTITIES:
        # 4000 patterns: a standard deviation is known to 1.1 %; ln σ to σ adds 2 %.
        assert scores["error_over_bound"][name] == pytest.approx(1.0, abs=0.05), name
        assert scores["spread_over_bound"][name] == pytest.approx(1.0, abs=0.05), name
        assert scores["coverage"][name]["68"] == pytest.approx(0.68, abs=0.03), name


def test_scores_of_single_patterns_by_hand() -> None:
    truth = targets_of(torch.tensor([2.0, 5.0]), torch.tensor([0.05, 0.1]), torch.tensor([0.0, 0.001]))
    tril = 1e-4 * torch.eye(3, dtype=torch.float64).expand(2, 1, 3, 3)
    off = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    posterior = GaussianMixture(
        logits=torch.zeros(2, 1, dtype=torch.float64), mean=(truth + off)[:, None], scale_tril=tril
    )
    bound = torch.diag(torch.tensor([0.02, 0.1, 1e-3], dtype=torch.float64) ** 2)
    scored = scored_of(posterior, truth, bound)
    assert scored.degenerate.tolist() == [True, False]
    scores = group_scores(scored.take(scored.degenerate), prior_spread=0.05)
    assert scores["patterns"] == 1
    # ln D_v is off by 0.1, five times its bound: (e^0.1 - 1)/0.02.
    assert scores["error_over_bound"]["diameter_volume_nm"] == pytest.approx(5.26, rel=0.01)
    assert scores["size_accuracy"] == 1.0 and scores["dispersion_accuracy"] == 1.0
    assert scored.rank[0, 1] < 0.01
