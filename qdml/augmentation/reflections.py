"""Reflections of a crystal, by direction: where oriented samples scatter more or less than random ones.

A dried film of dots is oriented: all reflections of one direction (111, 222, 333, ...) gain or lose by one factor, and
within a reflection the factor is the same. So ln(gain) is a sum over directions d,

    ln g(Q) = Σ_d t_d w_d(Q),   w_d(Q) = Σ_{hkl ∥ d} m_hkl exp[-(Q - Q_hkl)²/2b²] / the same sum over all d,

with multiplicities m and a blend b that is narrower than the reflections of the smallest dots: constant within a
reflection, and a smooth step from one to the next. Where many reflections overlap, at high Q, their factors average.

Symbols: Q [Å⁻¹], d direction.
"""

from __future__ import annotations

import math

import numpy as np

from hpc.structure.material import Material

__all__ = ["direction_weights"]


def direction_weights(material: Material, q: np.ndarray, *, blend: float) -> np.ndarray:
    """Tabulate w.

    Args:
        material: a cubic crystal.
        q: (q,) float64 [Å⁻¹].
        blend: b [Å⁻¹].

    Returns:
        (direction, q) float64; sums to 1 over the directions at every q.
    """
    import gemmi

    group = gemmi.find_spacegroup_by_name(material.space_group)
    operations, edge = group.operations(), material.cell_angstrom[0]
    # Reflections beyond both ends still take their share of the points near them.
    highest = math.ceil((q[-1] + 1.0) * edge / (2 * np.pi))
    log_weight: dict[tuple[int, ...], np.ndarray] = {}
    for h in range(1, highest + 1):
        for k in range(h + 1):
            for l in range(k + 1):
                n = h * h + k * k + l * l
                if n > highest**2 or operations.is_systematically_absent([h, k, l]):
                    continue
                multiplicity = len(
                    {
                        (sx * a, sy * b, sz * c)
                        for a, b, c in ((h, k, l), (h, l, k), (k, h, l), (k, l, h), (l, h, k), (l, k, h))
                        for sx in (1, -1)
                        for sy in (1, -1)
                        for sz in (1, -1)
                    }
                )
                divisor = math.gcd(h, k, l)
                direction = (h // divisor, k // divisor, l // divisor)
                position = 2 * np.pi * math.sqrt(n) / edge
                # Logarithms: far from every reflection each Gaussian alone is below the smallest number.
                term = math.log(multiplicity) - 0.5 * ((q - position) / blend) ** 2
                log_weight[direction] = np.logaddexp(
                    log_weight.get(direction, np.full(q.shape, -np.inf)), term
                )
    table = np.stack(list(log_weight.values()))
    return np.exp(table - np.logaddexp.reduce(table, axis=0))
