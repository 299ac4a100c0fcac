"""The published all-convolutional network, with class activation maps.

Five convolutions whose stride equals their kernel, ReLU after each, global average pooling, one dense layer per head
(F. Oviedo et al., npj Comput. Mater. 5, 60 (2019), as used by Allara et al. 2024). With stride = kernel the windows do
not overlap, so a convolution is a dense layer on each window: written that way it runs 2 to 3 times faster on a CPU
and needs one matrix product on a GPU.

Symbols: B pattern, C channel, Q point, L window, F filter, K class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from qdml.preprocess import NetworkInput

__all__ = ["AllConv"]


class AllConv(nn.Module):
    """Convolutions -> mean over Q -> logits of each head."""

    def __init__(
        self, heads: Mapping[str, int], *, channels: int, n_q: int, filters: int, kernels: Sequence[int]
    ) -> None:
        """Build the layers.

        Args:
            heads: name -> number of classes.
            channels: of the input.
            n_q: points of the input.
            filters: of every convolution.
            kernels: kernel and stride of each convolution.

        Raises:
            ValueError: the product of the kernels exceeds n_q.
        """
        super().__init__()
        if math.prod(kernels) > n_q:
            raise ValueError(
                f"network.kernels {list(kernels)} need at least {math.prod(kernels)} points, the patterns have {n_q}; "
                "choose fewer or smaller kernels, or a finer q.step"
            )
        self.kernels = tuple(kernels)
        inputs = (channels, *[filters] * (len(kernels) - 1))
        self.layers = nn.ModuleList(nn.Linear(n * k, filters) for n, k in zip(inputs, kernels, strict=True))
        self.heads = nn.ModuleDict({name: nn.Linear(filters, n) for name, n in heads.items()})

    def features(self, x_BCQ: torch.Tensor) -> torch.Tensor:
        """(B, L, F) activations of the last convolution; points after the last whole window are dropped."""
        y_BLC = x_BCQ.transpose(1, 2)
        for layer, kernel in zip(self.layers, self.kernels, strict=True):
            n = y_BLC.shape[1] // kernel
            y_BLC = torch.relu(layer(y_BLC[:, : n * kernel].reshape(len(y_BLC), n, -1)))
        return y_BLC

    def forward(self, inputs: NetworkInput) -> dict[str, torch.Tensor]:
        """Logits (B, K) of each head."""
        pooled_BF = self.features(inputs.pattern).mean(dim=1)
        return {name: head(pooled_BF) for name, head in self.heads.items()}

    def activation_map(self, x_BCQ: torch.Tensor, head: str) -> torch.Tensor:
        """How much each Q speaks for each class: the dense layer before pooling (B. Zhou et al., CVPR 2016).

        Args:
            x_BCQ: input.
            head: name of a head.

        Returns:
            (B, K, Q); its mean over the windows plus the bias is the logit. Constant in each window of
            prod(kernels) points, 0 beyond the last whole one.
        """
        dense, n_q = self.heads[head], x_BCQ.shape[2]
        assert isinstance(dense, nn.Linear)
        map_BKL = (self.features(x_BCQ) @ dense.weight.T).transpose(1, 2)
        map_BKQ = map_BKL.repeat_interleave(math.prod(self.kernels), dim=2)[..., :n_q]
        return nn.functional.pad(map_BKQ, (0, n_q - map_BKQ.shape[2]))
