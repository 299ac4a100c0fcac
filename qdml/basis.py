"""The dots of a store of every size, in few modes, on a device: what patterns are made of, without end.

The mean of anything additive, X (partial sums of pairs, sites, near pairs), over a lognormal number distribution, per
atom, is an exact sum over the particles k of a family (`hpc.ensemble`), or over what enters at each diameter D_k:

    X̄ = Σ_k w_k X_k / Σ_k w_k N_k,   Σ_k w_k X_k = Σ_k S(D_k) ΔX_k,   S(x) = Φ((μ - ln x)/s)
    s² = ln(1 + σ²),   μ = ln D_v - 7s²/2,   D_v = D (1 + σ²)³

S is smooth on the scale of s, so that what enters is collected at some 300 *nodes* of ln D instead of thousands of
diameters. Means of partial sums over all sizes and dispersions of a variant span few functions of q, its *modes*, on
which the nodes are projected (`qdml.basis_building` makes and measures both). A batch is then two products in float32:
survival functions times tables, coefficients times modes. What the first adds up has one sign where a pattern is large,
so that no digits cancel; it needs true float32, not TF32.

Rows of a batch may be of different variants. On a CPU they are put in groups. A GPU would have to wait until the host
knows how large these are: there the tables of every variant multiply all rows, and a row keeps its own.

q is that of the unstrained crystal: dots of strain ε show at Q what the basis has at Q(1+ε).

Symbols: B row of a batch, V variant, J node, R column of a table, M mode, A kind, P pair of kinds, C near column,
G point of q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hpc.structure.material import Kind, kind_pairs

__all__ = ["Averages", "DotBasis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Averages:
    """Means over the sizes of each row, per atom."""

    partial: torch.Tensor
    """(B, P, G) float32, P_ab(q) over ordered pairs of kinds."""
    shares: torch.Tensor
    """(B, A) float32, sites of each kind."""
    near: torch.Tensor
    """(B, C) float32, ordered pairs of each near column."""
    beyond: torch.Tensor
    """(B,) float32, fraction of the atoms that would lie in dots larger than the largest of the basis."""


class DotBasis:
    """The dots of a store of every size, differentiable in size and dispersion."""

    kinds: tuple[Kind, ...]
    """What scatters, over all variants."""
    pairs: list[tuple[int, int]]
    """Of kinds, in the order of the pair axis."""
    q: np.ndarray
    """(G,) float64 [Å⁻¹] of the unstrained crystal; the patterns' grid is `q[inside]`."""
    inside: slice
    near_pair: np.ndarray
    """(C,) int64, index into `pairs`."""
    near_distance: np.ndarray
    """(C,) float64 [Å], unstrained."""
    ranges: dict[str, tuple[float, float]]
    """Parameter of the store -> its lowest and highest value; σ without 0, the monodisperse dots."""
    largest_nm: float
    """All variants have dots up to this diameter [nm]."""
    extent: float
    """Largest distance in a dot [Å], at the largest strain."""
    error: float
    """Largest error of partial sums of fresh ensembles, beside exact sums, as a fraction of the pattern's peak."""
    attrs: dict[str, Any]
    """The attributes of the store."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any], *, device: torch.device
    ) -> None:
        """The basis of `to_tensors`, with the same answers; `qdml.basis_building.build_basis` makes one of a store.

        Args:
            tensors: as `to_tensors` gave them.
            content: what it gave beside them.
            device: where rows will be.
        """
        self._tensors, self._content = dict(tensors), dict(content)
        self.attrs = dict(content["attrs"])
        self.q, self.inside = tensors["q"].numpy(), slice(*content["inside"])
        self.near_pair, self.near_distance = tensors["near_pair"].numpy(), tensors["near_distance"].numpy()
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in content["ranges"].items()}
        self.largest_nm, self.extent = float(content["largest_nm"]), float(content["extent"])
        self.error = float(content["error"])
        self.kinds = tuple(Kind(**kind) for kind in content["kinds"])
        self.pairs = kind_pairs(len(self.kinds))
        self._nodes_J, self._largest_V = (tensors[name].to(device) for name in ("nodes", "largest"))
        self._tables_JR, self._modes_MG = (
            [tensors[f"{name}.{variant}"].to(device) for variant in range(len(self._largest_V))]
            for name in ("tables", "modes")
        )
        self._stacked_MG = torch.cat(self._modes_MG) if device.type != "cpu" else None

    def to_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What a file must hold to have the same basis without the store: tensors, and JSON data."""
        return self._tensors, self._content

    @property
    def step(self) -> float:
        """Spacing of q [Å⁻¹]."""
        return float(self.q[1] - self.q[0])

    @property
    def n_modes(self) -> list[int]:
        """How many functions of q the patterns of each variant are sums of."""
        return [len(modes_MG) for modes_MG in self._modes_MG]

    @property
    def n_nodes(self) -> int:
        """How many points of ln D stand for all sizes."""
        return len(self._nodes_J)

    def average(
        self, variant_B: torch.Tensor, log_volume_diameter_B: torch.Tensor, sigma_B: torch.Tensor
    ) -> Averages:
        """Means over lognormal distributions.

        Args:
            variant_B: (B,) int64.
            log_volume_diameter_B: (B,) float32, ln(D_v/nm).
            sigma_B: (B,) float32. Below that of `ranges` nodes begin not to resolve distributions: half of it costs
                3e-4 of a pattern's peak, a quarter of it 3e-3 (spheres of experiment=production).
        """
        s2_B = torch.log1p(sigma_B**2)
        s_B = torch.sqrt(s2_B)
        mean_B = log_volume_diameter_B - 3.5 * s2_B
        survive_BJ = _normal((mean_B[:, None] - self._nodes_J) / s_B[:, None])
        means_BR, partial_BG = self._of_variants(variant_B, survive_BJ)
        shares_BA, near_BC = means_BR.split([len(self.kinds), len(self.near_pair)], dim=1)
        return Averages(
            partial=partial_BG.unflatten(1, (len(self.pairs), len(self.q))),
            shares=shares_BA,
            near=near_BC,
            # Atoms are lognormal too, with μ + 3s².
            beyond=_normal((mean_B + 3 * s2_B - self._largest_V[variant_B]) / s_B),
        )

    def _of_variants(
        self, variant_B: torch.Tensor, survive_BJ: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, A + C) sites and near pairs, and (B, P·G) partial sums, per atom: of each row's variant."""
        n = len(self._tables_JR)
        if n == 1:
            means_BR, modes_BM = self._means(0, survive_BJ)
            return means_BR, modes_BM @ self._modes_MG[0]
        if self._stacked_MG is not None:
            mine_VB1 = (variant_B == torch.arange(n, device=variant_B.device)[:, None])[..., None]
            found = [self._means(variant, survive_BJ) for variant in range(n)]
            means_BR = sum(m * means for m, (means, _) in zip(mine_VB1, found, strict=True))
            modes_BM = torch.cat([m * modes for m, (_, modes) in zip(mine_VB1, found, strict=True)], dim=1)
            return means_BR, modes_BM @ self._stacked_MG
        order = torch.argsort(variant_B)
        groups = survive_BJ.index_select(0, order).split(torch.bincount(variant_B, minlength=n).tolist())
        back = torch.argsort(order)
        found = [self._means(variant, group) for variant, group in enumerate(groups)]
        means_BR = torch.cat([means for means, _ in found])
        partial_BG = torch.cat([modes @ own for (_, modes), own in zip(found, self._modes_MG, strict=True)])
        return means_BR.index_select(0, back), partial_BG.index_select(0, back)

    def _means(self, variant: int, survive_BJ: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, A + C) sites and near pairs, and (B, M) coefficients of modes, per atom: of one variant."""
        sums_BR = survive_BJ @ self._tables_JR[variant]
        atoms_B1, means_BR, modes_BM = sums_BR.tensor_split(
            [1, 1 + len(self.kinds) + len(self.near_pair)], dim=1
        )
        per_atom_B1 = 1 / atoms_B1
        return means_BR * per_atom_B1, modes_BM * per_atom_B1


def _normal(x: torch.Tensor) -> torch.Tensor:
    """The normal distribution function Φ, with all its digits below 0: torch.special.ndtr is (1 + erf)/2."""
    return 0.5 * torch.erfc(x * -(0.5**0.5))
