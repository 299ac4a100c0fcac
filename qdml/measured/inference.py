"""Class probabilities of a network -> size and dispersion with intervals.

The classes of a network are points of the training grid: centres c_1 < ... < c_n. Between them nothing was
trained, so each class stands for the values nearer to it than to any other, and its probability is spread
evenly over them. The outer classes reach as far outwards as inwards, never below 0. Mean and quantiles are
those of this piecewise constant density.

D_v = D(1 + σ²)³ follows from the joint probabilities of D and σ, each cell of the (D, σ) plane filled evenly.
Networks with two heads give D and σ as if independent; in the data they are anticorrelated, which would make
the interval of D_v narrower than the one reported.

Such an interval says how far the network can tell its own classes apart. It knows nothing of what no training
pattern had, so it is no bound on the error of a measured sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.ensemble import volume_mean_diameter
from qdml.answers import INTERVALS, Estimate
from qdml.files.patterns import OnGrid
from qdml.measured.measurement import observation_of

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "ClassProbabilities",
    "class_edges",
    "estimate_of_classes",
    "size_pattern",
    "trained_windows",
    "volume_diameter",
]

# D, sigma: number-mean diameter [nm] and relative standard deviation; p: probability of each class
# Points per class and axis for the distribution of D_v: 16 put a quantile within a 30th of a class of its
# limit.
_POINTS_PER_CLASS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassProbabilities:
    """What a network says about one pattern."""

    diameter_nm: np.ndarray
    """(D class,) float64 centres [nm], rising."""
    sigma: np.ndarray
    """(σ class,) float64 centres, rising."""
    joint: np.ndarray
    """(D class, σ class) float64; sums to 1."""

    @property
    def of_diameter(self) -> np.ndarray:
        """(D class,) float64: probability of each size class."""
        return self.joint.sum(axis=1)

    @property
    def of_sigma(self) -> np.ndarray:
        """(σ class,) float64: probability of each dispersion class."""
        return self.joint.sum(axis=0)


def trained_windows(card: Mapping[str, Any]) -> tuple[tuple[float, float], float]:
    """What of Q a network has seen in training.

    Returns:
        first and last Q that were ever visible, and the width of the smallest window [Å⁻¹].
    """
    low, high = card["q"]["min"], card["q"]["max"]
    windows = card["windows"]
    ever = (
        max(low, min(one["first"][0] for one in windows)),
        min(high, max(one["last"][1] for one in windows)),
    )
    smallest = min(min(one["last"][0], high) - max(one["first"][1], low) for one in windows)
    return ever, smallest


def size_pattern(module: nn.Module, card: Mapping[str, Any], pattern: OnGrid) -> ClassProbabilities:
    """Ask a network for the class probabilities of one pattern.

    Args:
        module: the network, in eval mode.
        card: its card (see `qdml.checkpoint`).
        pattern: the pattern on the Q grid of the card.

    Returns:
        joint probabilities over the classes of the card.
    """
    import torch

    from qdml.asking import input_of

    with torch.inference_mode():
        logits = module(input_of(card, observation_of(pattern)))
        p = {name: torch.softmax(one[0].double(), dim=0).numpy() for name, one in logits.items()}
    diameter, sigma = (
        np.asarray(card["classes"][name], dtype=np.float64) for name in ("diameter_nm", "sigma")
    )
    joint = (
        p["joint"].reshape(len(diameter), len(sigma)) if "joint" in p else np.outer(p["diameter"], p["sigma"])
    )
    return ClassProbabilities(diameter_nm=diameter, sigma=sigma, joint=joint)


def class_edges(centres: np.ndarray) -> np.ndarray:
    """Limits of the values that each class stands for.

    Args:
        centres: (class,) float64, rising, ≥ 0.

    Returns:
        (class + 1,) float64; halfway between centres, the outer ones mirrored and not below 0. A single class
        has no width.
    """
    if len(centres) == 1:
        return np.repeat(centres, 2)
    inner = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - inner[0], 2 * centres[-1] - inner[-1]
    return np.concatenate([[max(first, 0.0)], inner, [last]])


def estimate_of_classes(centres: np.ndarray, probability: np.ndarray) -> Estimate:
    """Mean and intervals of a quantity from the probabilities of its classes.

    Args:
        centres: (class,) float64, rising.
        probability: (class,) float64, sums to 1.
    """
    edges = class_edges(centres)
    cumulative = np.append(0.0, np.cumsum(probability))
    cumulative /= cumulative[-1]
    # Where a class has no probability the CDF is flat and its inverse jumps: keep the ends of the rise.
    rising = np.append(True, np.diff(cumulative) > 0) | np.append(np.diff(cumulative) > 0, True)
    mean = probability @ (edges[1:] + edges[:-1]) / 2 / probability.sum()
    return Estimate.of(mean, np.interp(INTERVALS, cumulative[rising], edges[rising]))


def volume_diameter(classes: ClassProbabilities) -> Estimate:
    """Mean and intervals of D_v = D(1 + σ²)³ [nm], the diameter that wide-angle patterns fix best."""
    diameter = _inside(class_edges(classes.diameter_nm))
    sigma = _inside(class_edges(classes.sigma))
    value = volume_mean_diameter(diameter[:, None, :, None], sigma[None, :, None, :]).ravel()
    weight = np.broadcast_to(
        classes.joint[:, :, None, None], (*classes.joint.shape, *2 * [_POINTS_PER_CLASS])
    ).ravel()
    order = np.argsort(value)
    value, weight = value[order], weight[order] / weight.sum()
    return Estimate.of(weight @ value, np.interp(INTERVALS, np.cumsum(weight) - weight / 2, value))


def _inside(edges: np.ndarray) -> np.ndarray:
    """(class, point) float64: evenly spaced midpoints inside each class."""
    fraction = (np.arange(_POINTS_PER_CLASS) + 0.5) / _POINTS_PER_CLASS
    return edges[:-1, None] + np.diff(edges)[:, None] * fraction
