"""What holds the sample: glass of capillaries and Kapton windows, per formula unit in electron units.

    I(Q) = Σ_i (|f_i|² + S_i) + Σ_ab n_a n_b Re(<f_a> <f_b>*) H_ab(Q)

Glass: H_ab of all pairs of sites of the network, bonds included, from a simulation of silica
(`benchmarks/simulate_silica.py`), continued and mended as that of a liquid (`hpc.liquids.structure`). In a glass of
several oxides, elements share a site: <f> is their mean there; the first sum runs over all. Modifiers (Na) are free.
Silica's first peak lies at 1.5 Å⁻¹ (R. L. Mozzi & B. E. Warren, J. Appl. Cryst. 2, 164 (1969)).

Polymers without a simulation: free atoms times an ordering factor of Gaussian peaks,
1 - (1 - S(0)) exp(-(Q/Q_f)⁴) + Σ h exp(-(Q - Q_p)²/2w²). That is a shape to train against, not to subtract.

Symbols: q [Å⁻¹], f [electrons], ρ formula units per Å³.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from hpc.liquids.liquid import AVOGADRO_PER_CM3
from hpc.liquids.structure import continued, load_table
from hpc.liquids.terms import atom_amplitudes, check_q

__all__ = ["container_names", "container_profile"]


def container_names() -> list[str]:
    """Names of the containers that ship with the package (`conf/container/*.yaml`)."""
    from importlib.resources import files

    folder = files("conf") / "container"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def container_profile(
    name: str,
    q: np.ndarray,
    *,
    energy_kev: float | None = None,
    particle: Literal["xray", "neutron"] = "xray",
) -> np.ndarray:
    """Scattering of a container's wall or window.

    Args:
        name: one of `container_names`, in any case.
        q: (q,) float64 [Å⁻¹], > 0, ascending.
        energy_kev: photon energy [keV] for f' and f''; None leaves them out.
        particle: what scatters.

    Returns:
        (q,) float64 [electron units per formula unit; neutrons: fm²], > 0.

    Raises:
        ValueError: unknown container, q not positive and ascending, energy outside the tables.
    """
    from importlib.resources import files

    import yaml

    if name.lower() not in container_names():
        raise ValueError(f"container must be one of {container_names()}, got {name!r}")
    text = (files("conf") / "container" / f"{name.lower()}.yaml").read_text()
    config = yaml.safe_load(text)
    q = check_q(q)
    number = _atoms(config)
    f, incoherent = atom_amplitudes(tuple(number), q, energy_kev, particle)
    coherent = np.zeros_like(q)
    for element, n in number.items():
        coherent += n * np.abs(f[element]) ** 2
    compton = np.zeros_like(q)
    for element, n in number.items():
        compton += n * incoherent[element]
    if "peaks" in config["order"]:
        return coherent * _peaks(config, q) + compton
    return coherent + compton + _network(config, q, f, number)


def _atoms(config: Mapping[str, Any]) -> dict[str, float]:
    """Atoms of each element per formula unit."""
    number: dict[str, float] = {}
    for kind in config["kinds"].values():
        for element, share in kind["elements"].items():
            number[element] = number.get(element, 0.0) + kind["count"] * share
    for element, n in config["loose"].items():
        number[element] = number.get(element, 0.0) + n
    return number


def _network(
    config: Mapping[str, Any], q: np.ndarray, f: Mapping[str, np.ndarray], number: Mapping[str, float]
) -> np.ndarray:
    import xraydb

    table = load_table("container", config["order"]["table"])
    mass = sum(n * xraydb.atomic_mass(element) for element, n in number.items())
    density = config["density"] * AVOGADRO_PER_CM3 / mass
    kinds = config["kinds"]
    mean = {
        kind: sum(share * f[element] for element, share in entry["elements"].items())
        for kind, entry in kinds.items()
    }
    h = {
        (a, b): np.asarray(values, dtype=np.float64)
        for (a, b), values in ((pair.split("-"), values) for pair, values in table["h"].items())
    }
    # At Q = 0 an atom of a kind sees S(0) - 1 of the others, and itself.
    limit = {(a, b): config["forward"] - (a == b) / kinds[a]["count"] for a, b in h}
    total = np.zeros_like(q)
    for (a, b), values in continued(
        q,
        float(table["bin_angstrom"]),
        h,
        density,
        limit=limit,
        start=float(config["order"]["asymptote_from"]),
    ).items():
        count = kinds[a]["count"] * kinds[b]["count"] * (1 if a == b else 2)
        total += count * (mean[a] * mean[b].conj()).real * values
    return total


def _peaks(config: Mapping[str, Any], q: np.ndarray) -> np.ndarray:
    order = config["order"]
    factor = 1 - (1 - config["forward"]) * np.exp(-((q / order["falls_below"]) ** 4))
    for position, width, height in order["peaks"]:
        factor = factor + height * np.exp(-((q - position) ** 2) / (2 * width**2))
    return factor
