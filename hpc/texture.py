"""Texture: what orientation does to a pattern, exactly where it can be said.

Random orientation averages |F|². A dried film is oriented: some reflections gain, others lose. Of the intensity

    I = <|F̄|²> + Σ_a x_a o_a |f_a|² (1 - o_a e^{-2 B_a s²})  [+ correlated motion, halo, Compton]

only the first term, the orientational average of the scattering |F̄|² of the mean structure (F̄ = Σ_i o_i f_i e^{-B_i s²}
e^{iQr_i}), depends on orientation: it is the *Bragg part*, never negative. The second is thermal diffuse scattering and
that of occupancy disorder, the same in every direction as long as atoms move independently. Correlated motion moves
diffuse scattering around but leaves F̄ alone, so it is no part of Bragg scattering; nor is a halo. Diffuse scattering of
real crystals depends on direction too; that is neglected.

    I' = I + (Σ_g (γ_g - 1) w_g(Q)) <|F̄|²>

multiplies the Bragg part by a gain γ_g for each group of reflections: those of one direction (111, 222, 333, ...: dots
that lie on a face favour all of them alike), or single reflections. Groups share Q smoothly,

    w_g(Q) = Σ_{hkl in g} m_hkl [1 + (Q - Q_hkl)²/b²]^{-2} / the same sum over all reflections and 000

with multiplicities m: far from a reflection |F̄|² of a body with a sharp surface falls as the fourth power, and b is
narrower than the reflections. The direct beam, 000, is no group: small angles do not change. Where many reflections
overlap, at high Q, their gains average.

A texture redistributes: over all directions of Q the gain of a reflection averages to 1, and one geometry sees one
direction. The gains of the groups of one film are therefore free: they need not average to anything.

Functions of arrays take NumPy, CuPy or torch and answer in kind (array API standard); torch differentiates them.

Symbols: q, Q [Å⁻¹], g group, a kind, x_a sites of a kind per atom, o occupancy, m multiplicity, b blend [Å⁻¹].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import array_api_compat
import numpy as np

from hpc.structure.material import Material

__all__ = [
    "Reflections",
    "bragg_part",
    "diffuse_terms",
    "group_labels",
    "reflection_groups",
    "reflections",
    "texture_gain",
]

Array = Any  # an array of any namespace that follows the array API standard
By = Literal["direction", "reflection"]

# Reflections this far [Å⁻¹] beyond the last Q take their share of the points near it.
_BEYOND = 1.0


class Reflections(NamedTuple):
    """Symmetry-distinct reflections of a crystal, by increasing Q."""

    hkl: np.ndarray
    """(n, 3) int64; of equivalent ones those with the fewest minus signs, of these the last in lexicographic order."""
    multiplicity: np.ndarray
    """(n,) int64: how many indices are equivalent, Friedel's opposite included."""
    q: np.ndarray
    """(n,) float64 [Å⁻¹]."""


def reflections(material: Material, q_max: float) -> Reflections:
    """All reflections of a crystal that its space group allows, up to q_max [Å⁻¹].

    Raises:
        ValueError: the space group is not known.
    """
    import gemmi

    from hpc.structure.crystal import cell_vectors
    from hpc.structure.material import equivalent_positions

    equivalent_positions(material)  # says what is wrong with a space group that is not known
    operations = gemmi.find_spacegroup_by_name(material.space_group).operations()
    cell = cell_vectors(material)
    # |h| <= a / d, since Q·a = 2πh; a plane of indices at a time would be less memory, this is a few MB.
    bound = (q_max * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    axes = [np.arange(-n, n + 1) for n in bound]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    q = 2 * np.pi * np.linalg.norm(hkl @ np.linalg.inv(cell).T, axis=1)
    hkl = hkl[(q <= q_max) & hkl.any(axis=1)]
    canonical = _canonical(hkl, operations)
    distinct, multiplicity = np.unique(canonical, axis=0, return_counts=True)
    present = np.array(
        [not operations.is_systematically_absent([int(i) for i in one]) for one in distinct], dtype=bool
    )
    distinct, multiplicity = distinct[present], multiplicity[present]
    q = 2 * np.pi * np.linalg.norm(distinct @ np.linalg.inv(cell).T, axis=1)
    order = np.lexsort((*distinct.T, np.round(q, 9)))
    return Reflections(hkl=distinct[order], multiplicity=multiplicity[order], q=q[order])


def _canonical(hkl: np.ndarray, operations: Any) -> np.ndarray:
    """(n, 3) int64: the index that stands for all that are equivalent to each, Friedel's opposites included."""
    # Rotations act on indices from the right; centring repeats them.
    matrices = {tuple(map(tuple, op.rot)) for op in operations.sym_ops}
    rotations = [np.array(m) // 24 for m in sorted(matrices)]
    width = 6 * int(np.abs(hkl).max(initial=0)) + 1
    best = hkl.copy()
    best_key = np.full(len(hkl), np.iinfo(np.int64).min)
    for rotation in rotations:
        for sign in (1, -1):
            image = sign * hkl @ rotation
            key = ((-(image < 0).sum(axis=1) * width + image[:, 0]) * width + image[:, 1]) * width + image[
                :, 2
            ]
            better = key > best_key
            best[better], best_key[better] = image[better], key[better]
    return best


def _grouped(material: Material, q_last: float, by: By) -> tuple[Reflections, np.ndarray, np.ndarray]:
    """The reflections, the (n,) group of each, and the (group, 3) indices that name the groups, in order of first Q."""
    import gemmi

    if by not in ("direction", "reflection"):
        raise ValueError(f"reflections are grouped by 'direction' or 'reflection', got {by!r}")
    found = reflections(material, q_last + _BEYOND)
    if by == "reflection":
        return found, np.arange(len(found.hkl)), found.hkl
    divisor = np.gcd.reduce(found.hkl, axis=1)
    operations = gemmi.find_spacegroup_by_name(material.space_group).operations()
    direction = _canonical(found.hkl // divisor[:, None], operations)
    distinct, first, inverse = np.unique(direction, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return found, rank[inverse.ravel()], distinct[order]


def _tail(x: np.ndarray) -> np.ndarray:
    """The form of a reflection of a body with a sharp surface: 1 at its position, x⁻⁴ far away."""
    return (1 + x**2) ** -2


def group_labels(material: Material, q_last: float, *, by: By = "direction") -> list[tuple[int, int, int]]:
    """The indices that name the groups of `reflection_groups`, in their order: (1, 1, 1), (1, 0, 0), ...

    Args:
        material: any crystal.
        q_last: last point of q [Å⁻¹].
        by: as for `reflection_groups`.

    Raises:
        ValueError: an unknown `by` or space group.
    """
    _, _, names = _grouped(material, q_last, by)
    return [(int(h), int(k), int(l)) for h, k, l in names]


def reflection_groups(
    material: Material, q: np.ndarray, *, by: By = "direction", blend: float = 0.05
) -> np.ndarray:
    """The share w of each group of reflections at every Q.

    Args:
        material: any crystal.
        q: (q,) float64 [Å⁻¹], increasing.
        by: "direction" puts 111, 222, 333, ... together, "reflection" does not.
        blend: b [Å⁻¹]; 0.05 is about half of the width of a reflection of a 5 nm dot.

    Returns:
        (group, q) float64, groups by increasing Q of their first reflection (`group_labels` names them). The sum over
        the groups is 1, less the share of 000 at small angles.

    Raises:
        ValueError: a blend that is not positive, an unknown `by`, or no reflection up to 1 Å⁻¹ beyond q.
    """
    if not (np.isfinite(blend) and blend > 0):
        raise ValueError(f"the blend of reflections must be > 0 1/Å, got {blend}")
    found, group, names = _grouped(material, float(q[-1]), by)
    if not len(names):
        raise ValueError(
            f"{material.name} has no reflection up to {q[-1] + _BEYOND:g} 1/Å; use a larger Q range"
        )
    share = np.zeros((len(names), len(q)))
    for position, multiplicity, g in zip(found.q, found.multiplicity, group, strict=True):
        share[g] += multiplicity * _tail((q - position) / blend)
    return share / (share.sum(axis=0) + _tail(q / blend))


def texture_gain(
    material: Material,
    q: np.ndarray,
    gains: Mapping[tuple[int, int, int], float],
    *,
    by: By = "direction",
    blend: float = 0.05,
    strain: float = 0.0,
) -> np.ndarray:
    """Σ_g (γ_g - 1) w_g(Q), from gains by indices; times the Bragg part it is what an oriented sample adds.

    Args:
        material: any crystal.
        q: (q,) float64 [Å⁻¹], increasing.
        gains: indices of a reflection or direction (any equivalent ones) -> gain >= 0; groups not named have 1.
        by: as for `reflection_groups`; by direction, 200 is 100.
        blend: b [Å⁻¹].
        strain: ε of the crystal.

    Returns:
        (q,) float64, >= -1.

    Raises:
        ValueError: a gain below 0, indices of no group up to the end of q, or two that name the same group.
    """
    import gemmi

    stretched = q * (1 + strain)
    labels = group_labels(material, float(stretched[-1]), by=by)
    operations = gemmi.find_spacegroup_by_name(material.space_group).operations()
    factor = np.ones(len(labels))
    named: dict[int, tuple[int, int, int]] = {}
    for hkl, gain in gains.items():
        if not (math.isfinite(gain) and gain >= 0):
            raise ValueError(f"texture: the gain of {_name(hkl)} must be >= 0, got {gain}")
        divisor = math.gcd(*hkl) if by == "direction" else 1
        index = np.array([hkl]) // max(1, divisor)
        h, k, l = (int(i) for i in _canonical(index, operations)[0])
        if (h, k, l) not in labels:
            some = ", ".join(_name(one) for one in labels[:8])
            raise ValueError(
                f"texture: {_name(hkl)} is no reflection of {material.name} ({material.space_group}) up to "
                f"{q[-1] + _BEYOND:.3g} 1/Å; there are {some}, ..."
            )
        group = labels.index((h, k, l))
        if group in named:
            raise ValueError(
                f"texture: {_name(named[group])} and {_name(hkl)} are one {by}; give one gain for both"
            )
        named[group], factor[group] = hkl, gain
    return (factor - 1) @ reflection_groups(material, stretched, by=by, blend=blend)


def _name(hkl: tuple[int, int, int]) -> str:
    """111, or 10,2,0 and 1,-1,0 where digits alone would not do."""
    separator = "" if all(0 <= i <= 9 for i in hkl) else ","
    return separator.join(str(i) for i in hkl)


def diffuse_terms(self_terms: Array, occupancy: Array, exponent: Array, b_scale: Array = 1.0) -> Array:
    """Scattering per site that has no direction: thermal diffuse scattering and that of occupancy disorder.

    Args:
        self_terms: (kind, q) float64, o_a |f_a|² without Compton scattering.
        occupancy: (kind,) float64.
        exponent: (kind, q) float64, 2 B_a s².
        b_scale: number, or (..., 1, 1) float64: factor on every B.

    Returns:
        (kind, q) or (..., kind, q) float64 [electron units]: o_a |f_a|² (1 - o_a e^{-2 B_a s²}).
    """
    xp = array_api_compat.array_namespace(self_terms)
    return self_terms * (1 - occupancy[:, None] * xp.exp(-b_scale * exponent))


def bragg_part(intensity: Array, shares: Array, diffuse: Array) -> Array:
    """The part of the intensity that orientation changes: the average of |F̄|² over orientations, >= 0.

    Args:
        intensity: (..., q) float64 [electron units per atom] of atoms that move independently: without correlated
            motion, halo and Compton scattering.
        shares: (..., kind) float64, x_a: sites of each kind per atom (of a whole particle: their numbers).
        diffuse: (kind, q) or (..., kind, q) float64, of `diffuse_terms`.

    Returns:
        (..., q) float64.
    """
    xp = array_api_compat.array_namespace(intensity)
    return intensity - xp.sum(shares[..., :, None] * diffuse, axis=-2)
