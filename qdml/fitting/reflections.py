"""Oriented samples: functions that multiply the Bragg part of a pattern, one for each group of reflections.

A dried film shows some reflections more and others less than random orientation does. Each group g of
reflections (of one direction, or single ones) gets a free factor on its share of the Bragg part (`hpc.texture`
defines this part),

    w_g(Q) = Σ_{h in g} L_h(Q) / Σ_h L_h(Q),   L_h = m_h |F_h|² / (Q_h² [(Q - Q_h)² + Γ²]),   Γ = 0.9 π / D_v

with multiplicity m and structure factor F of the crystal. L is about the powder line of a dot of diameter D_v:
the rings that surround a reflection of a sphere fall as 1/ΔQ² on average, so that tails of a strong reflection
reach below its neighbours. (A share that ends halfway between two reflections, as is enough for drawing random
gains in training, leaves steps of several per cent there.)

Symbols: q, Q [Å⁻¹], h reflection, m multiplicity, F structure factor of the cell [electrons], Γ half width [Å⁻¹].
"""

from __future__ import annotations

import math

import numpy as np

from hpc.form_factors import scattering_factor
from hpc.structure.material import Material, equivalent_positions
from hpc.texture import reflections
from qdml.fitting.settings import FitSettings

__all__ = ["texture_groups"]

# Reflections so far [Å⁻¹] beyond the last Q take their share of the points near it.
_BEYOND = 1.0
# A group has a gain of its own where it has this share of the Bragg scattering somewhere.
_SEEN = 0.3
# Of |F|² of the strongest reflection: weaker ones are none.
_ABSENT = 1e-6


def texture_groups(
    material: Material, q: np.ndarray, settings: FitSettings, *, energy_kev: float | None, log_size: float
) -> tuple[np.ndarray, list[str]]:
    """Shares of the groups, and the reflections they stand for.

    Args:
        material: the crystal.
        q: (q,) float64 [Å⁻¹].
        settings: `texture` and `texture_groups`.
        energy_kev: photon energy [keV]; None leaves f' and f'' out.
        log_size: ln D_v, D_v in Å.

    Returns:
        (q, group) float64, adding up to 1; labels such as "111", and "rest" for all groups beyond the first ones.
    """
    found = reflections(material, float(q[-1]) + _BEYOND)
    strength = found.multiplicity * _structure_factors(material, found.hkl, found.q, energy_kev) / found.q**2
    width = 0.9 * math.pi / math.exp(log_size)
    # Tails of 1/ΔQ² from all sides; a sphere's are cut off where rings of equal distance interfere.
    lines = strength / ((q[:, None] - found.q) ** 2 + width**2)
    if settings.texture == "direction":
        names = found.hkl // np.gcd.reduce(found.hkl, axis=1)[:, None]
    else:
        names = found.hkl
    distinct, first, group = np.unique(names, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    shares = np.stack([lines[:, group.ravel() == g].sum(axis=1) for g in order], axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    # Where many reflections overlap, and where only a tail is seen, groups cannot be told apart.
    named = np.flatnonzero(shares.max(axis=0) > _SEEN)[: settings.texture_groups]
    labels = ["".join(map(str, distinct[order[i]])) for i in named]
    rest = np.delete(shares, named, axis=1)
    if rest.shape[1]:
        return np.column_stack((shares[:, named], rest.sum(axis=1))), [*labels, "rest"]
    return shares[:, named], labels


def _structure_factors(
    material: Material, hkl: np.ndarray, q: np.ndarray, energy_kev: float | None
) -> np.ndarray:
    """(n,) float64: |F|² of one cell, damped by B; 0 for reflections that vanish."""
    total = np.zeros(len(hkl), dtype=complex)
    for kind, positions in zip(material.kinds, equivalent_positions(material), strict=True):
        f = scattering_factor(kind.element, q, energy_kev=energy_kev, anomalous=energy_kev is not None)
        damping = kind.occupancy * np.exp(-kind.b_iso * (q / (4 * np.pi)) ** 2)
        total += f * damping * np.exp(2j * np.pi * hkl @ positions.T).sum(axis=1)
    square = np.abs(total) ** 2
    return np.where(square > _ABSENT * square.max(), square, 0.0)
