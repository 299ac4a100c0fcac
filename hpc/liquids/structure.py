"""How the molecules of a liquid are ordered: S_ab(Q) - 1 between atoms a, b of different molecules.

    H_ab(Q) = ρ ∫ 4πr² h_ab(r) sin(Qr)/(Qr) dr,   h = g - 1

`table`: h_ab of a molecular simulation (`benchmarks/simulate_liquids.py`), which ends at half the box. Beyond, and over
the last part of the table where noise is large (`asymptote_from`), h_ab follows its asymptote, with one k and ξ for all
pairs (R. Evans, R. J. F. Leote de Carvalho, J. R. Henderson & D. C. Hoyle, J. Chem. Phys. 100, 591 (1994)):

    1 + h_ab + p_ab = (1 + c_ab) + [A_ab cos kr + B_ab sin kr] exp(-r/ξ)/r

p_ab, the atoms of the same molecule in the same units, fills the hole that a chain makes in the others. c_ab is what
fixed content and chance do to g far away, and is divided out. What an integral over r cannot know, the limit
H_ab(0) = S(0) - 1 with S(0) = ρ k_B T κ_T of the measured compressibility, is mended by a Gaussian of Q of standard
deviation 0.2 Å⁻¹.

`hard_spheres`, for a liquid that has not been simulated: molecules are turned at random and their centres are those of
hard spheres in the Percus-Yevick approximation (M. S. Wertheim, Phys. Rev. Lett. 10, 321 (1963)), whose packing η
follows from S(0) = (1 - η)⁴/(1 + 2η)². Good for the place of the ring of round molecules, poor for its shape.

Symbols: q [Å⁻¹], r [Å], ρ molecules per Å³.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hpc.liquids.liquid import Liquid
from hpc.liquids.molecule import Distances, conformers, with_hydrogens

__all__ = ["STRUCTURES", "continued", "load_table", "ordering", "percus_yevick", "simulated"]

STRUCTURES = ("table", "hard_spheres")
_WAVE_NUMBERS = np.arange(0.8, 3.2, 0.02)
_DECAYS = np.array([1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])
_REACH = 50.0
_MENDED_BELOW = 0.2


def ordering(
    liquid: Liquid, q: np.ndarray, molecule: Sequence[Distances]
) -> dict[tuple[str, str], np.ndarray]:
    """Correlations between molecules.

    Args:
        liquid: the liquid.
        q: (q,) float64 [Å⁻¹], > 0.
        molecule: its `distances`.

    Returns:
        For each pair of elements a <= b, (q,) float64 H_ab: tends to S(0) - 1 at small q and to 0 at large q.

    Raises:
        ValueError: the liquid names no structure, or its table is missing or does not fit the molecule.
    """
    kind = liquid.structure.get("kind")
    if kind == "table":
        return simulated(liquid, q, molecule, load_table(liquid.name))
    if kind == "hard_spheres":
        return _hard_spheres(liquid, q)
    raise ValueError(
        f"structure.kind of the liquid {liquid.name} must be one of {list(STRUCTURES)}, got {kind!r}"
    )


@lru_cache(maxsize=32)
def load_table(name: str) -> Mapping[str, Any]:
    """The mapping of `conf/liquid/tables/<name>.yaml`.

    Raises:
        ValueError: there is no such table.
    """
    from importlib.resources import files

    import yaml

    path = files("conf") / "liquid" / "tables" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"there is no table of the structure of {name}, {path}; make it with a script of benchmarks/ "
            "(simulate_liquids.py), or set structure.kind of a liquid to hard_spheres"
        )
    return yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def simulated(
    liquid: Liquid, q: np.ndarray, molecule: Sequence[Distances], table: Mapping[str, Any]
) -> dict[tuple[str, str], np.ndarray]:
    """H_ab from the mapping of a table; arguments, result and errors as `ordering`."""
    width = float(table["bin_angstrom"])
    h = {}
    for a, b in itertools.combinations_with_replacement(sorted(liquid.composition), 2):
        if f"{a}-{b}" not in table["h"]:
            raise ValueError(
                f"the table of {liquid.name} lacks the pair {a}-{b}; make it again with "
                f"`python benchmarks/simulate_liquids.py {liquid.name}`"
            )
        h[a, b] = np.asarray(table["h"][f"{a}-{b}"], dtype=np.float64)
    edge = width * np.arange(int(_REACH / width) + 1)
    shell = liquid.number_density * 4 / 3 * np.pi * np.diff(edge**3)
    own = {}
    for part in molecule:
        a, b = part.elements
        pairs = liquid.composition[a] * liquid.composition[b] * (1 if a == b else 2)
        own[a, b] = np.histogram(part.r, edge, weights=part.weight)[0] / shell / pairs
    limit = dict.fromkeys(h, liquid.forward - 1)
    if "asymptote_from" not in liquid.structure:
        raise ValueError(
            f"structure of the liquid {liquid.name} lacks asymptote_from, the fraction of its table from where the "
            "asymptote takes over; 0.5 suits most"
        )
    start = float(liquid.structure["asymptote_from"])
    return continued(q, width, h, liquid.number_density, limit=limit, start=start, own=own)


def continued(
    q: np.ndarray,
    width: float,
    h: Mapping[tuple[str, str], np.ndarray],
    density: float,
    *,
    limit: Mapping[tuple[str, str], float],
    start: float,
    own: Mapping[tuple[str, str], np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """H_ab of tabulated h_ab with its asymptote and its limit at Q = 0.

    Args:
        q: (q,) float64 [Å⁻¹].
        width: of the bins of h, from r = 0 [Å].
        h: by pair, (n,) float64.
        density: molecules per Å³.
        limit: by pair, H_ab(0).
        start: fraction of the table from where the asymptote is fitted and takes over.
        own: by pair, p_ab in bins of the same width.

    Returns:
        By pair, (q,) float64.
    """
    edge = width * np.arange(int(_REACH / width) + 1)
    r, shell = (edge[1:] + edge[:-1]) / 2, density * 4 / 3 * np.pi * np.diff(edge**3)
    extended = _extended(r, h, own, start)
    waves = np.sinc(np.outer(q, r) / np.pi)
    near_zero = np.exp(-((q / _MENDED_BELOW) ** 2) / 2)
    return {
        pair: waves @ (shell * values) + (limit[pair] - shell @ values) * near_zero
        for pair, values in extended.items()
    }


def _extended(
    r: np.ndarray,
    h: Mapping[tuple[str, str], np.ndarray],
    own: Mapping[tuple[str, str], np.ndarray],
    start: float,
) -> dict[tuple[str, str], np.ndarray]:
    """The table on all of r, continued by its asymptote; `own` is p_ab."""
    n = len(next(iter(h.values())))
    first = int(start * n)
    x = r[first:n]
    own = {pair: own.get(pair, np.zeros_like(r)) for pair in h}
    data = np.stack([x * (values + own[pair][:n])[first:] for pair, values in h.items()], axis=1)
    k, decay = (grid.ravel()[:, None] for grid in np.meshgrid(_WAVE_NUMBERS, _DECAYS))
    # Everything times r: the counting error of h falls like 1/r.
    design = np.stack(
        [
            np.broadcast_to(x, (k.size, x.size)),
            *(wave(k * x) * np.exp(-x / decay) for wave in (np.cos, np.sin)),
        ],
        axis=2,
    )
    coefficients = np.linalg.pinv(design) @ data
    best = int(((design @ coefficients - data) ** 2).sum(axis=(1, 2)).argmin())
    tail = np.stack([wave(k[best] * r) * np.exp(-r / decay[best]) / r for wave in (np.cos, np.sin)], axis=1)
    share = np.cos(np.pi / 2 * np.clip((r - x[0]) / (x[-1] - x[0]), 0, 1)) ** 2
    result = {}
    for (pair, values), c in zip(h.items(), coefficients[best].T, strict=True):
        inside = np.zeros_like(r)
        inside[:n] = (1 + values) / (1 + c[0]) - 1
        result[pair] = share * inside + (1 - share) * (tail @ c[1:] / (1 + c[0]) - own[pair])
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
