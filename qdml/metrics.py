"""How good class probabilities are: plain functions of NumPy arrays.

Symbols: B pattern, K class.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "accuracy",
    "calibration_error",
    "class_accuracy",
    "confusion_matrix",
    "mean_absolute_error",
    "reliability",
]


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
