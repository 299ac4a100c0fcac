"""How the molecules of a liquid are ordered: S_ab(Q) - 1 between atoms a, b of different molecules.

    H_ab(Q) = ρ ∫ 4πr² h_ab(r) sin(Qr)/(Qr) dr,   h = g - 1

`table`: h_ab of a molecular simulation (`benchmarks/simulate_liquids.py`), tapered to 0 over its last 15 %. A box of
fixed content has g a little below 1 far away; the constant that mends it is fixed by H_ab(0) = S(0) - 1 with
S(0) = ρ k_B T κ_T of the measured compressibility.

`hard_spheres`, for a liquid that has not been simulated: molecules are turned at random and their centres are those of
hard spheres in the Percus-Yevick approximation (M. S. Wertheim, Phys. Rev. Lett. 10, 321 (1963)), whose packing η
follows from S(0) = (1 - η)⁴/(1 + 2η)². Good for the place of the ring of round molecules, poor for its shape.

Symbols: q [Å⁻¹], r [Å], ρ molecules per Å³.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from hpc.liquids.liquid import Liquid
from hpc.liquids.molecule import conformers, with_hydrogens

__all__ = ["STRUCTURES", "ordering", "percus_yevick", "simulated"]

STRUCTURES = ("table", "hard_spheres")
_TAPER_FROM = 0.85


def ordering(liquid: Liquid, q: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Correlations between molecules.

    Args:
        liquid: the liquid.
        q: (q,) float64 [Å⁻¹], > 0.

    Returns:
        For each pair of elements a <= b, (q,) float64 H_ab: tends to S(0) - 1 at small q and to 0 at large q.

    Raises:
        ValueError: the liquid names no structure, or its table is missing or does not fit the molecule.
    """
    kind = liquid.structure.get("kind")
    if kind == "table":
        return simulated(liquid, q, _table(liquid.name))
    if kind == "hard_spheres":
        return _hard_spheres(liquid, q)
    raise ValueError(
        f"structure.kind of the liquid {liquid.name} must be one of {list(STRUCTURES)}, got {kind!r}"
    )


@lru_cache(maxsize=32)
def _table(name: str) -> Mapping[str, Any]:
    from importlib.resources import files

    import yaml

    path = files("conf") / "liquid" / "tables" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"the liquid {name} has no table of its structure, {path}; make one with "
            f"`python benchmarks/simulate_liquids.py {name}`, or set structure.kind to hard_spheres"
        )
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def simulated(liquid: Liquid, q: np.ndarray, table: Mapping[str, Any]) -> dict[tuple[str, str], np.ndarray]:
    """H_ab from the mapping of a table; arguments, result and errors as `ordering`."""
    width = float(table["bin_angstrom"])
    result = {}
    for a, b in itertools.combinations_with_replacement(sorted(liquid.composition), 2):
        if f"{a}-{b}" not in table["h"]:
            raise ValueError(
                f"the table of {liquid.name} lacks the pair {a}-{b}; make it again with "
                f"`python benchmarks/simulate_liquids.py {liquid.name}`"
            )
        h = np.asarray(table["h"][f"{a}-{b}"], dtype=np.float64)
        edge = width * np.arange(h.size + 1)
        r = (edge[1:] + edge[:-1]) / 2
        part = np.clip((r / edge[-1] - _TAPER_FROM) / (1 - _TAPER_FROM), 0, 1)
        taper = np.cos(np.pi / 2 * part) ** 2
        shell = liquid.number_density * 4 / 3 * np.pi * np.diff(edge**3)
        offset = (liquid.forward - 1 - shell @ (h * taper)) / (shell @ taper)
        weight = shell * (h + offset) * taper
        result[a, b] = np.sinc(np.outer(q, r) / np.pi) @ weight
    return result


def percus_yevick(q: np.ndarray, diameter: float, packing: float) -> np.ndarray:
    """Structure factor of hard spheres.

    Args:
        q: (q,) float64 [Å⁻¹], > 0.
        diameter: of the spheres [Å].
        packing: share of space that they fill, 0 < packing < 0.6.

    Returns:
        (q,) float64 S(q).
    """
    eta = packing
    alpha = (1 + 2 * eta) ** 2 / (1 - eta) ** 4
    beta = -6 * eta * (1 + eta / 2) ** 2 / (1 - eta) ** 4
    gamma = eta * alpha / 2
    x = q * diameter
    # Integrals of s^n sin(xs) over 0..1; the closed forms cancel badly below x = 0.5, where a fine sum is exact enough.
    s = (np.arange(400) + 0.5) / 400
    kernel = (alpha + beta * s + gamma * s**3) * s**2
    transform = np.sinc(np.outer(x, s) / np.pi) @ kernel / s.size
    return 1 / (1 + 24 * eta * transform)


def _hard_spheres(liquid: Liquid, q: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    from scipy.optimize import brentq

    packing = brentq(lambda eta: (1 - eta) ** 4 / (1 + 2 * eta) ** 2 - liquid.forward, 1e-6, 0.9)
    diameter = (6 * packing / np.pi / liquid.number_density) ** (1 / 3)
    centres = percus_yevick(q, diameter, packing) - 1
    skeleton, share = conformers(liquid, count=200)
    atoms, elements, _ = with_hydrogens(liquid, skeleton)
    heavy = atoms[:, : len(liquid.rows)].mean(axis=1, keepdims=True)
    distance = np.linalg.norm(atoms - heavy, axis=2)
    seen = {}
    for kind in sorted(liquid.composition):
        of_kind = distance[:, [e == kind for e in elements]]
        waves = np.sinc(q[:, None, None] * of_kind / np.pi).mean(axis=2)
        seen[kind] = waves @ share
    pairs = itertools.combinations_with_replacement(sorted(liquid.composition), 2)
    return {(a, b): seen[a] * seen[b] * centres for a, b in pairs}
