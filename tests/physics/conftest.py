"""Particles and their scattering written out with NumPy: what every part of the engine is compared with."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
import xraydb

from hpc.pattern import main

PBS_CELL = 5.936


def _rocksalt_sphere(diameter, centre="Pb", cell=PBS_CELL):
    """Sites within a sphere [Å]: positions (site, 3) and the elements, Pb where the half-cell indices are even."""
    reach = int(diameter / cell) + 3
    h = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    origin = {"Pb": (0, 0, 0), "S": (1, 1, 1)}[centre] if isinstance(centre, str) else 2 * np.asarray(centre)
    position = cell / 2 * (h - origin)
    inside = 2 * np.linalg.norm(position, axis=1) <= diameter * (1 + 1e-9)
    return position[inside], np.where(h[inside].sum(axis=1) % 2, "S", "Pb")


def _form_factors(q, energy_kev=None):
    """Scattering factors by element, (q,) complex; with f' and f'' at an energy."""
    s = np.asarray(q) / (4 * np.pi)
    f = {element: xraydb.f0(element, s).astype(complex) for element in ("Pb", "S")}
    if energy_kev is not None:
        for element in f:
            f[element] += xraydb.f1_chantler(element, 1000 * energy_kev)
            f[element] += 1j * xraydb.f2_chantler(element, 1000 * energy_kev)
    return f


def _double_sum(position, element, q, f, *, b=None, occupancy=None):
    """The Debye equation, pair by pair, in float64.

    Args:
        position: (site, 3) [Å].
        element: (site,) str.
        q: (q,) [Å⁻¹].
        f: (q,) complex by element.
        b: Debye-Waller factor by element [Å²].
        occupancy: by element.
    """
    s2 = (np.asarray(q) / (4 * np.pi)) ** 2
    b, occupancy = b or {}, occupancy or {}
    total = sum(np.sum(element == e) * occupancy.get(e, 1.0) * abs(f[e]) ** 2 for e in f)
    for first, second in combinations_with_replacement(sorted(f), 2):
        r = np.linalg.norm(position[element == first][:, None] - position[element == second][None], axis=-1)
        r = r[np.triu_indices(len(r), 1)] if first == second else r.ravel()
        waves = np.array([np.sum(np.sin(x * r) / (x * r)) if x else float(len(r)) for x in q])
        factor = (
            2 * occupancy.get(first, 1.0) * occupancy.get(second, 1.0) * (f[first] * f[second].conj()).real
        )
        total = total + factor * np.exp(-(b.get(first, 0.0) + b.get(second, 0.0)) * s2) * waves
    return total


@pytest.fixture(scope="session")
def rocksalt_sphere():
    return _rocksalt_sphere


@pytest.fixture(scope="session")
def form_factors():
    return _form_factors


@pytest.fixture(scope="session")
def double_sum():
    return _double_sum


@pytest.fixture
def qd_pattern(tmp_path, monkeypatch):
    """`qd-pattern ARGUMENTS -o out.xy` in this process (start-up costs a second): (q, I) as read from the file."""
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        main([*arguments.split(), "-o", "out.xy"])
        return np.loadtxt("out.xy", unpack=True)

    return run
