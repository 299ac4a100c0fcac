"""Endless data: every batch new dots, drawn on the device.

D and the other parameters are uniform in their ranges, the variant has the weights that were asked for, and σ, given D,
is uniform up to

    s_max = [√(z² + 10 ln(L/D)) - z] / 5,    s² = ln(1 + σ²),    z = Φ⁻¹(1 - tail)

(or up to the end of its range), since the atoms of a lognormal distribution of mean D are lognormal with the median
D e^{5s²/2}, and no more than `tail` of them may lie beyond L, the largest particle of the basis. If it is the volume
mean D_v = D e^{3s²} that is uniform, their median is D_v e^{-s²/2} and s_max = z - √(z² - 2 ln(L/D_v)), or no limit
where the root is imaginary. Nothing is drawn and thrown away, so nothing waits for the device.

A batch is a function of (seed, step, lane) alone: any number of processes, and a resumed run, see the same dots. The
samples of the store itself are never learned from: they are what a model is validated and tested with.

Symbols: B dot, V variant, D number mean, D_v volume mean, σ relative standard deviation, L largest diameter [nm].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qdml.dataset import Lane, Rows, deal_samples, lane_generator, read_rows

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.config import EnsembleDataConfig

__all__ = ["DotDraws", "EnsembleLane", "check_ranges", "ensemble_lanes", "variant_weights"]

# Role of random streams, apart from those of `dataset` and `trainer`.
_DOTS = 21


class DotDraws:
    """Random dots that a basis covers."""

    def __init__(self, config: EnsembleDataConfig, store: Store, device: torch.device) -> None:
        """Tabulate.

        Args:
            config: ranges, weights, tail.
            store: whose basis makes the patterns.
            device: of the draws.

        Raises:
            ValueError: the basis does not cover the sizes that are asked for, or a weight fits no variant.
        """
        from scipy.special import ndtri

        weight_V = variant_weights(config, store)
        largest_V = np.array([float(store.near(v)["diameter"][-1]) for v in range(store.n_variants)])
        self._config, self._device, self._z = config, device, float(ndtri(1 - config.tail))
        self._until_V = torch.as_tensor(np.cumsum(weight_V) / weight_V.sum(), device=device)
        self._log_largest_V = torch.as_tensor(np.log(largest_V), device=device)
        used = np.flatnonzero(weight_V)
        worst = used[np.argmin(largest_V[used])]
        at = torch.tensor([config.diameter_nm[1]], dtype=torch.float64, device=device)
        reached = float(self._most_sigma(at, torch.tensor([worst], device=device))[0])
        if not reached >= config.sigma[0]:
            raise ValueError(
                f"data.diameter_nm reaches {config.diameter_nm[1]:g} nm with σ = {config.sigma[0]:g}, but the largest "
                f"particle in the basis of {store.path} ({store.attrs['variants'][worst]['title']}) has "
                f"{largest_V[worst]:.4g} nm: more than data.tail = {config.tail:g} of the atoms would lie beyond it. "
                "Lower data.diameter_nm, or simulate with larger sizes"
            )

    def __call__(self, n: int, generator: torch.Generator) -> Rows:
        """Draw n random dots.

        Args:
            n: how many.
            generator: of the device.
        """
        config = self._config
        u_5B = torch.rand((5, n), dtype=torch.float64, generator=generator, device=self._device)
        variant = torch.searchsorted(self._until_V, u_5B[0], right=True).clamp(max=len(self._until_V) - 1)
        diameter = _between(config.diameter_nm, u_5B[1])
        least, most = config.sigma
        sigma = least + u_5B[2] * (self._most_sigma(diameter, variant).clamp(max=most) - least)
        if config.mean == "volume":
            diameter = diameter / (1 + sigma**2) ** 3
        return Rows(
            variant=variant,
            diameter=diameter,
            sigma=sigma,
            strain=_between(config.strain, u_5B[3]),
            b_scale=_between(config.b_scale, u_5B[4]),
        )

    def _most_sigma(self, mean: torch.Tensor, variant: torch.Tensor) -> torch.Tensor:
        """(B,) largest σ at which the basis still covers dots of that mean; NaN where it never does."""
        z, beyond = self._z, self._log_largest_V[variant] - torch.log(mean)
        if self._config.mean == "number":
            s = ((z**2 + 10 * beyond).sqrt() - z) / 5
            s = torch.where(beyond >= 0, s, torch.nan)
        else:
            root2 = z**2 - 2 * beyond
            s = torch.where(root2 > 0, z - root2.clamp(min=0).sqrt(), torch.inf)
            s = torch.where(beyond >= 0, s, torch.nan)
        return torch.expm1(s**2).sqrt()


def check_ranges(config: EnsembleDataConfig, store: Store) -> None:
    """Make sure that the basis was made for what shall be drawn from it.

    Raises:
        ValueError: a range goes beyond that of the samples of the store.
    """
    from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN

    names = {"diameter_nm": DIAMETER, "sigma": SIGMA, "strain": STRAIN, "b_scale": B_SCALE}
    for name, key in names.items():
        asked = getattr(config, name)
        values = store.parameters[key]
        # Samples fill a range, but reach its ends to a thousandth only where they were drawn.
        room = 0.02 * (asked[1] - asked[0]) + 1e-9
        if asked[0] < values.min() - room or asked[1] > values.max() + room:
            raise ValueError(
                f"data.{name} is {list(asked)}, but {store.path} was simulated for {values.min():.6g} to "
                f"{values.max():.6g}, and its basis is exact there only; choose data.{name} inside, or simulate more"
            )


def variant_weights(config: EnsembleDataConfig, store: Store) -> np.ndarray:
    """(V,) float64 relative frequency of each variant.

    Raises:
        ValueError: an entry fits no variant, a variant no entry, or all weights are 0.
    """
    titles = [one["title"] for one in store.attrs["variants"]]
    if config.variants is None:
        return np.ones(len(titles))
    weights, unused = np.zeros(len(titles)), set(range(len(config.variants)))
    for index, title in enumerate(titles):
        fitting = [i for i, one in enumerate(config.variants) if one.title in title]
        if not fitting:
            raise ValueError(
                f"data.variants has no entry for the variant {title!r} of {store.path}; add one (with the weight 0 to "
                "leave it out)"
            )
        weights[index] = config.variants[fitting[0]].weight
        unused.discard(fitting[0])
    if unused:
        raise ValueError(
            f"data.variants: no variant of {store.path} is described by {config.variants[min(unused)].title!r} alone; "
            f"its variants are {titles}, and the first entry that fits decides"
        )
    if not weights.any():
        raise ValueError("data.variants leaves out every variant; give at least one a weight > 0")
    return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleLane(Lane):
    """New dots in every step."""

    draws: DotDraws

    def batch(self, step: int, size: int) -> Rows:
        """The dots of one step, without patterns: recipes make those from the basis."""
        device = self.validation.diameter.device
        return self.draws(size, lane_generator(device, self.seed, _DOTS, step, self.number))


def ensemble_lanes(
    store: Store,
    config: EnsembleDataConfig,
    *,
    seed: int,
    rank: int,
    world: int,
    device: torch.device,
    intensity: bool,
) -> list[EnsembleLane]:
    """The lanes of one process.

    Args:
        store: whose basis makes the patterns and whose samples are for validation.
        config: from `data=ensemble`.
        seed: of the splits and of every draw.
        rank: number of this process.
        world: number of processes.
        device: of the rows.
        intensity: whether the samples for validation hold their patterns (`Recipe.needs_intensity`).

    Raises:
        ValueError: the basis does not cover what is asked for, or the samples cannot be dealt (`deal_samples`).
    """
    draws = DotDraws(config, store, device)
    return [
        EnsembleLane(
            number=number,
            validation=read_rows(store, parts["validation"], device, intensity=intensity),
            seed=seed,
            draws=draws,
        )
        for number, parts in deal_samples(store, config, seed=seed, rank=rank, world=world).items()
    ]


def _between(bounds: tuple[float, ...], u_B: torch.Tensor) -> torch.Tensor:
    """Uniform draws between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * u_B
