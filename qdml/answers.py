"""A posterior of (ln D_v, ln σ, ε) -> what a person asks for: sizes with intervals, classes, a size distribution.

A network, or `refine`, answers with a density over `qdml.densities.TARGETS`: ln(D_v/nm), ln σ and the strain ε, where
D_v = D(1 + σ²)³ is the volume mean, D the number mean and σ the relative standard deviation of a lognormal size
distribution. Everything else follows from that one density:

- `estimates`: mean, 68 % and 95 % intervals of D, D_v, σ and ε;
- `class_probabilities`: its integral over the cells of nearest class centres;
- `grid_probabilities`: which of a list of discrete hypotheses it was, as on the published grid;
- `size_distribution`: the lognormal number density of diameters with its band.

Densities are mixtures, as loaded models answer with, flows too. They are integrated with a scrambled Sobol sequence in
(component, normal deviates), the same for every pattern: the answer for a pattern depends on the seed and not on what
else is in the batch, and 1024 points place a quantile within about 0.01 standard deviations.

Symbols: B pattern, N point of the sequence, M component, T target, D size class, S dispersion class, H hypothesis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from qdml.config import ClassConfig
    from qdml.densities import GaussianMixture

__all__ = [
    "INTERVALS",
    "QUANTITIES",
    "Estimate",
    "SizeDistribution",
    "class_probabilities",
    "estimate_of_samples",
    "estimates",
    "grid_probabilities",
    "log_uniform_prior",
    "posterior_samples",
    "quantities_of",
    "size_distribution",
    "targets_of",
]

#: What is reported of a posterior, in this order: number and volume mean [nm], relative σ, ε.
QUANTITIES = ("diameter_nm", "diameter_volume_nm", "sigma", "strain")

#: Cumulative probabilities of the ends of the central 68 % and 95 % intervals.
INTERVALS = (0.16, 0.84, 0.025, 0.975)

# A power of two, as Sobol sequences want it.
_POINTS = 1024
# Points of ln σ within each dispersion class: the probability of a size class varies smoothly in between.
_SIGMA_POINTS = 12
# Patterns at a time: 256 x 1024 points x 3 x 3 float64 are 19 MB.
_CHUNK = 256
# Of the grid's hypotheses: 64 x 8 components x 1292 x 3 float64 are 16 MB.
_GRID_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One quantity: its mean and its central 68 % and 95 % intervals, in the unit of the quantity."""

    mean: float
    lo68: float
    hi68: float
    lo95: float
    hi95: float

    @classmethod
    def of(cls, mean: float, quantiles: Iterable[float]) -> Estimate:
        """From the mean and the quantiles at `INTERVALS`."""
        lo68, hi68, lo95, hi95 = map(float, quantiles)
        return cls(mean=float(mean), lo68=lo68, hi68=hi68, lo95=lo95, hi95=hi95)

    def text(self, decimals: int, *, factor: float = 1) -> str:
        """Mean and 68 % interval: `5.03 [4.90, 5.17]`."""
        mean, low, high = (f"{factor * x:.{decimals}f}" for x in (self.mean, self.lo68, self.hi68))
        return f"{mean} [{low}, {high}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDistribution:
    """Number density of diameters [1/nm] of every pattern, each integrating to 1 over all diameters."""

    diameter_nm: np.ndarray
    """(k,) float64 [nm]: where the density is given."""
    density: np.ndarray
    """(B, k) float64: mean over the posterior."""
    lo68: np.ndarray
    """(B, k) float64: 16 % quantile at each diameter."""
    hi68: np.ndarray
    lo95: np.ndarray
    hi95: np.ndarray


def targets_of(diameter: torch.Tensor, sigma: torch.Tensor, strain: torch.Tensor) -> torch.Tensor:
    """(..., 3) float64 in the order of `qdml.densities.TARGETS`, of number-mean D [nm], σ and ε."""
    import torch

    from qdml.densities import volume_diameter

    diameter, sigma, strain = torch.broadcast_tensors(diameter.double(), sigma.double(), strain.double())
    return torch.stack([volume_diameter(diameter, sigma).log(), sigma.log(), strain], dim=-1)


def quantities_of(targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """`QUANTITIES` -> (...) float64, of (..., 3) targets."""
    from qdml.densities import number_diameter

    log_volume, log_sigma, strain = targets.double().unbind(-1)
    sigma, volume = log_sigma.exp(), log_volume.exp()
    return {
        "diameter_nm": number_diameter(volume, sigma),
        "diameter_volume_nm": volume,
        "sigma": sigma,
        "strain": strain,
    }


def posterior_samples(posterior: GaussianMixture, seed: int, n: int = _POINTS) -> torch.Tensor:
    """(n, B, 3) float64 points of equal weight that stand for each posterior, in units of the targets.

    Args:
        posterior: of B patterns.
        seed: of the scrambling.
        n: number of points, a power of two.

    Raises:
        ValueError: a number of points that is not a power of two.
    """
    import torch

    if n < 1 or n & (n - 1):
        raise ValueError(f"the number of points must be a power of two, got {n}")
    mean_BMT = posterior.mean.double()
    device, n_targets = mean_BMT.device, mean_BMT.shape[-1]
    engine = torch.quasirandom.SobolEngine(1 + n_targets, scramble=True, seed=seed)
    # The points lie in the middle of their cells: ndtri is finite.
    u = (engine.draw(n, dtype=torch.float64) * (1 - 1e-9) + 5e-10).to(device)
    normal_NT = torch.special.ndtri(u[:, 1:])
    cumulative_BM = torch.softmax(posterior.logits.double(), dim=1).cumsum(dim=1)
    pieces = []
    for start in range(0, len(mean_BMT), _CHUNK):
        part = slice(start, start + _CHUNK)
        position_BN = u[:, 0].expand(len(cumulative_BM[part]), n).contiguous()
        index_BN = torch.searchsorted(cumulative_BM[part].contiguous(), position_BN)
        index_BN = index_BN.clamp(max=mean_BMT.shape[1] - 1)
        row_B1 = torch.arange(len(index_BN), device=device)[:, None]
        mean_BNT = mean_BMT[part][row_B1, index_BN]
        scale_BNTT = posterior.scale_tril[part].double()[row_B1, index_BN]
        pieces.append(mean_BNT + torch.einsum("bnij,nj->bni", scale_BNTT, normal_NT))
    return torch.cat(pieces).transpose(0, 1)


def estimate_of_samples(samples: torch.Tensor) -> list[Estimate]:
    """Mean and central intervals of each column.

    Args:
        samples: (n, B) of equal weight.

    Returns:
        one for each of the B columns.
    """
    import torch

    levels = torch.tensor(INTERVALS, dtype=torch.float64, device=samples.device)
    quantile = torch.quantile(samples.double(), levels, dim=0)
    rows = torch.cat([samples.double().mean(dim=0, keepdim=True), quantile]).T.tolist()
    return [Estimate.of(mean, quantiles) for mean, *quantiles in rows]


def estimates(posterior: GaussianMixture, seed: int = 0) -> list[dict[str, Estimate]]:
    """Mean and intervals of D, D_v, σ and ε.

    Args:
        posterior: of B patterns.
        seed: of the points that stand for it.

    Returns:
        one dictionary for each pattern, keys `QUANTITIES`.
    """
    columns = {
        name: estimate_of_samples(values)
        for name, values in quantities_of(posterior_samples(posterior, seed)).items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def class_probabilities(posterior: GaussianMixture, classes: ClassConfig) -> torch.Tensor:
    """Probability of every pair of classes: the posterior over the cells of nearest centres.

    The cells of the outermost classes reach to the ends of the axes. The integral over the size is exact at each of a
    few points of ln σ per class: given ln σ, a component's ln D_v is normal, and the class boundaries of D lie at
    ln D + 3 ln(1 + σ²).

    Args:
        posterior: of B patterns.
        classes: centres of the size [nm, number mean] and of the dispersion.

    Returns:
        (B, D, S) float64, each summing to 1.
    """
    import torch

    edge_D, edge_S = (_inner_edges(centres) for centres in (classes.diameter_nm, classes.sigma))
    pieces = [
        _mixture_classes(posterior.take(slice(start, start + _CHUNK)), edge_D, edge_S)
        for start in range(0, len(posterior), _CHUNK)
    ]
    return torch.cat(pieces)


def grid_probabilities(
    posterior: GaussianMixture,
    grid: torch.Tensor,
    log_prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Which of a list of hypotheses it was, all equally likely before the measurement.

    p(h | pattern) ∝ posterior(θ_h) / prior(θ_h): the prior that a network was trained with is divided out, because the
    list has its own.

    Args:
        posterior: of B patterns.
        grid: (H, 3) the hypotheses in units of the targets (`targets_of`).
        log_prior: (H, 3) -> (H,) log density of the training, up to a constant; None for a flat one.

    Returns:
        (B, H) float64, each row summing to 1.
    """
    import torch

    grid, n = grid.double(), len(posterior)
    parts = [posterior.take(slice(start, start + _GRID_CHUNK)) for start in range(0, n, _GRID_CHUNK)]
    log_BH = torch.cat([_log_mixture(part, grid.to(posterior.mean.device)) for part in parts])
    if log_prior is not None:
        log_BH = log_BH - log_prior(grid).to(log_BH.device)
    return torch.softmax(log_BH, dim=1)


def log_uniform_prior(targets: torch.Tensor) -> torch.Tensor:
    """(H,) ln of the density of (..., 3) targets when D, σ and ε are uniform: ln D + ln σ, up to a constant."""
    values = quantities_of(targets)
    return values["diameter_nm"].log() + values["sigma"].log()


def size_distribution(posterior: GaussianMixture) -> SizeDistribution:
    """The lognormal number density of diameters, averaged over the posterior, with its band.

    n(d) = exp(-(ln d - μ)²/2s²) / (d s √2π), s² = ln(1 + σ²), μ = ln D - s²/2.

    Args:
        posterior: of B patterns.

    Returns:
        At 200 diameters that hold all but 10⁻⁴ of the dots of every pattern.
    """
    import torch

    values = quantities_of(posterior_samples(posterior, 0, 256))
    s_NB = torch.sqrt(torch.log1p(values["sigma"] ** 2))
    mu_NB = torch.log(values["diameter_nm"]) - s_NB**2 / 2
    # 3.7 standard deviations leave 10⁻⁴ outside.
    low, high = float((mu_NB - 3.7 * s_NB).min().exp()), float((mu_NB + 3.7 * s_NB).max().exp())
    diameter_nm = np.linspace(low, high, 200)
    log_d = torch.log(torch.as_tensor(diameter_nm, dtype=torch.float64, device=s_NB.device))
    z_NBK = (log_d - mu_NB[..., None]) / s_NB[..., None]
    density_NBK = torch.exp(-0.5 * z_NBK**2 - log_d) / (s_NB[..., None] * (2 * torch.pi) ** 0.5)
    levels = torch.tensor(INTERVALS, dtype=torch.float64, device=s_NB.device)
    bands = torch.quantile(density_NBK, levels, dim=0).cpu().numpy()
    return SizeDistribution(
        diameter_nm=diameter_nm,
        density=density_NBK.mean(dim=0).cpu().numpy(),
        lo68=bands[0],
        hi68=bands[1],
        lo95=bands[2],
        hi95=bands[3],
    )


def _log_mixture(posterior: GaussianMixture, points_HT: torch.Tensor) -> torch.Tensor:
    """(B, H) float64 log density of every point in every mixture."""
    import torch

    scale_BMTT = posterior.scale_tril.double()
    away_BMHT = points_HT - posterior.mean.double()[:, :, None]
    z_BMTH = torch.linalg.solve_triangular(scale_BMTT, away_BMHT.mT, upper=False)
    log_size_BM = torch.log(scale_BMTT.diagonal(dim1=-2, dim2=-1)).sum(dim=-1)
    log_weight_BM = torch.log_softmax(posterior.logits.double(), dim=1)
    constant = 0.5 * points_HT.shape[1] * math.log(2 * math.pi)
    log_BMH = (log_weight_BM - log_size_BM)[..., None] - 0.5 * (z_BMTH**2).sum(dim=-2) - constant
    return torch.logsumexp(log_BMH, dim=1)


def _inner_edges(centres: tuple[float, ...]) -> torch.Tensor:
    """(classes - 1,) float64: halfway between neighbouring centres."""
    import torch

    centre = torch.tensor(centres, dtype=torch.float64)
    return (centre[1:] + centre[:-1]) / 2


def _mixture_classes(posterior: GaussianMixture, edge_D: torch.Tensor, edge_S: torch.Tensor) -> torch.Tensor:
    """(B, D, S) of a mixture; the axes of the sum are (B, M, S, point, D)."""
    import torch

    mean_BMT, scale_BMTT = posterior.mean.double(), posterior.scale_tril.double()
    covariance = scale_BMTT @ scale_BMTT.mT
    mean_v, mean_s = mean_BMT[..., 0], mean_BMT[..., 1]
    sd_s = covariance[..., 1, 1].sqrt()
    slope = covariance[..., 0, 1] / covariance[..., 1, 1]
    sd_v = (covariance[..., 0, 0] - slope * covariance[..., 0, 1]).clamp(min=1e-24).sqrt()
    weight_BM = torch.softmax(posterior.logits.double(), dim=1)
    device = mean_v.device
    # Cumulative probabilities at the edges of the dispersion classes: (B, M, S + 1).
    u_edge = torch.special.ndtr((torch.log(edge_S).to(device) - mean_s[..., None]) / sd_s[..., None])
    zero = torch.zeros_like(u_edge[..., :1])
    u_edge = torch.cat([zero, u_edge, torch.ones_like(zero)], dim=-1)
    mass_BMS = u_edge.diff(dim=-1)
    fraction = (torch.arange(_SIGMA_POINTS, dtype=torch.float64, device=device) + 0.5) / _SIGMA_POINTS
    u = u_edge[..., :-1, None] + mass_BMS[..., None] * fraction
    # 1e-15: classes without mass have their points at an end, where ndtri is infinite.
    deviate = torch.special.ndtri(u.clamp(1e-15, 1 - 1e-15))
    log_sigma = mean_s[..., None, None] + sd_s[..., None, None] * deviate
    given = mean_v[..., None, None] + slope[..., None, None] * (log_sigma - mean_s[..., None, None])
    boundary = torch.log(edge_D).to(device) + 3 * torch.log1p(torch.exp(2 * log_sigma))[..., None]
    below = torch.special.ndtr((boundary - given[..., None]) / sd_v[..., None, None, None])
    zero = torch.zeros_like(below[..., :1])
    share = torch.cat([zero, below, torch.ones_like(zero)], dim=-1).diff(dim=-1).mean(dim=-2)
    joint = (weight_BM[..., None, None] * mass_BMS[..., None] * share).sum(dim=1).mT
    return joint / joint.sum(dim=(1, 2), keepdim=True)
