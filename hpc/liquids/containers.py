"""What holds the sample: glass of capillaries and Kapton windows, per formula unit in electron units.

    I(Q) = Σ_i |f_i|² [1 - (1 - S(0)) exp(-(Q/Q_f)⁴) + Σ_p h_p exp(-(Q - Q_p)²/2w_p²)] + Σ_i S_i

Free atoms times an ordering factor of Gaussian peaks at published positions; their heights are estimates. A shape to
train against, not to subtract: measure the empty container for that. Silica's first peak lies at 1.52 Å⁻¹, that of the
bonds Si-O of 1.62 Å near 5.2 Å⁻¹ (R. L. Mozzi & B. E. Warren, J. Appl. Cryst. 2, 164 (1969)).

Symbols: q [Å⁻¹], f [electrons].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from hpc.liquids.terms import atom_amplitudes, check_q
from hpc.named_files import file_names, read_named

__all__ = ["container_names", "container_profile"]


def container_names() -> list[str]:
    """Names of the containers that ship with the package (`conf/container/*.yaml`)."""
    return file_names("container")


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
    config = read_named("container", name)
    q = check_q(q)
    number = config["atoms"]
    f, incoherent = atom_amplitudes(tuple(number), q, energy_kev, particle)
    coherent = np.zeros_like(q)
    for element, n in number.items():
        coherent += n * np.abs(f[element]) ** 2
    compton = np.zeros_like(q)
    for element, n in number.items():
        compton += n * incoherent[element]
    return coherent * _ordering(config["order"], config["forward"], q) + compton


def _ordering(order: Mapping[str, Any], forward: float, q: np.ndarray) -> np.ndarray:
    factor = 1 - (1 - forward) * np.exp(-((q / order["falls_below"]) ** 4))
    for position, width, height in order["peaks"]:
        factor = factor + height * np.exp(-((q - position) ** 2) / (2 * width**2))
    return factor
