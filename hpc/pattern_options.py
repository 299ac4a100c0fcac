"""Words of the `qd-pattern` command line -> checked values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from hpc.radiation import Beam
    from hpc.structure.variant import Motion, Variant

__all__ = [
    "beam_of",
    "check_numbers",
    "list_shapes",
    "motion_of",
    "q_of",
    "r_of",
    "read_b_iso",
    "texture_of",
    "variant_of",
]


def list_shapes() -> list[str]:
    """Names of the model particles."""
    from hpc.structure.shapes import SHAPES

    return sorted(SHAPES)


def check_numbers(chosen: argparse.Namespace) -> None:
    """Options that must lie in a range.

    Raises:
        ValueError: one does not.
    """
    from math import isfinite

    for name, lowest in (("diameter_nm", 0.0), ("tolerance", 0.0), ("bin_width", 0.0), ("strain", -1.0)):
        value = getattr(chosen, name)
        if value is not None and not (isfinite(value) and value > lowest):
            raise ValueError(f"{name} must be > {lowest:g}, got {value}")
    for name, least in (("sigma", 0), ("seed", 0), ("realisations", 1)):
        value = getattr(chosen, name)
        if value is not None and not (isfinite(value) and value >= least):
            raise ValueError(f"{name} must be >= {least}, got {value}")


def read_b_iso(words: Sequence[str] | None, labels: Sequence[str]) -> dict[str, float]:
    """`0.7`, or `Pb=1.3 S=1.2`: Debye-Waller factors [Å²] by label, for those that are given.

    Raises:
        ValueError: neither of these, an unknown label, or a value outside 0 to 100.
    """
    if not words:
        return {}
    try:
        if len(words) == 1 and "=" not in words[0]:
            values = dict.fromkeys(labels, float(words[0]))
        else:
            values = {label: float(number) for label, number in (word.split("=") for word in words)}
    except ValueError:
        raise ValueError(
            f"--b-iso takes one number, or LABEL=NUMBER for each site, got {' '.join(words)}"
        ) from None
    unknown = sorted(set(values) - set(labels))
    if unknown:
        raise ValueError(f"--b-iso: the sites are {list(labels)}, got {unknown}")
    if not all(0 <= value < 100 for value in values.values()):
        raise ValueError(f"--b-iso must lie in 0 to 100 Å², got {' '.join(words)}")
    return values


def q_of(chosen: argparse.Namespace) -> np.ndarray:
    """(q,) float64 [Å⁻¹] of --q."""
    from hpc.config import QConfig
    from hpc.grid import q_values

    minimum, maximum, step = chosen.q
    return q_values(QConfig(min=minimum, max=maximum, step=step))


def r_of(chosen: argparse.Namespace) -> np.ndarray:
    """(r,) float64 [Å] of --r.

    Raises:
        ValueError: missing, or an empty range.
    """
    import numpy as np

    from hpc.grid import stepped

    if chosen.r is None:
        raise ValueError("G(r) needs --r, for example --r 0 30 0.01")
    start, stop, step = chosen.r
    if not (np.isfinite(chosen.r).all() and 0 <= start <= stop and step > 0):
        raise ValueError(f"--r takes MIN MAX STEP with 0 <= MIN <= MAX and STEP > 0 Å, got {chosen.r}")
    return stepped(start, stop, step)


def beam_of(chosen: argparse.Namespace) -> Beam:
    """What is scattered, from --radiation, --energy-kev, --wavelength and --no-anomalous.

    The energy of X-rays is None only where nothing depends on it.

    Raises:
        ValueError: energy and wavelength missing, both given, not positive, or not of this radiation.
    """
    from hpc.radiation import choose_beam

    if chosen.energy_kev is not None and chosen.wavelength is not None:
        raise ValueError("give --energy-kev or --wavelength, not both")
    beam = choose_beam(
        chosen.radiation or "synchrotron", wavelength=chosen.wavelength, energy_kev=chosen.energy_kev
    )
    if beam["particle"] == "neutron":
        if chosen.no_anomalous:
            raise ValueError("--no-anomalous leaves out f' and f'' of X-rays; neutrons have none, remove it")
        return beam
    if beam["energy_kev"] is None and not (chosen.no_anomalous or chosen.output_kind == "partials"):
        raise ValueError(
            "the photon energy is missing: f' and f'' depend on it and there is no default; "
            "add --energy-kev 22 (or --wavelength 0.5636, or --radiation cu_kalpha), "
            "or --no-anomalous to leave them out"
        )
    return {**beam, "anomalous": not chosen.no_anomalous and beam["energy_kev"] is not None}


def variant_of(chosen: argparse.Namespace, *, shape: str, material: str | Path) -> Variant:
    """The sort of dot that the options describe.

    Args:
        chosen: the options.
        shape: name of a shape.
        material: name of a material of the package, or a .yaml or .cif file.

    Raises:
        ValueError: unknown names, keys or values.
    """
    from hpc.structure.material import load_material
    from hpc.structure.variant import GROUPS, Variant, load_group

    crystal = load_material(material)
    crystal = crystal.with_b_iso(read_b_iso(chosen.b_iso, crystal.labels))
    groups: dict[str, Any] = {"shape": load_group("shape", shape)}
    for group in GROUPS:
        if group != "shape" and getattr(chosen, group) is not None:
            groups[group] = load_group(group, getattr(chosen, group))
    if chosen.centre is not None:
        groups["shape"] = {**groups["shape"], "centres": [_centre(word) for word in chosen.centre]}
    for word in chosen.set:
        group, key, value = _assignment(word, GROUPS)
        groups[group] = {**groups.get(group, {}), key: value}
    return Variant.from_config({"material": crystal, **groups})


def texture_of(chosen: argparse.Namespace) -> dict[tuple[int, int, int], float]:
    """`111=2.0 1,-1,0=0.5`: gains by indices of reflections.

    Raises:
        ValueError: not of this form, or an output that orientation has no meaning for.
    """
    gains: dict[tuple[int, int, int], float] = {}
    for word in chosen.texture or ():
        name, sign, number = word.partition("=")
        try:
            h, k, l = (int(index) for index in (name.split(",") if "," in name else name))
            gains[h, k, l] = float(number)
        except ValueError:
            raise ValueError(
                f"--texture takes HKL=GAIN, for example 111=2 or 10,0,0=0.5, got {word!r}"
            ) from None
        if not (sign and (h or k or l)):
            raise ValueError(f"--texture takes HKL=GAIN of a reflection, for example 111=2, got {word!r}")
    if gains and chosen.output_kind != "iq":
        raise ValueError(
            f"--texture changes I(Q); S, F, G and partials are those of random orientation, got {chosen.output_kind}"
        )
    return gains


def motion_of(chosen: argparse.Namespace) -> Motion:
    """How the atoms of a structure file move, by --motion and --set motion.KEY=VALUE.

    Raises:
        ValueError: unknown names, keys or values.
    """
    from hpc.structure.variant import GROUPS, Motion, load_group, read_group

    values: dict[str, Any] = {} if chosen.motion is None else load_group("motion", chosen.motion)
    for word in chosen.set:
        group, key, value = _assignment(word, GROUPS)
        if group == "motion":
            values = {**values, key: value}
    motion = read_group("motion", values)
    assert isinstance(motion, Motion)
    return motion


def _assignment(word: str, groups: dict[str, type]) -> tuple[str, str, Any]:
    """`lattice.alpha_deg=89.5` -> lattice, alpha_deg, 89.5; the value is YAML."""
    import yaml

    name, sign, text = word.partition("=")
    group, dot, key = name.partition(".")
    if not (sign and dot and key) or group not in groups:
        raise ValueError(f"--set takes GROUP.KEY=VALUE with GROUP one of {list(groups)}, got {word!r}")
    try:
        return group, key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(
            f"--set {name}: the value must be a number, a name, a list or a mapping, got {text!r}"
        ) from None


def _centre(word: str) -> str | list[float]:
    """A site label, `bond`, `cell`, or `0.25,0.25,0.25`."""
    if "," not in word:
        return word
    try:
        return [float(number) for number in word.split(",")]
    except ValueError:
        raise ValueError(f"--centre takes site labels, bond, cell or x,y,z, got {word!r}") from None
