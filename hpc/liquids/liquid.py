"""A molecular liquid, as its file in `conf/liquid/` describes it.

The skeleton of the molecule is a z-matrix of *groups* (CH3, CH2, Cl, ...): one atom with the hydrogens that sit on it.
Each row is

    label, group [, bonded to, length [, angle to, angle [, dihedral to, dihedral]]]

with lengths in Å and angles in degrees; a dihedral is a number or the name of a torsion, whose potential says how often
each angle occurs at the liquid's temperature:

    V(φ)/k_B = c0 + c1 (1 + cos φ) + c2 (1 - cos 2φ) + c3 (1 + cos 3φ)      [K], φ = 180° is trans

Rings are closed by `closures`. A group interacts with those of other molecules, and with its own more than three bonds
away, as a Lennard-Jones site (sigma [Å], epsilon/k_B [K]) with a charge [e].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.named_files import file_names, read_named

__all__ = ["AVOGADRO_PER_CM3", "Group", "Liquid", "Row", "liquid_names", "load_liquid"]

#: Molecules per Å³ of a substance of 1 g/cm³ and 1 g/mol (CODATA 2018).
AVOGADRO_PER_CM3 = 0.602214076
#: Boltzmann's constant [GPa Å³ / K] (CODATA 2018).
_BOLTZMANN = 0.01380649


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An atom with the hydrogens that sit on it."""

    element: str
    hydrogens: int
    sigma: float
    """Lennard-Jones diameter [Å]."""
    epsilon: float
    """Lennard-Jones depth over Boltzmann's constant [K]."""
    charge: float
    """[e]."""

    def __post_init__(self) -> None:
        if self.hydrogens not in (0, 1, 2, 3):
            raise ValueError(f"hydrogens of a group must be 0, 1, 2 or 3, got {self.hydrogens}")
        if not (self.sigma >= 0 and self.epsilon >= 0):
            raise ValueError(f"sigma and epsilon must be >= 0, got {self.sigma} Å and {self.epsilon} K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the z-matrix; `to` are indices of earlier rows: bonded, angle, dihedral, as far as given."""

    label: str
    group: str
    to: tuple[int, ...]
    length: float
    angle: float
    dihedral: float | str
    """[degrees], or the name of a torsion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liquid:
    """A molecular liquid: its molecule, how densely it is packed, and what is known of its structure."""

    name: str
    density: float
    """[g/cm³]."""
    temperature: float
    """[K]."""
    compressibility: float
    """Isothermal compressibility [1/GPa]."""
    groups: Mapping[str, Group]
    rows: tuple[Row, ...]
    closures: tuple[tuple[int, int], ...]
    """Bonds that close rings."""
    torsions: Mapping[str, tuple[float, float, float, float]]
    """c0 to c3 [K] by name."""
    vibration: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Root mean square change [Å] of the distance of atoms one, two, and more bonds apart: without, with a hydrogen."""
    structure: Mapping[str, Any]
    """What orders the molecules."""

    def __post_init__(self) -> None:
        for key in ("density", "temperature", "compressibility"):
            value = getattr(self, key)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{key} of the liquid {self.name} must be > 0, got {value}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Liquid:
        """Read a liquid from the mapping of a `conf/liquid/*.yaml` file.

        Raises:
            ValueError: a key is missing or a value is outside its range.
        """
        try:
            name = str(config["name"])
            groups = {
                str(label): Group(
                    element=str(group["element"]),
                    hydrogens=int(group["hydrogens"]),
                    sigma=float(group["sigma"]),
                    epsilon=float(group["epsilon"]),
                    charge=float(group["charge"]),
                )
                for label, group in config["groups"].items()
            }
            torsions = {
                str(label): (float(c[0]), float(c[1]), float(c[2]), float(c[3]))
                for label, c in config["torsions"].items()
            }
            rows = _read_rows(name, config["skeleton"], groups, torsions)
            labels = [row.label for row in rows]
            vibration = config["vibration"]
            return cls(
                name=name,
                density=float(config["density"]),
                temperature=float(config["temperature"]),
                compressibility=float(config["compressibility"]),
                groups=groups,
                rows=rows,
                closures=tuple((labels.index(str(a)), labels.index(str(b))) for a, b in config["closures"]),
                torsions=torsions,
                vibration=(_three(vibration["heavy"]), _three(vibration["hydrogen"])),
                structure=config["structure"],
            )
        except KeyError as missing:
            raise ValueError(f"liquid: the key {missing} is missing; see conf/liquid/hexane.yaml") from None

    @property
    def composition(self) -> dict[str, int]:
        """Number of atoms of each element in one molecule."""
        count: dict[str, int] = {}
        for row in self.rows:
            group = self.groups[row.group]
            count[group.element] = count.get(group.element, 0) + 1
            if group.hydrogens:
                count["H"] = count.get("H", 0) + group.hydrogens
        return count

    @property
    def molar_mass(self) -> float:
        """[g/mol]."""
        import xraydb

        return float(sum(n * xraydb.atomic_mass(element) for element, n in self.composition.items()))

    @property
    def number_density(self) -> float:
        """ρ, molecules per Å³."""
        return self.density * AVOGADRO_PER_CM3 / self.molar_mass

    @property
    def forward(self) -> float:
        """S(0) = ρ k_B T κ_T, the structure factor of the molecules at Q = 0."""
        return self.number_density * _BOLTZMANN * self.temperature * self.compressibility


def _three(values: Sequence[Any]) -> tuple[float, float, float]:
    a, b, c = (float(x) for x in values)
    return a, b, c


def _read_rows(
    liquid: str, skeleton: Sequence[Sequence[Any]], groups: Mapping[str, Group], torsions: Mapping[str, Any]
) -> tuple[Row, ...]:
    rows: list[Row] = []
    labels: list[str] = []
    for index, entry in enumerate(skeleton):
        where = f"row {index + 1} of the skeleton of {liquid}, {list(entry)}"
        n_reference = min(index, 3)
        if len(entry) != 2 + 2 * n_reference:
            raise ValueError(
                f"{where}: expected a label, a group and {n_reference} pairs of an earlier label and a number"
            )
        label, group = str(entry[0]), str(entry[1])
        if group not in groups:
            raise ValueError(f"{where}: the group must be one of {sorted(groups)}")
        if label in labels:
            raise ValueError(f"{where}: the label occurs twice")
        references = [str(name) for name in entry[2::2]]
        if any(name not in labels for name in references) or len(set(references)) < n_reference:
            raise ValueError(f"{where}: {references} must be different labels of earlier rows")
        values = [*entry[3::2], *[0.0] * (3 - n_reference)]
        dihedral = values[2]
        if isinstance(dihedral, str) and dihedral not in torsions:
            raise ValueError(
                f"{where}: the dihedral must be a number or one of the torsions {sorted(torsions)}"
            )
        rows.append(
            Row(
                label=label,
                group=group,
                to=tuple(labels.index(name) for name in references),
                length=float(values[0]),
                angle=float(values[1]),
                dihedral=dihedral if isinstance(dihedral, str) else float(dihedral),
            )
        )
        labels.append(label)
    return tuple(rows)


def liquid_names() -> list[str]:
    """Names of the liquids that ship with the package (`conf/liquid/*.yaml`)."""
    return file_names("liquid")


def load_liquid(name: str) -> Liquid:
    """The liquid of `conf/liquid/<name>.yaml`, the name in any case.

    Raises:
        ValueError: there is no such liquid; the message lists those there are.
    """
    return Liquid.from_config(read_named("liquid", name))
