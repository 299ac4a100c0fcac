"""Instruments by name: `conf/instrument/<name>.yaml` -> a frozen description, in the units of the file (degrees, mm).

`Instrument` says what one instrument is when it is aligned; `Ranges` how its samples and days differ, as ends of the
draws of a training set. What they do to a pattern is in the other modules of this folder, `hpc.instrument.recorded`
puts it together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from hpc.instrument.geometry import in_plane_behind_monochromator, in_plane_of_synchrotron
from hpc.instrument.windows import check_angles
from hpc.named_files import file_names, read_named
from hpc.radiation import Radiation, load_radiation

__all__ = ["Geometry", "Instrument", "Ranges", "Resolution", "instrument_names", "load_instrument"]

#: Detector on a circle around a capillary; flat sample in reflection; flat detector across the beam.
Geometry = Literal["debye_scherrer", "bragg_brentano", "flat_panel"]
Pair = tuple[float, float]

_SLITS = ("fixed", "automatic")
_CORRECTIONS = ("polarisation", "solid_angle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """FWHM in 2θ: Gaussian² = u tan²θ + v tan θ + w [degrees²], Lorentzian = x tan θ + y / cos θ [degrees]."""

    u: float
    v: float
    w: float
    x: float
    y: float

    def radians(self, factor: float = 1.0) -> tuple[float, float, float, float, float]:
        """u, v, w [rad²], x, y [rad], widths times `factor`: the arguments of `hpc.instrument.resolution`."""
        rad = math.radians(1) * factor
        return self.u * rad**2, self.v * rad**2, self.w * rad**2, self.x * rad, self.y * rad

    def check(self, first: float, last: float, where: str) -> None:
        """Widths from 2θ = first to last [degrees].

        Raises:
            ValueError: a negative Γ² or Γ, or a width as large as the window.
        """
        for i in range(201):
            theta = math.radians(min(first + (last - first) * i / 200, 179.9) / 2)
            square = (self.u * math.tan(theta) + self.v) * math.tan(theta) + self.w
            lorentzian = self.x * math.tan(theta) + self.y / math.cos(theta)
            if square < 0 or lorentzian < 0:
                raise ValueError(
                    f"{where}.resolution is negative at 2θ = {math.degrees(2 * theta):.1f}°: "
                    f"Gaussian² {square:.3g} degrees², Lorentzian {lorentzian:.3g}°"
                )
            if math.sqrt(square) + lorentzian >= last - first:
                raise ValueError(
                    f"{where}.resolution, {math.sqrt(square) + lorentzian:.3g}° at "
                    f"2θ = {math.degrees(2 * theta):.1f}°, must be narrower than the window, {last - first:g}°"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Ends (low, high) of what differs between samples and days; equal ends for what does not."""

    zero_deg: Pair
    """2θ_shown - 2θ_true."""
    displacement_mm: Pair
    """Of the sample: across the surface (bragg_brentano, away from tube and detector), along the beam (the others)."""
    resolution_factor: Pair
    """Times all widths."""
    first_deg: Pair
    """Start of the visible 2θ."""
    last_deg: Pair
    """End of the visible 2θ."""
    peak_counts: Pair
    """Photons at the highest point of a pattern, of one step of the instrument; drawn uniformly in the logarithm."""
    mu_r: Pair
    """Radius times attenuation of the capillary; 0 for the other geometries."""
    mu_t: Pair
    """Thickness times attenuation of the layer of bragg_brentano, uniform in the logarithm; 0 for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One instrument, aligned."""

    name: str
    description: str
    radiation: Radiation
    geometry: Geometry
    radius_mm: float
    """From the axis to the detector."""
    first_deg: float
    last_deg: float
    step_deg: float
    gaps_deg: tuple[Pair, ...]
    """Blind parts of 2θ."""
    resolution: Resolution
    in_plane: float
    """Share of the incident intensity that is polarised in the scattering plane."""
    slits: Literal["fixed", "automatic"] | None
    """Of bragg_brentano; None for the others."""
    mu_r: float
    """Radius times attenuation of a usual capillary; 0 for the other geometries."""
    mu_t: float
    """Thickness times attenuation of a usual layer, of bragg_brentano; 0 for the others."""
    corrected: tuple[str, ...]
    """What the intensities of a file are corrected for: polarisation, solid_angle."""
    peak_counts: float
    """Photons at the highest point of a usual pattern."""
    counts_per_unit: float
    """Photons at the highest point over what is written there."""
    random: Ranges

    def __post_init__(self) -> None:
        where = f"instrument {self.name}"
        if self.geometry not in get_args(Geometry):
            raise ValueError(
                f"{where}.geometry must be one of {list(get_args(Geometry))}, got {self.geometry!r}"
            )
        if not (math.isfinite(self.radius_mm) and self.radius_mm > 0):
            raise ValueError(
                f"{where}.radius_mm must be > 0 mm, got {self.radius_mm}; displacements are relative to it"
            )
        try:
            check_angles(self.first_deg, self.last_deg, self.step_deg)
        except ValueError as error:
            raise ValueError(f"{where}.two_theta_deg: {error}") from None
        if self.geometry == "flat_panel" and self.last_deg >= 90:
            raise ValueError(f"{where}: a flat panel across the beam ends below 90°, got {self.last_deg:g}°")
        if not all(self.first_deg <= low < high <= self.last_deg for low, high in self.gaps_deg):
            raise ValueError(
                f"{where}.gaps_deg must be pairs low < high inside 2θ, got {list(self.gaps_deg)}"
            )
        self.resolution.check(self.first_deg, self.last_deg, where)
        if not 0 <= self.in_plane <= 1:
            raise ValueError(
                f"{where}: the share of in-plane polarisation must lie in 0 to 1, got {self.in_plane}"
            )
        if (self.slits is not None) != (self.geometry == "bragg_brentano"):
            raise ValueError(
                f"{where}.slits are for bragg_brentano, {list(_SLITS)}; null for the others, got {self.slits!r}"
            )
        if self.mu_r and self.geometry != "debye_scherrer":
            raise ValueError(f"{where}.mu_r is for debye_scherrer; 0 for the others, got {self.mu_r:g}")
        plate = self.geometry == "bragg_brentano"
        if any((x > 0) != plate for x in (self.mu_t, *self.random.mu_t)):
            raise ValueError(
                f"{where}.mu_t and random.mu_t must be > 0 for bragg_brentano, 0 for the others; got {self.mu_t:g} and "
                f"{list(self.random.mu_t)}"
            )
        for name in ("peak_counts", "counts_per_unit"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{where}.{name} must be > 0, got {getattr(self, name)}")
        self._check_random(where)

    def _check_random(self, where: str) -> None:
        from hpc.instrument.capillary import MU_R_MAX

        limits = {
            "zero_deg": (-5.0, 5.0),
            "displacement_mm": (-self.radius_mm / 10, self.radius_mm / 10),
            "resolution_factor": (0.0, 100.0),
            "first_deg": (0.0, 180.0),
            "last_deg": (0.0, 180.0),
            "peak_counts": (1.0, 1e12),
            "mu_r": (0.0, MU_R_MAX),
            "mu_t": (0.0, 100.0),
        }
        for name, (least, most) in limits.items():
            low, high = getattr(self.random, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{where}.random.{name} must be low <= high within {least:g} to {most:g}, got {low:g}, {high:g}"
                )
        if not 0 <= self.mu_r <= MU_R_MAX:
            raise ValueError(f"{where}.mu_r must lie in 0 to {MU_R_MAX:g}, got {self.mu_r:g}")
        if self.random.first_deg[1] >= self.random.last_deg[0]:
            raise ValueError(f"{where}.random: first_deg must end below last_deg, got an empty window")

    @property
    def wavelength(self) -> float:
        """Of the reference line [Å]."""
        return self.radiation.wavelength

    def q_window(self) -> Pair:
        """Q [Å⁻¹] of the first and the last angle."""
        per_sine = 4 * math.pi / self.wavelength
        first, last = (
            per_sine * math.sin(math.radians(angle) / 2) for angle in (self.first_deg, self.last_deg)
        )
        return first, last

    def with_window(self, first: float, last: float, step: float) -> Instrument:
        """The same instrument with another scan [degrees].

        Raises:
            ValueError: not a window of 2θ.
        """
        gaps = tuple(gap for gap in self.gaps_deg if first <= gap[0] and gap[1] <= last)
        return replace(self, first_deg=first, last_deg=last, step_deg=step, gaps_deg=gaps)


def instrument_names() -> list[str]:
    """Names of the instruments that ship with the package (`conf/instrument/*.yaml`)."""
    return file_names("instrument")


def load_instrument(
    name: str, *, wavelength: float | None = None, energy_kev: float | None = None
) -> Instrument:
    """The instrument of `conf/instrument/<name>.yaml`, the name in any case, or of a .yaml file of one's own.

    Args:
        name: one of `instrument_names()`, or a path.
        wavelength: [Å], instead of that of the file; only for a radiation that has none of its own.
        energy_kev: photon energy [keV], instead of the wavelength.

    Raises:
        ValueError: unknown name, or an instrument that cannot be.
    """
    from pathlib import Path

    import yaml

    if name.lower() in instrument_names():
        config = read_named("instrument", name)
    elif name.lower().endswith((".yaml", ".yml")):
        try:
            config = yaml.safe_load(Path(name).read_text())
        except OSError as error:
            raise ValueError(f"cannot read the instrument {name}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{name} is no YAML: {error}") from None
    else:
        raise ValueError(f"instrument must be one of {instrument_names()} or a .yaml file, got {name!r}")
    return _from_config(config, name, wavelength=wavelength, energy_kev=energy_kev)


_KEYS = (
    *("name", "description", "radiation", "energy_kev", "geometry", "radius_mm", "two_theta_deg", "gaps_deg"),
    *("resolution", "polarisation", "slits", "mu_r", "mu_t"),
    *("corrected", "peak_counts", "counts_per_unit", "random"),
)


def _from_config(
    config: Any, source: str, *, wavelength: float | None, energy_kev: float | None
) -> Instrument:
    _check_keys(config, _KEYS, f"instrument {source}")
    name = str(config["name"])
    where = f"instrument {name}"
    if wavelength is None and energy_kev is None and config["energy_kev"] is not None:
        energy_kev = _number(config["energy_kev"], f"{where}.energy_kev")
    radiation = load_radiation(str(config["radiation"]), wavelength=wavelength, energy_kev=energy_kev)
    scan = _check_keys(config["two_theta_deg"], ["first", "last", "step"], f"{where}.two_theta_deg")
    width = _check_keys(config["resolution"], ["u", "v", "w", "x", "y"], f"{where}.resolution")
    names = [field.name for field in fields(Ranges)]
    ranges = _check_keys(config["random"], names, f"{where}.random")
    unknown = sorted(set(config["corrected"]) - set(_CORRECTIONS))
    if unknown:
        raise ValueError(f"{where}.corrected may hold {list(_CORRECTIONS)}, got {unknown}")
    return Instrument(
        name=name,
        description=str(config["description"]),
        radiation=radiation,
        geometry=config["geometry"],
        radius_mm=_number(config["radius_mm"], f"{where}.radius_mm"),
        first_deg=_number(scan["first"], f"{where}.two_theta_deg.first"),
        last_deg=_number(scan["last"], f"{where}.two_theta_deg.last"),
        step_deg=_number(scan["step"], f"{where}.two_theta_deg.step"),
        gaps_deg=tuple(_pair(gap, f"{where}.gaps_deg") for gap in config["gaps_deg"]),
        resolution=Resolution(
            **{key: _number(value, f"{where}.resolution.{key}") for key, value in width.items()}
        ),
        in_plane=_in_plane(config["polarisation"], where),
        slits=config["slits"],
        mu_r=_number(config["mu_r"], f"{where}.mu_r"),
        mu_t=_number(config["mu_t"], f"{where}.mu_t"),
        corrected=tuple(config["corrected"]),
        peak_counts=_number(config["peak_counts"], f"{where}.peak_counts"),
        counts_per_unit=_number(config["counts_per_unit"], f"{where}.counts_per_unit"),
        random=Ranges(**{key: _pair(value, f"{where}.random.{key}") for key, value in ranges.items()}),
    )


def _in_plane(config: Any, where: str) -> float:
    """Share of in-plane polarisation: of a synchrotron, of a tube behind a monochromator, or of a bare tube."""
    if config == "none":
        return 0.5
    if isinstance(config, Mapping) and set(config) == {"monochromator_deg"}:
        return in_plane_behind_monochromator(math.radians(config["monochromator_deg"]))
    if isinstance(config, Mapping) and set(config) == {"degree", "azimuth_deg"}:
        return in_plane_of_synchrotron(config["degree"], math.radians(config["azimuth_deg"]))
    raise ValueError(
        f"{where}.polarisation is none, {{monochromator_deg: 2α}} or {{degree: d, azimuth_deg: φ}}, got {config!r}"
    )


def _check_keys(config: Any, expected: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(config, Mapping) or set(config) != set(expected):
        found = sorted(map(str, config)) if isinstance(config, Mapping) else config
        raise ValueError(f"{where} has the keys {list(expected)}, got {found}")
    return config


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, got {value!r}")
    return float(value)


def _pair(value: Any, where: str) -> Pair:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{where} must be two numbers, low and high, got {value!r}")
    return _number(value[0], where), _number(value[1], where)
