"""What the sample is shone on with: X-rays of one or two lines, or neutrons.

    Q = (4π/λ) sin θ,   E = hc/λ for photons

The first wavelength of a radiation is its reference line: angles become Q with it, and scattering factors are those of
its energy. The lines of a Kα doublet are so close (0.25 % for Cu, 0.60 % for Mo, 0.78 % for Ag) that f' and f'' hardly
differ between them. The second line puts the same pattern at other angles, which belongs to the instrument: where the
two are not resolved, peaks lie at the weighted mean of both wavelengths, and read with Kα1 alone the crystal looks too
small, by 0.084 % (Cu), 0.21 % (Mo) or 0.27 % (Ag). Whether the second line has 0.5 or 0.51 of the first moves that mean
by 1e-5 only.

`Beam` is what the physics needs to know of a radiation: which particle, and its energy or wavelength.

Symbols: λ wavelength [Å], E photon energy [keV].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from hpc.form_factors import HC_KEV_ANGSTROM, energy_of_wavelength
from hpc.named_files import read_named

__all__ = ["Beam", "Particle", "Radiation", "choose_beam", "load_radiation"]

Particle = Literal["xray", "neutron"]


class Beam(TypedDict, total=False):
    """Keywords of `hpc.scattering.coefficients` that say what is scattered."""

    particle: Particle
    energy_kev: float | None
    """Photon energy [keV]; needed with `anomalous`."""
    wavelength: float | None
    """Of neutrons [Å]; needed for elements with a resonance."""
    anomalous: bool
    """f' and f'' of X-rays by energy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiation:
    """A particle and its lines."""

    name: str
    particle: Particle
    wavelengths: tuple[float, ...]
    """[Å], the reference line (whose wavelength turns 2θ into Q) first."""
    weights: tuple[float, ...]
    """Relative intensities of the lines, sum 1."""

    def __post_init__(self) -> None:
        if self.particle not in get_args(Particle):
            raise ValueError(f"radiation.particle must be xray or neutron, got {self.particle!r}")
        if not self.wavelengths or not all(math.isfinite(x) and x > 0 for x in self.wavelengths):
            raise ValueError(f"radiation.wavelengths must be positive numbers, got {list(self.wavelengths)}")
        if len(self.weights) != len(self.wavelengths):
            raise ValueError(
                f"radiation.weights must be one for each wavelength, got {len(self.weights)} for "
                f"{len(self.wavelengths)}"
            )
        if not all(math.isfinite(x) and x > 0 for x in self.weights):
            raise ValueError(f"radiation.weights must be positive numbers, got {list(self.weights)}")
        if abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"radiation.weights must add up to 1, got {sum(self.weights):g}")

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, wavelength: float | None = None, energy_kev: float | None = None
    ) -> Radiation:
        """Read the mapping of a `conf/radiation/*.yaml` file; wavelength and energy as in `load_radiation`.

        Raises:
            ValueError: a key is missing or unknown, a value is outside its range; wavelength or energy missing, given
                twice, or given to a radiation that has its own.
        """
        _check_keys(config)
        name, particle = str(config["name"]), config["particle"]
        given = _one_wavelength(name, particle, wavelength, energy_kev)
        if config["wavelengths"] is not None:
            lines = _numbers("wavelengths", config["wavelengths"])
            if given is not None:
                raise ValueError(
                    f"radiation {name} has its own wavelength, {lines[0]:.6g} Å; leave out energy_kev and wavelength, "
                    "or choose radiation synchrotron"
                )
        elif given is not None:
            lines = (given,)
        else:
            raise ValueError(
                f"radiation {name} needs a wavelength (Å)"
                + (" or an energy_kev" if particle == "xray" else "")
                + "; there is no default"
            )
        weights = _numbers("weights", config["weights"])
        total = sum(weights) or 1.0
        return cls(
            name=name,
            particle=particle,
            wavelengths=lines,
            weights=tuple(weight / total for weight in weights),
        )

    @property
    def wavelength(self) -> float:
        """Of the reference line [Å]."""
        return self.wavelengths[0]

    @property
    def mean_wavelength(self) -> float:
        """Weighted mean of the lines [Å]: where they are not resolved, peaks lie as those of this one line."""
        return sum(weight * line for weight, line in zip(self.weights, self.wavelengths, strict=True))

    @property
    def energy_kev(self) -> float | None:
        """Photon energy of the reference line [keV]; None for neutrons."""
        return HC_KEV_ANGSTROM / self.wavelength if self.particle == "xray" else None

    @property
    def beam(self) -> Beam:
        """What the scattering of the reference line depends on."""
        if self.particle == "xray":
            return {"particle": "xray", "energy_kev": self.energy_kev, "wavelength": None}
        return {"particle": "neutron", "energy_kev": None, "wavelength": self.wavelength}


def load_radiation(
    name: str, *, wavelength: float | None = None, energy_kev: float | None = None
) -> Radiation:
    """The radiation of `conf/radiation/<name>.yaml`, the name in any case.

    Args:
        name: of the file.
        wavelength: [Å], for a radiation that has none of its own.
        energy_kev: photon energy [keV], instead of the wavelength; X-rays only.

    Raises:
        ValueError: unknown name; wavelength or energy missing, given twice, or given to a radiation that has its own.
    """
    return Radiation.from_config(read_named("radiation", name), wavelength=wavelength, energy_kev=energy_kev)


def choose_beam(
    radiation: str | Mapping[str, Any], *, wavelength: float | None = None, energy_kev: float | None = None
) -> Beam:
    """What a command computes the scattering with: as `load_radiation`, but nothing has to be given.

    Without energy or wavelength, what does not depend on them (form factors without f' and f'', most scattering
    lengths) can still be computed; what does is refused where it is needed.

    Args:
        radiation: a name, or the mapping of a `conf/radiation/*.yaml` file.
        wavelength: [Å], for a radiation that has none of its own.
        energy_kev: photon energy [keV], instead of the wavelength; X-rays only.

    Raises:
        ValueError: unknown name; wavelength and energy both given, or given to a radiation that has its own.
    """
    config = read_named("radiation", radiation) if isinstance(radiation, str) else radiation
    _check_keys(config)
    if config["wavelengths"] is None and wavelength is None and energy_kev is None:
        # A wavelength stands in for the check of everything else.
        particle = Radiation.from_config(config, wavelength=1.0).particle
        return {"particle": particle, "energy_kev": None, "wavelength": None}
    beam = Radiation.from_config(config, wavelength=wavelength, energy_kev=energy_kev).beam
    if energy_kev is not None:  # as given, without the rounding of a detour through the wavelength
        beam["energy_kev"] = float(energy_kev)
    return beam


def _check_keys(config: Mapping[str, Any]) -> None:
    expected = ("name", "particle", "wavelengths", "weights")
    if not isinstance(config, Mapping) or set(config) != set(expected):
        found = sorted(map(str, config)) if isinstance(config, Mapping) else config
        raise ValueError(f"radiation has the keys {list(expected)}, got {found}")


def _numbers(key: str, values: Any) -> tuple[float, ...]:
    if (
        not isinstance(values, Sequence)
        or isinstance(values, str)
        or any(isinstance(x, bool) or not isinstance(x, int | float) for x in values)
    ):
        raise ValueError(f"radiation.{key} must be a list of numbers, got {values!r}")
    return tuple(float(x) for x in values)


def _one_wavelength(
    name: str, particle: str, wavelength: float | None, energy_kev: float | None
) -> float | None:
    """The wavelength [Å] that was given in either way, if any."""
    if wavelength is not None and energy_kev is not None:
        raise ValueError("give wavelength or energy_kev, not both")
    if energy_kev is not None:
        if particle != "xray":
            raise ValueError(
                f"energy_kev is that of photons; give radiation {name} a wavelength instead, got {energy_kev:g} keV"
            )
        if not (math.isfinite(energy_kev) and energy_kev > 0):
            raise ValueError(f"energy_kev must be > 0, got {energy_kev}")
        return HC_KEV_ANGSTROM / energy_kev
    if wavelength is not None:
        energy_of_wavelength(wavelength)  # refuses what is not a length
        return float(wavelength)
    return None
