"""How good answers are: plain functions of NumPy arrays.

Of classes: accuracy, confusion, calibration error. Of posteriors: the *rank* of the truth, u = P(value < truth) under
the posterior. Over patterns drawn from the prior, ranks of exact posteriors are uniform (S. Talts et al., Validating
Bayesian inference algorithms with simulation-based calibration, arXiv:1804.06788): a U-shaped histogram is
overconfident, a dome too wide, a slope biased. Coverage of central intervals is the same looked at from the middle.

Symbols: B pattern, K class.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "accuracy",
    "calibration_error",
    "class_accuracy",
    "confusion_matrix",
    "coverage",
    "mean_absolute_error",
    "rank_test",
    "reliability",
    "rms_ratio",
    "rms_ratio_error",
    "robust_ratio",
]

# Central intervals of which the coverage is told.
_LEVELS = (0.50, 0.68, 0.95)

# Median of |x| of a standard normal number.
_NORMAL_MEDIAN = 0.6744897502


def accuracy(probability: np.ndarray, label: np.ndarray) -> float:
    """Fraction of patterns whose most probable class is the right one.

    Args:
        probability: (B, K).
        label: (B,) int.
    """
    return float((probability.argmax(axis=1) == label).mean())


def confusion_matrix(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(K, K) int64: patterns of class i (row) called class j (column)."""
    n = probability.shape[1]
    return np.bincount(label * n + probability.argmax(axis=1), minlength=n * n).reshape(n, n)


def class_accuracy(confusion: np.ndarray) -> list[float | None]:
    """Accuracy of each true class; None where there is no pattern."""
    return [float(row[i] / row.sum()) if row.sum() else None for i, row in enumerate(confusion)]


def mean_absolute_error(probability: np.ndarray, centres: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean |estimate - truth| of the probability-weighted mean of the centres, and of the most probable class.

    Args:
        probability: (B, K).
        centres: (K,).
        truth: (B,), same unit.
    """
    return {
        "mean": float(np.abs(probability @ centres - truth).mean()),
        "most_probable": float(np.abs(centres[probability.argmax(axis=1)] - truth).mean()),
    }


def reliability(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> list[tuple[int, float, float]]:
    """(patterns, mean confidence, accuracy) of each equal bin of the chosen class's probability that is not empty."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (int(n), float(confidence[index == b].mean()), float(right[index == b].mean()))
        for b in range(bins)
        if (n := (index == b).sum())
    ]


def calibration_error(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error Σ n_b/B |accuracy_b - confidence_b| (Guo et al., ICML 2017)."""
    entries = reliability(probability, label, bins)
    return sum(n * abs(right - confidence) for n, confidence, right in entries) / len(label)


def coverage(rank: np.ndarray) -> dict[str, float]:
    """Share of patterns whose truth lies in the central interval of each level; a calibrated posterior has the level.

    Args:
        rank: (B,) in 0 to 1.

    Returns:
        `50`, `68`, `95` -> share.
    """
    return {f"{100 * level:g}": float((np.abs(rank - 0.5) < level / 2).mean()) for level in _LEVELS}


def rank_test(rank: np.ndarray) -> tuple[list[int], float]:
    """Histogram of ranks, and the probability that uniform ranks scatter at least as much (χ² test).

    Of 20 bins, or fewer where they would hold fewer than five patterns on average.

    Args:
        rank: (B,) in 0 to 1.
    """
    from scipy.stats import chi2

    bins = max(2, min(20, len(rank) // 5))
    count = np.bincount(np.minimum((rank * bins).astype(int), bins - 1), minlength=bins)
    expected = len(rank) / bins
    return count.tolist(), float(chi2.sf(((count - expected) ** 2 / expected).sum(), bins - 1))


def rms_ratio(error: np.ndarray, bound: np.ndarray) -> float:
    """Root mean square of error over bound: 1 for an estimator that reaches the bound."""
    return float(np.sqrt(np.mean((error / bound) ** 2)))


def rms_ratio_error(error: np.ndarray, bound: np.ndarray) -> float | None:
    """Standard error of `rms_ratio`: by how much it would differ for other patterns of the same kind.

    That of the mean square, s(x²)/√B, over twice the rms: what resampling the patterns gives, without its random
    numbers. None for one pattern.
    """
    square = (error / bound) ** 2
    if len(square) < 2:
        return None
    return float(square.std(ddof=1) / np.sqrt(len(square)) / (2 * np.sqrt(max(square.mean(), 1e-300))))


def robust_ratio(error: np.ndarray, bound: np.ndarray) -> float:
    """Median of |error|/bound, over that of a normal number: the same without the few worst patterns."""
    return float(np.median(np.abs(error / bound)) / _NORMAL_MEDIAN)
