"""A store's partial sums of every particle -> a compressed basis, and how exact it is.

*Nodes.* X̄ needs S(ln D_k) for each particle k. Lagrange's polynomials through 12 nodes of ln D give it, S(ln D_k) =
Σ_j L_j(ln D_k) S(x_j), so that X̄ = Σ_j S(x_j) Σ_k L_j(ln D_k) ΔX_k: what enters is put on nodes once and for all. With
nodes s/2 apart, for the smallest s of the store, S is off by less than 3e-5, either way: 1e-6 in sums.

*Modes.* Sobol points fill the store's region of (D, σ). Their partial sums, times what form factors and the weakest
vibrations make of each point, over the peak of the pattern, are rows of a matrix, all pairs of kinds side by side; its
first singular vectors are the modes of a variant, as many as the tolerance asks for. (Modes that all variants share are
as many as those of all together, and a row would have to be made of all.)

*Error.* Other ensembles of the same region, by exact weights in float64 and through the float32 basis: the largest
difference of Σ_ab |C_ab ΔP_ab| at any point, as a fraction of the peak.

Symbols: k particle, J node, m ensemble, A kind, P pair of kinds, C near column, G point of q.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hpc.ensemble import OVERSAMPLING, Resampler, largest_sigma, number_weights
from hpc.scattering import coefficients
from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN
from hpc.structure.material import Kind, kind_pairs
from qdml.basis import DotBasis

if TYPE_CHECKING:
    from hpc.store import Store

__all__ = ["build_basis"]

# Distance of nodes over s, and how many of them interpolate.
_NODE_STEP, _NODE_POINTS = 0.5, 12
# Outside the mean sizes nodes spread out: what matters there are the dispersions that reach it within so many s.
_REACH = 5.0
# Ensembles of each variant that the modes are made of, and others that measure the error; powers of two.
_SAMPLES, _FRESH = 1024, 256
# Part of the tolerance that the modes may take; the rest is for nodes, float32, and ensembles between the Sobol points.
_MODES_PART = 0.5
# The first ensembles of each variant say how many modes it takes; those before them are as narrow as any.
_CHECKED, _NARROW = 256, 128


def build_basis(
    store: Store, q: np.ndarray, *, tolerance: float, device: torch.device, margin: float
) -> DotBasis:
    """Read the partial sums of every variant of a store and compress them.

    Args:
        store: a finished store of qd-simulate.
        q: (Q,) float64 [Å⁻¹], uniform, of the patterns that will be made: points of the store's grid.
        tolerance: error that may be made, as a fraction of a pattern's peak.
        device: where rows will be.
        margin: how far q of the crystal goes beyond what the store's strains need at both ends [Å⁻¹] (not below 0).

    Raises:
        ValueError: q is not the grid of the store, or its basis does not reach as far; the store has no dispersion;
            the tolerance is not met.
    """
    ranges = {name: (float(v.min()), float(v.max())) for name, v in store.parameters.items()}
    wide = store.parameters[SIGMA][store.parameters[SIGMA] > 0]
    if not wide.size:
        raise ValueError(f"{store.path} holds monodisperse dots alone; simulate with grid.sigma above 0")
    ranges[SIGMA] = float(wide.min()), float(wide.max())
    _check_grid(q, store)
    crystal_q, inside = _crystal_grid(q, margin, ranges[STRAIN])
    kinds, kind_of = _join_kinds(store)
    families = [
        _read_family(store, variant, kinds, kind_of[variant], crystal_q, q[-1])
        for variant in range(store.n_variants)
    ]
    largest_nm = min(float(family.diameter[-1]) for family in families)
    tail = float(store.attrs["config"]["grid"]["tail"])
    beam = {
        "energy_kev": store.attrs["energy_kev"],
        "anomalous": store.attrs["config"]["anomalous"],
        "particle": store.attrs.get("particle", "xray"),
        "wavelength": store.attrs.get("wavelength_angstrom"),
    }
    # (P·G,) what partial sums are worth in a pattern at the smallest B: the measure of their errors.
    worth = np.abs(coefficients(kinds, crystal_q, **beam).pair(ranges[B_SCALE][0])).ravel()
    columns = sorted({key for family in families for key in family.near})
    n_pairs = len(kind_pairs(len(kinds)))

    nodes = _nodes(
        ranges[DIAMETER],
        ranges[SIGMA][0],
        smallest=min(float(family.diameter[family.diameter > 0][0]) for family in families),
        largest=max(float(family.diameter[-1]) for family in families),
    )
    survive = _survival(nodes, *_draw(ranges, largest_nm, tail, _SAMPLES, seed=0))
    tensors = {
        "q": torch.from_numpy(crystal_q),
        "near_pair": torch.tensor([pair for pair, _ in columns], dtype=torch.int64),
        "near_distance": torch.tensor([r for _, r in columns], dtype=torch.float64),
        "nodes": _float32(nodes),
        "largest": _float32([np.log(family.diameter[-1]) for family in families]),
    }
    for variant, family in enumerate(families):
        entering = _collect(family.diameter, nodes)
        table = entering @ family.additive([kind.occupancy for kind in kinds], columns)
        sums = (entering @ family.partial) * worth
        per_atom = survive / (survive @ table[:, :1])
        peak = _peak(per_atom @ sums, n_pairs)
        modes = _modes(per_atom / peak, sums, n_pairs, _MODES_PART * tolerance)
        tensors[f"tables.{variant}"] = _float32(np.concatenate([table, sums @ modes.T], axis=1))
        tensors[f"modes.{variant}"] = _float32(modes / worth)
    content = {
        "kinds": [asdict(kind) for kind in kinds],
        "inside": [inside.start, inside.stop],
        "ranges": ranges,
        "largest_nm": largest_nm,
        "extent": max(family.extent for family in families) * (1 + max(0.0, ranges[STRAIN][1])),
        "error": np.nan,
        "attrs": store.attrs,
    }
    basis = DotBasis(tensors, content, device=device)
    fresh = _draw(ranges, largest_nm, tail, _FRESH, seed=1)
    error = max(_error(basis, v, family, worth, fresh, device) for v, family in enumerate(families))
    if error > tolerance:
        raise ValueError(
            f"the compressed basis of {store.path} is off by {error:.2g} of a pattern's peak, more than the tolerance "
            f"of {tolerance:.2g}; ask for a larger one"
        )
    return DotBasis(tensors, content | {"error": error}, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The particles of one variant, with the kinds and pairs of all."""

    diameter: np.ndarray
    """(k,) [nm]."""
    atoms: np.ndarray
    """(k, A)."""
    near: dict[tuple[int, float], np.ndarray]
    """(pair, distance) -> (k,) ordered pairs."""
    partial: np.ndarray
    """(k, P·G)."""
    extent: float
    """Largest distance [Å]."""

    def additive(self, occupancy: list[float], columns: list[tuple[int, float]]) -> np.ndarray:
        """(k, 1 + A + C) atoms, sites of each kind, near pairs of each column."""
        zero = np.zeros(len(self.diameter))
        near = [self.near.get(key, zero) for key in columns]
        return np.column_stack([self.atoms @ occupancy, self.atoms, *near])


def _float32(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


def _check_grid(q: np.ndarray, store: Store) -> None:
    """Refuse points where the patterns of the store are not."""
    nearest = np.abs(store.q[np.searchsorted(store.q[1:-1], q)] - q)
    step = store.q[1] - store.q[0]
    nearest = np.minimum(nearest, np.abs(nearest - step))
    if len(q) < 4 or nearest.max() > 1e-6 * step or abs(q[1] - q[0] - step) > 1e-6 * step:
        raise ValueError(
            f"the basis needs the grid of the patterns of {store.path}, {store.q[0]:g} to {store.q[-1]:g} Å⁻¹ in steps "
            f"of {step:g}, or a part of it; got {len(q)} points from {q[0]:g} to {q[-1]:g} Å⁻¹"
        )


def _crystal_grid(q: np.ndarray, margin: float, strain: tuple[float, float]) -> tuple[np.ndarray, slice]:
    """(G,) q of the crystal, and which of its points are those of the patterns."""
    step = (q[-1] - q[0]) / (len(q) - 1)
    below = min(int(np.ceil((margin - min(strain[0], 0.0) * q[0]) / step)), int(q[0] / step))
    above = int(np.floor((margin + max(strain[1], 0.0) * q[-1]) / step))
    return q[0] + step * np.arange(-below, len(q) + above), slice(below, below + len(q))


def _join_kinds(store: Store) -> tuple[tuple[Kind, ...], list[list[int]]]:
    """What scatters in any variant, and the numbers of each variant's kinds among these.

    Labels differ from variant to variant; what scatters is the same.
    """
    found: dict[tuple[str, float, float], Kind] = {}
    numbers = []
    for one in store.attrs["variants"]:
        keys = []
        for kind in (Kind(**described) for described in one["kinds"]):
            keys.append((kind.element, kind.occupancy, kind.b_iso))
            found.setdefault(keys[-1], kind)
        numbers.append([list(found).index(key) for key in keys])
    return tuple(found.values()), numbers


def _read_family(
    store: Store,
    variant: int,
    kinds: tuple[Kind, ...],
    kind_of: list[int],
    crystal_q: np.ndarray,
    last: float,
) -> _Family:
    basis = store.basis(variant)
    step = float(basis["q_fine"][1])
    try:
        resample = Resampler(crystal_q, step=step, n_fine=len(basis["q_fine"]))
    except ValueError:
        raise ValueError(
            f"the basis of {store.path} ends at {basis['q_fine'][-1]:.5g} Å⁻¹; patterns up to {last:.5g} Å⁻¹, with "
            f"strain and margin {crystal_q[-1]:.5g} Å⁻¹, need some points more. Simulate with a larger q.max, or ask "
            "for a smaller range"
        ) from None
    n, pairs = len(basis["diameter"]), kind_pairs(len(kinds))
    atoms = np.zeros((n, len(kinds)))
    np.add.at(atoms.T, kind_of, basis["n_atoms"].T)
    partial = np.zeros((n, len(pairs), len(crystal_q)))
    near: dict[tuple[int, float], np.ndarray] = {}
    # Two pairs of kinds of a variant may be one pair here.
    for index, (a, b) in enumerate(kind_pairs(len(kind_of))):
        pair = pairs.index((min(kind_of[a], kind_of[b]), max(kind_of[a], kind_of[b])))
        partial[:, pair] += resample(basis["partial"][index])
        for r, column in zip(basis["near_distance"], basis["near_pairs"][index].T, strict=True):
            if column.any():
                key = pair, round(float(r), 6)
                near[key] = near.get(key, 0.0) + column
    return _Family(
        diameter=basis["diameter"],
        atoms=atoms,
        near=near,
        partial=partial.reshape(n, -1),
        extent=np.pi / OVERSAMPLING / step,
    )


def _nodes(diameter: tuple[float, float], sigma: float, *, smallest: float, largest: float) -> np.ndarray:
    """(J,) increasing ln D, with half of the interpolating nodes beyond either end."""
    s = np.sqrt(np.log1p(sigma**2))
    low, high = np.log(diameter[0]) - _REACH * s, np.log(diameter[1]) + _REACH * s

    def step(x: float) -> float:
        return _NODE_STEP * (s + max(low - x, x - high, 0.0) / _REACH)

    nodes = [low]
    more = _NODE_POINTS // 2
    while len(nodes) <= more or nodes[more] > np.log(smallest):
        nodes.insert(0, nodes[0] - step(nodes[0]))
    while nodes[-more - 1] < np.log(largest):
        nodes.append(nodes[-1] + step(nodes[-1]))
    return np.array(nodes)


def _collect(diameter: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """(J, k): particles -> what enters, on the nodes.

    A site at diameter 0 is in every particle: S = 1, as at the first node, which no distribution reaches.
    """
    with np.errstate(divide="ignore"):
        x = np.maximum(np.log(diameter), nodes[0])
    first = np.clip(np.searchsorted(nodes, x) - _NODE_POINTS // 2, 0, len(nodes) - _NODE_POINTS)
    index = first[:, None] + np.arange(_NODE_POINTS)
    near = nodes[index]
    lagrange = np.ones_like(near)
    for j in range(_NODE_POINTS):
        for m in range(_NODE_POINTS):
            if m != j:
                lagrange[:, j] *= (x - near[:, m]) / (near[:, j] - near[:, m])
    table = np.zeros((len(nodes), len(x)))
    np.add.at(table.T, (np.arange(len(x))[:, None], index), lagrange)
    # ΔX_k = X_k - X_{k-1}
    table[:, :-1] -= table[:, 1:]
    return table


def _survival(nodes: np.ndarray, diameter: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """(m, J) S at the nodes."""
    from scipy.special import ndtr

    s2 = np.log1p(sigma**2)[:, None]
    return np.asarray(ndtr((np.log(diameter)[:, None] - s2 / 2 - nodes) / np.sqrt(s2)))


def _draw(
    ranges: dict[str, tuple[float, float]], largest: float, tail: float, n: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) D [nm] and σ that fill the store's region, as far as its largest dots allow; even in their logarithms."""
    from scipy.stats import qmc

    unit = qmc.Sobol(d=2, scramble=True, rng=np.random.default_rng(seed)).random(n)
    # Hardest are the narrow ones and the corners. (A run of Sobol points is even, every fourth of them is not.)
    unit[:_NARROW, 1] = 0
    unit[_NARROW : _NARROW + 4] = [[0, 0], [0, 1], [1, 0], [1, 1]]
    low, high = np.log([ranges[name] for name in (DIAMETER, SIGMA)]).T
    diameter, sigma = np.exp(low + unit * (high - low)).T
    room = diameter < largest
    diameter, sigma = diameter[room], sigma[room]
    # At least the narrowest everywhere: a cartesian grid counts its own (D, σ) alone.
    most = np.maximum(largest_sigma(diameter, largest, tail=tail), ranges[SIGMA][0])
    return diameter, np.minimum(sigma, most)


def _peak(patterns: np.ndarray, n_pairs: int) -> np.ndarray:
    """(m, 1) highest point of the sum over the pairs of kinds."""
    return np.abs(patterns.reshape(len(patterns), n_pairs, -1).sum(axis=1)).max(axis=1, keepdims=True)


def _difference(patterns: np.ndarray, n_pairs: int) -> np.ndarray:
    """(m,) largest error at a point, whatever signs the pairs of kinds have."""
    return np.abs(patterns).reshape(len(patterns), n_pairs, -1).sum(axis=1).max(axis=1)


def _modes(weights: np.ndarray, sums: np.ndarray, n_pairs: int, tolerance: float) -> np.ndarray:
    """(M, P·G) orthonormal functions that give the rows of weights @ sums, but for the tolerance.

    Args:
        weights: (m, J) of ensembles.
        sums: (J, P·G) of nodes.
        n_pairs: P.
        tolerance: of a row.
    """
    # A product has the right singular vectors of (R of the first's QR) times the second.
    functions = np.linalg.svd(np.linalg.qr(weights, mode="r") @ sums, full_matrices=False)[2]
    rows = weights[:_CHECKED] @ sums
    amounts = rows @ functions.T
    low, high = 0, len(functions)
    while high - low > 1:
        middle = (low + high) // 2
        off = rows - amounts[:, :middle] @ functions[:middle]
        low, high = (low, middle) if _difference(off, n_pairs).max() < tolerance else (middle, high)
    return functions[:high]


def _error(
    basis: DotBasis,
    variant: int,
    family: _Family,
    worth: np.ndarray,
    sizes: tuple[np.ndarray, np.ndarray],
    device: torch.device,
) -> float:
    """Largest error of ensembles of a variant, as a fraction of the peak."""
    diameter, sigma = sizes
    weights = number_weights(family.diameter, diameter, sigma)
    weights /= (weights @ (family.atoms @ [kind.occupancy for kind in basis.kinds]))[:, None]
    exact = weights @ family.partial * worth
    got = basis.average(
        torch.full((len(sigma),), variant, device=device),
        _float32(np.log(diameter) + 3 * np.log1p(sigma**2)).to(device),
        _float32(sigma).to(device),
    )
    off = got.partial.flatten(1).double().cpu().numpy() * worth - exact
    n_pairs = len(basis.pairs)
    return float((_difference(off, n_pairs) / _peak(exact, n_pairs)[:, 0]).max())
