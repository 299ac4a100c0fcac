"""What a posterior network and the fit from there say about one measured pattern.

The network's density over (ln D_v, ln σ, ε) is amortised: one look. `qdml.refine` starts from it and fits the whole
world of the training (dots, surroundings, instrument, latents with their priors) to the pattern itself; its density
is the answer where it converged, the network's otherwise. Both are kept: a reader sees when they differ. Both hold for
dots of the training; for real ones they are widened (`qdml.measured.unlike`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qdml.answers import QUANTITIES, Estimate, estimates, posterior_samples, quantities_of
from qdml.densities import TARGETS

if TYPE_CHECKING:
    from qdml.densities import GaussianMixture

__all__ = ["Inferred", "inferred_of"]

# Points along each axis of the density of (D_v, σ), and those of the Sobol sequence behind it.
_POINTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """One posterior of one pattern."""

    density: GaussianMixture
    """Over `qdml.densities.TARGETS`, one row; what follows is of it."""
    within: GaussianMixture
    """The same for dots of the training."""
    estimates: Mapping[str, Estimate]
    """`qdml.answers.QUANTITIES`: D, D_v [nm], σ, ε."""
    mean: np.ndarray
    """(3,) float64, of (ln D_v, ln σ, ε)."""
    covariance: np.ndarray
    """(3, 3) float64."""
    correlation: float
    """Of D and σ."""
    samples: Mapping[str, np.ndarray]
    """Quantity -> (n,) float64, points of equal weight."""

    def as_record(self) -> dict[str, Any]:
        """JSON data."""
        return {name: asdict(self.estimates[name]) for name in QUANTITIES} | {
            "posterior": {
                "targets": list(TARGETS),
                "mean": self.mean.tolist(),
                "covariance": self.covariance.tolist(),
                "correlation_diameter_sigma": self.correlation,
            },
            "within_training": _moments(self.within),
        }


def _moments(density: GaussianMixture) -> dict[str, list[Any]]:
    mean, covariance = density.moments()
    return {"mean": mean[0].tolist(), "covariance": covariance[0].tolist()}


def inferred_of(within: GaussianMixture, sigma_min: float) -> Inferred:
    """What one answer says of real dots.

    Args:
        within: of one pattern, if its dots are those of the training.
        sigma_min: the least dispersion of the training.
    """
    from qdml.measured.unlike import unlike

    density = unlike(within, sigma_min)
    (numbers,) = estimates(density)
    points = posterior_samples(density, 0, _POINTS)[:, 0]
    samples = {name: values.cpu().numpy() for name, values in quantities_of(points).items()}
    return Inferred(
        density=density,
        within=within,
        estimates=numbers,
        mean=points.mean(dim=0).cpu().numpy(),
        covariance=np.cov(points.cpu().numpy(), rowvar=False),
        correlation=float(np.corrcoef(samples["diameter_nm"], samples["sigma"])[0, 1]),
        samples=samples,
    )
