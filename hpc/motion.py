"""Correlated motion and the halo: how near neighbours of a real dot differ from a lattice of independent atoms.

Neighbours move together, so their relative displacement is smaller than their two B say, and a disordered shell around
the dot (ligands, reconstructed surface, bound solvent) adds a few broad near-neighbour distances:

    B_ij(r) = (B_i + B_j) (1 - c(r))

    ΔI(Q) = Σ_ab o_a o_b Re(f_a f_b*) Σ_n N_ab(r_n) sinc(Q r_n) [e^{-(1-c(r_n)) (B_a+B_b) s²} - e^{-(B_a+B_b) s²}]
    ΔI(Q) = N Σ_m A_m Σ_ab n_ab(m) o_a o_b Re(f_a f_b*) sinc(Q r_m) e^{-B_h s²}                              halo

with s = Q/4π and sinc x = sin x / x. N_ab(r_n) counts ordered pairs of a particle below the reach; n_ab(m) those per
atom of the endless crystal in its m-th shell. A_m is thus a fraction of the bulk's coordination per atom of the dot: a
dot whose surface carries such a shell has A ~ (atoms in it) / (atoms of the dot), so that it falls with size.

Laws of c(r). *Shells*: one value for each of the first shells of the crystal; flat near a shell, and a smooth step
from one to the next, the last down to 0 at the shell after it. *Smooth*: r_c/r, at most 1 and tapered to 0 over the
last fifth of the reach: what sound waves leave (`tail_weights`), and what measured PbS patterns ask for more than for
any free shells. *Tail* (fits alone): the first shell free, then ~ 1/r. All are smooth on the scale of 0.1 Å, as the
nodes of pair tables at real positions need (`hpc.pairs.moments`).

Correlation belongs to the diffuse scattering: the mean structure, hence what texture multiplies, does not change.

Functions of arrays take NumPy, CuPy or torch and answer in kind (array API standard); torch differentiates them.

Symbols: q [Å⁻¹], r [Å], B [Å²], s = q/4π, c correlation 0..1, n distance, m shell, a, b kinds.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from hpc.structure.crystal import REACH
from hpc.structure.variant import Motion
from hpc.transform import sinc

__all__ = [
    "correlation_at",
    "correlation_weights",
    "halo_terms",
    "near_damped",
    "near_table",
    "near_terms",
    "smooth_correlation",
    "table_weights",
    "tail_weights",
]

Array = Any  # an array of any namespace that follows the array API standard

# Laws of 1/r go to 0 over this last part of their reach.
_END = 0.2
# r_c/r meets 1 in a bend that nodes of pair tables resolve; off by 0.1 % of c where r = 1.3 r_c.
_BEND = 16
# No atoms are closer than this [Å]: 1/r may stay what it is there.
_LEAST_R = 0.1


def correlation_weights(r: Array, nodes: Array) -> Array:
    """The law of shells: c(r) = values @ weights, with one value for each shell.

    1 below the first shell; from one shell to the next a step of ninth degree, whose first four derivatives vanish at
    both.

    Args:
        r: (r,) float64 [Å].
        nodes: (n + 1,) float64 [Å], increasing: the distances of n shells, and where c becomes 0.

    Returns:
        (n, r) float64, 0 to 1; the sum over the shells is 1 up to the n-th.
    """
    xp = array_api_compat.array_namespace(r)
    length = nodes[1:] - nodes[:-1]
    u = xp.clip((r[None, :] - nodes[:-1, None]) / length[:, None], 0.0, 1.0)
    # Passed: 0 before the step from a shell to the next, 1 after it.
    passed = _step(u)
    return xp.concat([xp.ones_like(passed[:1, :]), passed[:-1, :]], axis=0) - passed


def _step(u: Array) -> Array:
    """From 0 at 0 to 1 at 1; four derivatives vanish at both."""
    return u**5 * (126 + u * (-420 + u * (540 + u * (-315 + u * 70))))


def _end(xp: Any, r: Array, reach: float) -> Array:
    """1, and down to 0 over the last part of the reach."""
    return _step(xp.clip((1 - r / reach) / _END, 0.0, 1.0))


def tail_weights(r: Array, first: float, second: float, *, reach: float) -> Array:
    """The law of a tail: c(r) = c_1 up to the first shell, then t r_1/r; values @ weights with the values (c_1, t).

    1/r is what sound waves leave: amplitudes of a wave of wave vector k have the mean square kT/(ρ v² k²), and
    ∫ d³k e^{ikr}/k² ~ 1/r. In Debye's model c(r) = Si(k_D r)/(k_D r), which is 1.2 Å/r for PbS beyond a few Å.

    Args:
        r: (r,) float64 [Å].
        first: distance of the first shell, r_1 [Å].
        second: of the second [Å]; between the two the laws pass into each other.
        reach: where c has become 0 [Å]: a smooth end takes its last fifth.

    Returns:
        (2, r) float64.
    """
    xp = array_api_compat.array_namespace(r)
    nodes = xp.asarray([first, second], dtype=r.dtype, device=array_api_compat.device(r))
    near = correlation_weights(r, nodes)[0, :]
    return xp.stack([near, (1 - near) * _end(xp, r, reach) * first / xp.where(r > 0, r, xp.ones_like(r))])


def smooth_correlation(r: Array, r_c: Array) -> Array:
    """The smooth law: r_c/r, at most 1, tapered to 0 over the last fifth of the reach.

    Args:
        r: (r,) float64 [Å]; no two atoms are closer than 0.1 Å.
        r_c: number, or (..., 1) float64 [Å]; 0 for no correlation.

    Returns:
        (r,) or (..., r) float64, 0 to 1.
    """
    xp = array_api_compat.array_namespace(r)
    y = r_c / xp.clip(r, _LEAST_R, None)
    # A smooth min(1, y) that neither overflows nor loses its derivative where y is small.
    at_most_1 = y * (1 + y**_BEND) ** (-1 / _BEND)
    return at_most_1 * _end(xp, r, REACH)


def correlation_at(motion: Motion, r: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Values of c at given distances, by the law that a variant asks for.

    Args:
        motion: the law.
        r: (r,) float64 [Å].
        nodes: (m,) float64 [Å], distances of at least one shell more than it has values.

    Returns:
        (r,) float64.
    """
    if motion.smooth:
        return smooth_correlation(r, motion.smooth)
    n = len(motion.correlation)
    return np.array(motion.correlation) @ correlation_weights(r, nodes[: n + 1]) if n else np.zeros(len(r))


def near_damped(
    pairs: Array,
    distance: Array,
    correlation: Array,
    q: Array,
    exponent: Array,
    *,
    b_scale: Array = 1.0,
    strain: Array = 0.0,
) -> Array:
    """What correlated motion adds to the damped partial sums, exactly.

    Args:
        pairs: (..., pair, n) float64, ordered pairs at each distance, of a particle or per atom.
        distance: (n,) float64 [Å], unstrained.
        correlation: (..., n) or (n,) float64, c at each distance.
        q: (q,) float64 [Å⁻¹].
        exponent: (pair, q) float64, `Coefficients.exponent`: (B_a+B_b) s².
        b_scale: number, or (..., 1) float64: factor on every B.
        strain: number, or (..., 1) float64: ε.

    Returns:
        (..., pair, q) float64: Σ_n N_ab(r_n) sinc(Q(1+ε) r_n) [e^{-(1-c) b (B_a+B_b) s²} - e^{-b (B_a+B_b) s²}].
    """
    xp = array_api_compat.array_namespace(pairs)
    waves = sinc(((1 + strain) * distance)[..., :, None] * q)  # (..., n, q)
    b = b_scale if isinstance(b_scale, float | int) else b_scale[..., None]
    damped = []
    for index in range(exponent.shape[0]):
        x = b * exponent[index][None, :]
        difference = xp.exp(-(1 - correlation[..., :, None]) * x) - xp.exp(-x)
        damped.append(xp.sum(pairs[..., index, :, None] * (waves * difference), axis=-2))
    return xp.stack(damped, axis=-2)


def near_terms(
    pairs: Array,
    distance: Array,
    correlation: Array,
    q: Array,
    *,
    undamped: Array,
    exponent: Array,
    b_scale: Array = 1.0,
    strain: Array = 0.0,
) -> Array:
    """What correlated motion adds to the intensity, exactly: `near_damped`, with its arguments, times form factors.

    Those are `undamped`, (pair, q) float64: `Coefficients.undamped`, o_a o_b Re(f_a f_b*).

    Returns:
        (..., q) float64 [electron units, per what the pairs are].
    """
    xp = array_api_compat.array_namespace(pairs)
    damped = near_damped(pairs, distance, correlation, q, exponent, b_scale=b_scale, strain=strain)
    return xp.sum(undamped * damped, axis=-2)


def table_weights(damping: Array, nodes: Array) -> Array:
    """Lagrange polynomials: a function of the damping y at any y, from its values at nodes.

    With y = b (1 - c), a factor b on every B and a correlation c, e^{-y (B_a+B_b) s²} is the sum of
    `table_weights(y, nodes)` times the values of `near_table` at these nodes.

    Args:
        damping: (...,) float64, y.
        nodes: (node,) float64, distinct; Chebyshev nodes of the range of y are best.

    Returns:
        (..., node) float64.
    """
    xp = array_api_compat.array_namespace(damping)
    columns = []
    for j in range(nodes.shape[0]):
        product = xp.ones_like(damping)
        for k in range(nodes.shape[0]):
            if k != j:
                product = product * ((damping - nodes[k]) / (nodes[j] - nodes[k]))
        columns.append(product)
    return xp.stack(columns, axis=-1)


def near_table(
    distance: Array, q: Array, nodes: Array, *, undamped: Array, exponent: Array, strain: float = 0.0
) -> Array:
    """The terms of one pair at each distance, at nodes of the damping y: correlated motion becomes a matrix product.

    ΔI = Σ N_ab(r_n) [w(b (1 - c_n)) - w(b)] T with w of `table_weights`. Twelve Chebyshev nodes over y = 0..1.5 leave
    4e-6 of a term where (B_a+B_b) s² <= 6.6 (2.6 Å² at 20 Å⁻¹), eight leave 1e-6 where it is <= 2.

    Args:
        distance: (n,) float64 [Å].
        q: (q,) float64 [Å⁻¹].
        nodes: (node,) float64, values of y.
        undamped: (pair, q) float64, `Coefficients.undamped`.
        exponent: (pair, q) float64, `Coefficients.exponent`.
        strain: ε.

    Returns:
        (pair, n, node, q) float64, T = o_a o_b Re(f_a f_b*) sinc(Q(1+ε) r_n) e^{-y (B_a+B_b) s²}.
    """
    xp = array_api_compat.array_namespace(q)
    waves = sinc((1 + strain) * distance[:, None] * q[None, :])
    damped = undamped[:, None, :] * xp.exp(-nodes[None, :, None] * exponent[:, None, :])
    return damped[:, None, :, :] * waves[None, :, None, :]


def halo_terms(distance: Array, neighbours: Array, q: Array, *, undamped: Array, b: float) -> Array:
    """What a disordered shell adds to the intensity per atom, for A = 1 in each shell of neighbours.

    Args:
        distance: (m,) float64 [Å], of `shells`.
        neighbours: (m, pair) float64, of `shells`.
        q: (q,) float64 [Å⁻¹].
        undamped: (pair, q) float64, `Coefficients.undamped` of the material's kinds.
        b: B_h [Å²], of the distances in the shell.

    Returns:
        (m, q) float64 [electron units per atom].
    """
    xp = array_api_compat.array_namespace(q)
    waves = sinc(distance[:, None] * q)
    return (neighbours @ undamped) * waves * xp.exp(-b * (q / (4 * np.pi)) ** 2)
