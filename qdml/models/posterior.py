"""The posterior of (ln D_v, ln σ, ε), given a pattern, its mask, its noise and what is known of the instrument.

    whitening -> dense embedding (with mask and conditions) -> residual blocks -> mixture of normal densities

(or a flow, and with a branch of convolutions, if asked for). Beside it a linear layer guesses what is not asked for
(`Nuisance`), for fits to begin there.
Each component m of the mixture is written relative to one normal density that they share,

    mean_m = a + L u_m,    L_m = L K_m,    t = centre + spread (mean + L z)

with L, K lower triangular and the targets' mean and spread over the training set. So how narrow the posterior is (it
varies by a factor of 100) is learned once, not M times.

Symbols: B pattern, C channel, Q point, P component of the whitening, W width, M component of the mixture, T target,
L latent, V structural variant.
"""

from __future__ import annotations

import torch
from torch import nn

from qdml.densities import TARGETS, GaussianMixture
from qdml.models.convolutions import ConvolutionBranch
from qdml.models.flow import FlowDensity, FlowHead
from qdml.models.residual_mlp import hidden_weights
from qdml.models.whitening import InputMoments, Whitening
from qdml.nuisance import Nuisance
from qdml.preprocess import NetworkInput

__all__ = ["MixtureHead", "NuisanceHead", "Posterior"]

# The mask varies slowly: it enters as its mean over so many points.
_MASK_WINDOW = 16
# Relative to the targets' spread over the training set; a posterior is at most 1000 times narrower.
_NARROWEST = 1e-4
# A condition that never varied in training is no reason to be far out.
_LEAST_SPREAD = 1e-3
# Standard deviation of the starting means of the mixture: components that start equal stay equal.
_START = 0.5


class MixtureHead(nn.Module):
    """Features -> mixture of normal densities."""

    def __init__(self, width: int, components: int) -> None:
        """Build the layers.

        Args:
            width: features.
            components: of the mixture.
        """
        super().__init__()
        t = len(TARGETS)
        n = t * (t + 1) // 2
        self.components = components
        # logit, mean, triangle of each component; mean and triangle of what they share.
        self.dense = nn.Linear(width, components * (1 + t + n) + t + n)
        self.centre = nn.Parameter(torch.zeros(t), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(t), requires_grad=False)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        with torch.no_grad():
            self.dense.bias[components : components * (1 + t)].normal_(0, _START)
        below = torch.tril_indices(t, t, -1)
        self._below = (below[0].tolist(), below[1].tolist())

    def _triangle(self, raw: torch.Tensor, least: float) -> torch.Tensor:
        """(..., T(T+1)/2) -> (..., T, T): ln of the diagonal first, then what is below it."""
        t = len(TARGETS)
        tril = torch.diag_embed(raw[..., :t].exp() + least)
        zero = torch.zeros_like(raw[..., 0])
        below = dict(zip(zip(*self._below, strict=True), raw[..., t:].unbind(-1), strict=True))
        rows = [torch.stack([below.get((i, j), zero) for j in range(t)], dim=-1) for i in range(t)]
        return tril + torch.stack(rows, dim=-2)

    def forward(self, y_BW: torch.Tensor) -> GaussianMixture:
        """The density of each row, in units of `TARGETS`."""
        t, m = len(TARGETS), self.components
        n = t * (t + 1) // 2
        # bfloat16 has three digits: posteriors a hundredth as wide as the prior would be blurred by it.
        with torch.autocast(y_BW.device.type, enabled=False):
            raw = self.dense(y_BW)
            logits, u, k, shared_mean, shared = raw.split([m, m * t, m * n, t, n], dim=-1)
            shared_BTT = self._triangle(shared, _NARROWEST)[:, None]
            mean_BMT = shared_mean[:, None] + (shared_BTT @ u.unflatten(-1, (m, t))[..., None])[..., 0]
            tril_BMTT = shared_BTT @ self._triangle(k.unflatten(-1, (m, n)), 1e-3)
            return GaussianMixture(
                logits=logits,
                mean=self.centre + self.spread * mean_BMT,
                scale_tril=self.spread[:, None] * tril_BMTT,
            )


class NuisanceHead(nn.Module):
    """Features -> the means of what is not asked for."""

    def __init__(self, width: int, n_latents: int, n_variants: int) -> None:
        """Build the layer.

        Args:
            width: features.
            n_latents: L.
            n_variants: V.
        """
        super().__init__()
        self._sizes = [1, n_latents, n_variants]
        self.dense = nn.Linear(width, sum(self._sizes))
        # The means before anything is seen.
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, y_BW: torch.Tensor) -> Nuisance:
        """The guess for each row, in full precision."""
        with torch.autocast(y_BW.device.type, enabled=False):
            log_b, z, logits = self.dense(y_BW).split(self._sizes, dim=1)
            return Nuisance(log_b_scale=log_b[:, 0], z=z, log_variant=torch.log_softmax(logits, dim=1))


class Posterior(nn.Module):
    """Whitening, residual blocks, mixture."""

    def __init__(
        self,
        *,
        channels: int,
        n_q: int,
        n_conditions: int,
        components: int,
        width: int,
        blocks: int,
        head: MixtureHead | FlowHead,
        nuisance: NuisanceHead,
        convolutions: ConvolutionBranch | None,
        mask: bool,
        conditions: bool,
        declared_noise: bool,
        compress_beyond: float,
    ) -> None:
        """Build the layers.

        Args:
            channels: of the input; the first is the pattern, the second (if any) the mask.
            n_q: points of the input.
            n_conditions: K.
            components: principal components that are kept.
            width: of the residual stream.
            blocks: number of residual blocks.
            head: features -> density, with `centre` and `spread` of the targets.
            nuisance: features -> what is not asked for.
            convolutions: a branch beside the whitening, or None.
            mask: whether the network is told what was not measured.
            conditions: whether it is told what is known of the measurement.
            declared_noise: whether the noise of each pattern scales its components.
            compress_beyond: of the whitening.

        Raises:
            ValueError: more components than points; the mask asked for, but not in the input.
        """
        super().__init__()
        if mask and channels < 2:
            raise ValueError(
                "network.mask needs an input with a mask channel; choose network.input=log_smooth or area_mask"
            )
        self.mask, self.conditions = mask, conditions
        # Training needs exact densities; those who use a model ask for moments, cuts and classes.
        self.closed_form = False
        self.whitening = Whitening(
            n_q, components, declared_noise=declared_noise, compress_beyond=compress_beyond
        )
        self.condition_mean = nn.Parameter(torch.zeros(n_conditions), requires_grad=False)
        self.condition_spread = nn.Parameter(torch.ones(n_conditions), requires_grad=False)
        extra = (n_q // _MASK_WINDOW) * mask + n_conditions * conditions
        self.convolutions = convolutions
        if convolutions is not None:
            extra += convolutions.size
        self.embed = nn.Linear(components + extra, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = head
        self.nuisance = nuisance

    @torch.no_grad()
    def fit(self, moments: InputMoments) -> None:
        """Set what stays fixed: whitening, standardisation of conditions and targets."""
        self.whitening.fit(moments)
        mean, spread = moments.mean_and_spread(2)
        self.condition_mean.copy_(mean)
        self.condition_spread.copy_(spread.clamp(min=_LEAST_SPREAD))
        mean, spread = moments.mean_and_spread(3)
        self.head.centre.copy_(mean)
        self.head.spread.copy_(spread)

    def matrices(self) -> list[torch.Tensor]:
        """The 2-D weights between hidden layers, which Muon takes; the rest is for AdamW."""
        return [self.embed.weight, *hidden_weights(self.blocks)]

    def features(self, inputs: NetworkInput) -> torch.Tensor:
        """(B, W) what the density is made of."""
        x_BQ = inputs.pattern[:, 0]
        has_mask = inputs.pattern.shape[1] > 1
        mask_BQ = inputs.pattern[:, 1] if has_mask else torch.ones_like(x_BQ)
        parts = [self.whitening(x_BQ, inputs.noise, mask_BQ)]
        if self.mask:
            n = mask_BQ.shape[1] // _MASK_WINDOW
            parts.append(mask_BQ[:, : n * _MASK_WINDOW].unflatten(1, (n, _MASK_WINDOW)).mean(dim=2))
        if self.conditions:
            parts.append(torch.asinh((inputs.conditions - self.condition_mean) / self.condition_spread))
        if self.convolutions is not None:
            parts.append(self.convolutions(inputs.pattern[:, : 1 + self.mask]))
        joined = torch.cat([part.to(x_BQ.dtype) for part in parts], dim=1)
        # The sum of the blocks stays in full precision, whatever they are computed in.
        y_BW = self.embed(joined).to(joined.dtype)
        for block in self.blocks:
            y_BW = y_BW + block(y_BW)
        return self.norm(y_BW)

    def forward(self, inputs: NetworkInput) -> GaussianMixture | FlowDensity:
        """The density of each pattern; with `closed_form`, a flow as the mixture that stands for it."""
        return self._density(self.features(inputs))

    def answer(self, inputs: NetworkInput) -> tuple[GaussianMixture | FlowDensity, Nuisance]:
        """The same, and where a fit of everything begins."""
        y_BW = self.features(inputs)
        return self._density(y_BW), self.nuisance(y_BW)

    def _density(self, y_BW: torch.Tensor) -> GaussianMixture | FlowDensity:
        density = self.head(y_BW)
        return density.mixture() if self.closed_form and isinstance(density, FlowDensity) else density
