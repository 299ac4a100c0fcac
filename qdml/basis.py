"""The dots of a store of every size, in few modes, on a device: what patterns are made of, without end.

The mean of anything additive, X (partial sums of pairs, sites, near pairs), over a lognormal number distribution, per
atom, is an exact sum over the particles k of a family (`hpc.ensemble`), or over what enters at each diameter D_k:

    X̄/N̄ = Σ_k w_k X_k / Σ_k w_k N_k,   Σ_k w_k X_k = Σ_k S(D_k) ΔX_k,   S(x) = Φ((μ - ln x)/s)
    s² = ln(1 + σ²),   μ = ln D_v - 7s²/2,   D_v = D (1 + σ²)³

S is smooth on the scale of s, so that what enters is collected at *nodes* of ln D (Lagrange interpolation of S, fine
enough for the smallest σ), some 300 instead of thousands. Means of partial sums over all (D, σ) of the store span few
functions of q: an SVD finds these *modes* for all variants and pairs of kinds together, and the nodes are projected on
them. A batch is then two matrix products, in float32: survival functions times tables, coefficients times modes. All
terms of the first have one sign where the pattern is large, so that no digits cancel; they need true float32, not TF32.

q is that of the unstrained crystal: dots of strain ε show at Q what the basis has at Q(1+ε).

Rows of a batch may be of different variants; each variant's table multiplies all rows, and a row keeps its own: that
needs no look at the batch from the host, and costs little beside the second product.

Symbols: B row of a batch, V variant, J node, M mode, A kind, P pair of kinds, C near column, G point of q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpc.ensemble import OVERSAMPLING, Resampler, largest_diameter, number_weights
from hpc.scattering import coefficients
from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN
from hpc.structure.material import Kind, kind_pairs

if TYPE_CHECKING:
    from hpc.store import Store

__all__ = ["Averages", "DotBasis"]

# Distance of nodes over s, and how many of them interpolate: S is then off by less than 2e-5 of 1.
_NODE_STEP, _NODE_POINTS = 0.45, 12
# Beyond the mean sizes of the store nodes spread out: only dispersions that reach there by so many s matter there.
_REACH = 5.0
# Ensembles of which the modes are made, and others that measure their error, for each variant; powers of two.
_SAMPLES, _FRESH = 1024, 256
# Part of the tolerance that the modes may take; the rest is for nodes and float32.
_MODES_PART = 0.5


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
    """Largest error of fresh ensembles, beside exact sums in float64, as a fraction of the pattern's peak."""

    def __init__(
        self, store: Store, q: np.ndarray, *, tolerance: float, device: torch.device, margin: float
    ) -> None:
        """Read the basis of every variant and compress it.

        Args:
            store: a finished store of qd-simulate.
            q: (Q,) float64 [Å⁻¹], uniform, of the patterns that will be made.
            tolerance: error that the compression may make, as a fraction of a pattern's peak.
            device: where rows will be.
            margin: how far the crystal's grid goes beyond both ends at the store's strains [Å⁻¹] (not below 0).

        Raises:
            ValueError: q is not uniform, or the basis of the store does not reach as far; the store has no dispersion;
                the tolerance is not met.
        """
        self._device = device
        self.attrs: dict[str, Any] = store.attrs
        self.ranges = {name: (float(v.min()), float(v.max())) for name, v in store.parameters.items()}
        sigma = store.parameters[SIGMA]
        if not (sigma > 0).any():
            raise ValueError(f"{store.path} holds monodisperse dots alone; simulate with grid.sigma above 0")
        self.ranges[SIGMA] = float(sigma[sigma > 0].min()), float(sigma.max())
        self.q, self.inside = self._crystal_grid(q, margin)
        described = [[Kind(**kind) for kind in one["kinds"]] for one in store.attrs["variants"]]
        found: dict[tuple[str, float, float], Kind] = {}
        # Labels differ from variant to variant; what scatters is the same.
        for kind in (kind for kinds in described for kind in kinds):
            found.setdefault(_key(kind), kind)
        self.kinds, number = tuple(found.values()), {key: index for index, key in enumerate(found)}
        self.pairs = kind_pairs(len(self.kinds))
        self._occupancy = np.array([kind.occupancy for kind in self.kinds])

        families = []
        for variant, kinds in enumerate(described):
            kind_of = [number[_key(kind)] for kind in kinds]
            families.append(self._family(store, variant, kind_of))
        self._join_near(families)
        self.largest_nm = min(float(family.diameter[-1]) for family in families)
        self.extent = max(family.extent for family in families) * (1 + max(0.0, self.ranges[STRAIN][1]))
        self._largest_V = self._tensor([np.log(family.diameter[-1]) for family in families])
        self._compress(families, store, tolerance)

    def to_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What a file must hold to have the same basis without the store: tensors, and JSON data."""
        tensors = {
            "q": torch.as_tensor(self.q),
            "near_pair": torch.as_tensor(self.near_pair),
            "near_distance": torch.as_tensor(self.near_distance),
            "modes": self._modes,
            "nodes": self._nodes_J,
            "largest": self._largest_V,
        } | {f"table.{variant}": table for variant, table in enumerate(self._tables)}
        content = {
            "kinds": [asdict(kind) for kind in self.kinds],
            "inside": [self.inside.start, self.inside.stop],
            "ranges": self.ranges,
            "largest_nm": self.largest_nm,
            "extent": self.extent,
            "error": self.error,
            "attrs": self.attrs,
        }
        return tensors, content

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any], *, device: torch.device
    ) -> DotBasis:
        """The basis of `to_tensors`, with the same answers."""
        basis = cls.__new__(cls)
        basis._device, basis.attrs = device, dict(content["attrs"])
        basis.q, basis.inside = tensors["q"].numpy(), slice(*content["inside"])
        basis.near_pair, basis.near_distance = tensors["near_pair"].numpy(), tensors["near_distance"].numpy()
        basis.ranges = {name: (float(low), float(high)) for name, (low, high) in content["ranges"].items()}
        basis.largest_nm, basis.extent = float(content["largest_nm"]), float(content["extent"])
        basis.error = float(content["error"])
        basis.kinds = tuple(Kind(**kind) for kind in content["kinds"])
        basis.pairs = kind_pairs(len(basis.kinds))
        n_variants = sum(name.startswith("table.") for name in tensors)
        basis._tables = [tensors[f"table.{variant}"].to(device) for variant in range(n_variants)]
        basis._modes, basis._nodes_J, basis._largest_V = (
            tensors[name].to(device) for name in ("modes", "nodes", "largest")
        )
        basis._columns = [1, len(basis.kinds), len(basis.near_pair), len(basis._modes)]
        return basis

    @property
    def step(self) -> float:
        """Spacing of q [Å⁻¹]."""
        return float(self.q[1] - self.q[0])

    @property
    def n_modes(self) -> int:
        """How many functions of q all patterns are sums of."""
        return len(self._modes)

    @property
    def tail(self) -> float:
        """Fraction of an ensemble's atoms that the store allows beyond its largest dot."""
        return float(self.attrs["config"]["grid"]["tail"])

    def average(
        self, variant_B: torch.Tensor, log_volume_diameter_B: torch.Tensor, sigma_B: torch.Tensor
    ) -> Averages:
        """Means over lognormal distributions.

        Args:
            variant_B: (B,) int64.
            log_volume_diameter_B: (B,) float32, ln(D_v/nm).
            sigma_B: (B,) float32.
        """
        s2_B = torch.log1p(sigma_B**2)
        s_B = torch.sqrt(s2_B)
        mean_B = log_volume_diameter_B - 3.5 * s2_B
        survive_BJ = torch.special.ndtr((mean_B[:, None] - self._nodes_J) / s_B[:, None])
        sums_BR = survive_BJ @ self._tables[0]
        for variant, table_JR in enumerate(self._tables[1:], start=1):
            sums_BR = torch.where((variant_B == variant)[:, None], survive_BJ @ table_JR, sums_BR)
        atoms_B1, shares, near, modes = torch.split(sums_BR / sums_BR[:, :1], self._columns, dim=1)
        del atoms_B1
        largest_B = self._largest_V[variant_B]
        return Averages(
            partial=(modes @ self._modes).unflatten(1, (len(self.pairs), len(self.q))),
            shares=shares,
            near=near,
            # Atoms are lognormal too, with μ + 3s².
            beyond=torch.special.ndtr((mean_B + 3 * s2_B - largest_B) / s_B),
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._device)

    def _crystal_grid(self, q: np.ndarray, margin: float) -> tuple[np.ndarray, slice]:
        """q of the crystal, and which of its points are those of the patterns."""
        q = np.asarray(q, dtype=np.float64)
        if len(q) < 4 or not np.allclose(np.diff(q), q[1] - q[0], rtol=1e-6, atol=0):
            raise ValueError("a basis needs a uniform q of at least 4 points")
        step = (q[-1] - q[0]) / (len(q) - 1)
        low, high = self.ranges[STRAIN]
        below = min(int(np.ceil((margin - min(low, 0.0) * q[0]) / step)), int(q[0] / step))
        above = int(np.floor((margin + max(high, 0.0) * q[-1]) / step))
        return q[0] + step * np.arange(-below, len(q) + above), slice(below, below + len(q))

    def _family(self, store: Store, variant: int, kind_of: list[int]) -> _Family:
        """Of one variant, with the kinds of all."""
        basis = store.basis(variant)
        step, n_fine = float(basis["q_fine"][1]), len(basis["q_fine"])
        try:
            resample = Resampler(self.q, step=step, n_fine=n_fine)
        except ValueError:
            raise ValueError(
                f"the basis of {store.path} ends at {basis['q_fine'][-1]:.4g} Å⁻¹, patterns up to "
                f"{self.q[self.inside][-1]:.4g} Å⁻¹ with their strain and margin need {self.q[-1]:.4g} Å⁻¹ and "
                "some points more; simulate with a larger q.max, or ask for a smaller range"
            ) from None
        n = len(basis["diameter"])
        atoms = np.zeros((n, len(self.kinds)))
        for kind, column in zip(kind_of, basis["n_atoms"].T, strict=True):
            atoms[:, kind] += column
        index = {pair: i for i, pair in enumerate(self.pairs)}
        partial = np.zeros((n, len(self.pairs), len(self.q)))
        near: dict[tuple[int, float], np.ndarray] = {}
        for i, (a, b) in enumerate(kind_pairs(len(kind_of))):
            pair = index[min(kind_of[a], kind_of[b]), max(kind_of[a], kind_of[b])]
            partial[:, pair] += resample(basis["partial"][i])
            for r, column in zip(basis["near_distance"], basis["near_pairs"][i].T, strict=True):
                if column.any():
                    key = pair, round(float(r), 6)
                    near[key] = near.get(key, 0) + column
        return _Family(
            diameter=basis["diameter"],
            atoms=atoms,
            near=near,
            partial=partial.reshape(n, -1),
            extent=np.pi / OVERSAMPLING / step,
        )

    def _join_near(self, families: list[_Family]) -> None:
        """One list of columns for all variants."""
        columns = sorted({key for family in families for key in family.near})
        self.near_pair = np.array([pair for pair, _ in columns], dtype=np.int64)
        self.near_distance = np.array([r for _, r in columns])
        self._near_keys = columns

    def _compress(self, families: list[_Family], store: Store, tolerance: float) -> None:
        """Nodes, modes and tables; measures what they leave."""
        largest = max(family.diameter[-1] for family in families)
        smallest = min(family.diameter[family.diameter > 0][0] for family in families)
        nodes = _nodes(self.ranges[DIAMETER], self.ranges[SIGMA][0], (smallest, largest))
        scale_G = self._scale()
        samples = _draw(self.ranges, self.largest_nm, self.tail, _SAMPLES, seed=0)
        collected, spans = [], []
        for family in families:
            entering = _collect(family.diameter, nodes)  # (J, k)
            columns = [family.atoms @ self._occupancy[:, None], family.atoms, *self._near_of(family)]
            additive = np.concatenate(columns, axis=1)
            rest, sums = entering @ additive, (entering @ family.partial) * scale_G
            collected.append((rest, sums))
            weights = _survival(nodes, *samples)
            means = (weights / (weights @ rest[:, :1])) @ sums
            means /= _peak(means, len(self.pairs))
            spans.append(means)
        modes = _modes(spans, len(self.pairs), _MODES_PART * tolerance)
        self._nodes_J = self._tensor(nodes)
        self._tables = [
            self._tensor(np.concatenate([rest, sums @ modes.T], axis=1)) for rest, sums in collected
        ]
        self._columns = [1, len(self.kinds), len(self.near_pair), len(modes)]
        self._modes = self._tensor(modes / scale_G)
        self.error = max(self._error_of(variant, family, scale_G) for variant, family in enumerate(families))
        if self.error > tolerance:
            raise ValueError(
                f"the compressed basis of {store.path} is off by {self.error:.2g} of a pattern's peak, more than the "
                f"tolerance of {tolerance:.2g}; ask for a larger one"
            )

    def _near_of(self, family: _Family) -> list[np.ndarray]:
        zero = np.zeros(len(family.diameter))
        return [family.near.get(key, zero)[:, None] for key in self._near_keys]

    def _scale(self) -> np.ndarray:
        """(P·G,) what partial sums contribute to a pattern at the smallest B: the measure of their errors."""
        terms = coefficients(self.kinds, self.q, **_beam(self.attrs))
        return np.abs(terms.pair(self.ranges[B_SCALE][0])).ravel()

    def _error_of(self, variant: int, family: _Family, scale_G: np.ndarray) -> float:
        """Largest error of fresh ensembles, as a fraction of the peak."""
        diameter, sigma = _draw(self.ranges, self.largest_nm, self.tail, _FRESH, seed=1)
        weights = number_weights(family.diameter, diameter, sigma)
        weights /= (weights @ (family.atoms @ self._occupancy))[:, None]
        exact = weights @ family.partial * scale_G
        got = self.average(
            torch.full((len(sigma),), variant, device=self._device),
            self._tensor(np.log(diameter) + 3 * np.log1p(sigma**2)),
            self._tensor(sigma),
        )
        off = got.partial.flatten(1).double().cpu().numpy() * scale_G - exact
        shape = (len(sigma), len(self.pairs), len(self.q))
        return float(
            (np.abs(off.reshape(shape).sum(axis=1)).max(axis=1) / _peak(exact, shape[1])[:, 0]).max()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The particles of one variant."""

    diameter: np.ndarray
    """(k,) [nm]."""
    atoms: np.ndarray
    """(k, A)."""
    near: dict[tuple[int, float], np.ndarray]
    """(pair, distance) -> (k,) ordered pairs."""
    partial: np.ndarray
    """(k, P·G)."""
    extent: float


def _key(kind: Kind) -> tuple[str, float, float]:
    return kind.element, kind.occupancy, kind.b_iso


def _beam(attrs: dict[str, Any]) -> dict[str, Any]:
    """What scattering factors depend on, of a store."""
    return {
        "energy_kev": attrs["energy_kev"],
        "anomalous": attrs["config"]["anomalous"],
        "particle": attrs.get("particle", "xray"),
        "wavelength": attrs.get("wavelength_angstrom"),
    }


def _nodes(diameter: tuple[float, float], sigma: float, ends: tuple[float, float]) -> np.ndarray:
    """(J,) increasing ln D, with `_NODE_POINTS`/2 beyond either end.

    Their distance is a fraction of the smallest s; outside the mean sizes, of the s that reaches there.
    """
    s = np.sqrt(np.log1p(sigma**2))
    low, high = np.log(diameter[0]) - _REACH * s, np.log(diameter[1]) + _REACH * s

    def step(x: float) -> float:
        return _NODE_STEP * (s + max(low - x, x - high, 0.0) / _REACH)

    beyond = _NODE_POINTS // 2
    nodes = [low]
    while nodes[0] > np.log(ends[0]):
        nodes.insert(0, nodes[0] - step(nodes[0]))
    while nodes[-1] < np.log(ends[1]):
        nodes.append(nodes[-1] + step(nodes[-1]))
    for _ in range(beyond):
        nodes.insert(0, nodes[0] - step(nodes[0]))
        nodes.append(nodes[-1] + step(nodes[-1]))
    return np.array(nodes)


def _collect(diameter: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(J, k): particles k -> what enters, put on the nodes such that S at the nodes gives the sum over all of it.

    A site at diameter 0 is in every particle: S = 1, as at the first node, which no distribution reaches.
    """
    with np.errstate(divide="ignore"):
        x = np.maximum(np.log(diameter), nodes[0])
    first = np.clip(np.searchsorted(nodes, x) - _NODE_POINTS // 2, 0, len(nodes) - _NODE_POINTS)
    index = first[:, None] + np.arange(_NODE_POINTS)
    near = nodes[index]
    weights = np.ones_like(near)
    for j in range(_NODE_POINTS):
        for m in range(_NODE_POINTS):
            if m != j:
                weights[:, j] *= (x - near[:, m]) / (near[:, j] - near[:, m])
    table = np.zeros((len(nodes), len(x)))
    np.add.at(table.T, (np.arange(len(x))[:, None], index), weights)
    # ΔX_k = X_k - X_{k-1}
    table[:, :-1] -= table[:, 1:]
    return table


def _survival(nodes: np.ndarray, diameter: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """(m, J) float64 S at the nodes."""
    from scipy.special import ndtr

    s2 = np.log1p(sigma**2)[:, None]
    return ndtr((np.log(diameter)[:, None] - s2 / 2 - nodes) / np.sqrt(s2))


def _draw(
    ranges: dict[str, tuple[float, float]], largest: float, tail: float, n: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) D [nm] and σ that fill the store's region, as far as the largest dot allows."""
    from scipy.stats import qmc

    low, high = np.log([ranges[name] for name in (DIAMETER, SIGMA)]).T
    unit = qmc.Sobol(d=2, scramble=True, rng=np.random.default_rng(seed)).random(n)
    diameter, sigma = np.exp(low + unit * (high - low)).T
    kept = [
        largest_diameter(d, s, tail=tail) <= largest * (1 + 1e-9)
        for d, s in zip(diameter, sigma, strict=True)
    ]
    return diameter[kept], sigma[kept]


def _peak(means: np.ndarray, n_pairs: int) -> np.ndarray:
    """(m, 1) highest point of the coherent patterns."""
    return np.abs(means.reshape(len(means), n_pairs, -1).sum(axis=1)).max(axis=1, keepdims=True)


def _modes(spans: list[np.ndarray], n_pairs: int, tolerance: float) -> np.ndarray:
    """(M, P·G) orthonormal functions whose sums are the given rows, but for the tolerance."""
    parts = []
    for span in spans:
        _, values, functions = np.linalg.svd(span, full_matrices=False)
        kept = values > 1e-2 * tolerance * values[0]
        parts.append(values[kept, None] * functions[kept])
    functions = np.linalg.svd(np.concatenate(parts), full_matrices=False)[2]
    rows = np.concatenate(spans)
    amounts = rows @ functions.T

    def error(n: int) -> float:
        off = rows - amounts[:, :n] @ functions[:n]
        return float(np.abs(off.reshape(len(rows), n_pairs, -1).sum(axis=1)).max())

    low, high = 0, len(functions)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) < tolerance else (middle, high)
    return functions[:high]
