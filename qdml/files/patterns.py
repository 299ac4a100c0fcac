"""Measured patterns: file -> Pattern(Q, I, σ) -> the uniform Q grid of a model, with a mask.

Q = 4π sin θ / λ in Å⁻¹. The abscissa of a file is the scattering angle 2θ in degrees (then the wavelength or
the photon energy must be given) or Q itself (then its unit must be given): no header of any instrument is
trusted for this.

Onto a grid of step h, the measured curve goes as the mean over each bin [Q - h/2, Q + h/2] of its piecewise
linear interpolant. Where the measured points lie denser than the grid this averages them (and their noise),
where they lie sparser it is linear interpolation, and no point is shifted in Q in either case. Bins outside
the measured window, in a gap of the detector, or with an intensity that is not positive get mask 0.

Intensities are taken as they are: no absorption, polarisation, Lorentz or background correction. Their smooth
parts look like background to the networks here; a pattern from which solvent and background were subtracted
does not look like anything the networks were trained on.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc.form_factors import HC_KEV_ANGSTROM
from qdml.files.columns import Columns, FileError, read_columns
from qdml.files.noise import Noise, noise_of

__all__ = ["OnGrid", "Pattern", "Radiation", "read_pattern", "regrid"]

# q: scattering vector length [Å⁻¹]; intensity: as measured, any unit; sigma: standard deviation of the
# intensity
MIN_POINTS = 50
# A gap wider than half of the narrowest size broadening (0.06 Å⁻¹, a 10 nm dot) may hide a reflection: not
# interpolated.
MAX_GAP = 0.03
# The first three reflections of PbS lie within 1.9 Å⁻¹; less than that does not hold a size and its
# background.
MIN_OVERLAP = 2.0
# Photon energies and Q that total scattering instruments reach; beyond them a unit has been mistaken.
ENERGY_RANGE_KEV = (4.0, 150.0)
MAX_Q = 60.0
MAX_NOT_POSITIVE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiation:
    """What the first column of the files means: 2θ needs a wavelength or an energy, Q its unit."""

    wavelength: float | None = None
    """Wavelength [Å]."""
    energy_kev: float | None = None
    """Photon energy [keV]."""
    q_unit: str | None = None
    """`1/A` or `1/nm` when the first column is Q; None when it is 2θ in degrees."""

    def __post_init__(self) -> None:
        """Refuse a missing, contradictory or impossible meaning.

        Raises:
            ValueError: the message says which option to add or to change.
        """
        if self.q_unit not in (None, "1/A", "1/nm"):
            raise ValueError(f"--q-unit must be 1/A or 1/nm, got {self.q_unit!r}")
        if self.wavelength is not None and self.energy_kev is not None:
            raise ValueError("--wavelength and --energy-kev say the same thing; give one of them")
        if self.q_unit is None and self.wavelength is None and self.energy_kev is None:
            raise ValueError(
                "the meaning of the first column is not known: add --wavelength ANGSTROM (for example "
                "--wavelength 1.5406) or --energy-kev KEV if it is 2θ in degrees, or --q-unit 1/A or "
                "--q-unit 1/nm if it is Q"
            )
        low, high = ENERGY_RANGE_KEV
        if self.energy_kev is not None and not low <= self.energy_kev <= high:
            raise ValueError(
                f"--energy-kev must be {low:g} to {high:g} keV, got {self.energy_kev:g}; is it in eV?"
            )
        if (
            self.wavelength is not None
            and not HC_KEV_ANGSTROM / high <= self.wavelength <= HC_KEV_ANGSTROM / low
        ):
            raise ValueError(
                f"--wavelength must be {HC_KEV_ANGSTROM / high:.3f} to {HC_KEV_ANGSTROM / low:.3f} Å, "
                f"got {self.wavelength:g}; is it in nm?"
            )

    @property
    def energy(self) -> float | None:
        """Photon energy [keV], where it is known."""
        return HC_KEV_ANGSTROM / self.wavelength if self.wavelength is not None else self.energy_kev


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One measured pattern."""

    source: str
    """The file it came from."""
    q: np.ndarray
    """(point,) float64 [Å⁻¹], strictly increasing, > 0."""
    intensity: np.ndarray
    """(point,) float64, as measured."""
    sigma: np.ndarray | None
    """(point,) float64 standard deviation of the intensity, ≥ 0, where the file has one."""
    energy_kev: float | None
    """Photon energy [keV], where it is known."""
    notes: tuple[str, ...] = ()
    """What was done to the file."""
    warnings: tuple[str, ...] = ()
    """What looks wrong, but may be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGrid:
    """A pattern on the Q grid of a model."""

    intensity: np.ndarray
    """(q,) float64; 0 where the mask is 0."""
    noise: np.ndarray
    """(q,) float64 standard deviation of the intensity, > 0; 1 where the mask is 0."""
    noise_source: Noise
    """What the file says of its noise."""
    mask: np.ndarray
    """(q,) bool: where the pattern was measured."""
    window: tuple[float, float]
    """First and last visible Q [Å⁻¹]."""
    n_points: int
    """Measured points inside the window."""
    coverage: float
    """Visible fraction of the grid."""
    counts: float
    """Median counts per grid point that would give this noise."""
    notes: tuple[str, ...]
    """What was left out, and why."""


def read_pattern(
    path: str | Path,
    *,
    wavelength: float | None = None,
    energy_kev: float | None = None,
    q_unit: str | None = None,
) -> Pattern:
    """Read a two- or three-column text file of an instrument.

    Args:
        path: the file: x, intensity and perhaps σ(intensity); plain text or gzip.
        wavelength: [Å]; says that x is 2θ in degrees, unless `q_unit` is given.
        energy_kev: photon energy [keV], instead of the wavelength.
        q_unit: `1/A` or `1/nm`: x is Q.

    Returns:
        the pattern on its own Q values.

    Raises:
        FileError: the file cannot be used; the message names file, line, what was expected, what came and
            what to do.
        ValueError: the meaning of x is missing or impossible.
    """
    radiation = Radiation(wavelength=wavelength, energy_kev=energy_kev, q_unit=q_unit)
    path = Path(path)
    columns = read_columns(path)
    notes = list(columns.notes)
    values, lines = columns.values, columns.lines
    if len(values) < MIN_POINTS:
        raise FileError(
            path, f"expected at least {MIN_POINTS} points, got {len(values)}; is this the whole pattern?"
        )
    if (np.diff(values[:, 0]) < 0).all():
        values, lines = values[::-1], lines[::-1]
        notes.append("x decreases along the file: the points were put in reverse order")
    _check_rising(path, values[:, 0], lines)
    q = _to_q(path, values[:, 0], lines, radiation)
    intensity = values[:, 1]
    if np.ptp(intensity) == 0:
        raise FileError(
            path,
            f"expected a pattern, got the constant intensity {intensity[0]:g}; is the second column the "
            "intensity?",
        )
    sigma = values[:, 2] if values.shape[1] == 3 else None
    if sigma is not None and (sigma < 0).any():
        worst = int(np.argmax(sigma < 0))
        raise FileError(
            path,
            f"expected a standard deviation ≥ 0 in the third column, got {sigma[worst]:g}; remove the column "
            "if it is something else",
            line=int(lines[worst]),
        )
    return Pattern(
        source=str(path),
        q=q,
        intensity=intensity.copy(),
        sigma=None if sigma is None else sigma.copy(),
        energy_kev=radiation.energy,
        notes=tuple(notes),
        warnings=_contradicting_wavelength(columns, radiation),
    )


def regrid(pattern: Pattern, q: np.ndarray, *, window: tuple[float, float] | None = None) -> OnGrid:
    """Bring a measured pattern onto the uniform Q grid of a model.

    Args:
        pattern: the measured pattern.
        q: (q,) float64 [Å⁻¹], uniform.
        window: first and last Q that the model has ever seen [Å⁻¹]; beyond them the mask is 0. None: the grid's.

    Returns:
        intensity and mask on the grid.

    Raises:
        FileError: the pattern shares less than `MIN_OVERLAP` with the grid, or much of it is not positive.
    """
    path = Path(pattern.source)
    edges = np.append(q, q[-1] + (step := (q[-1] - q[0]) / (len(q) - 1))) - step / 2
    low, high = window or (q[0], q[-1])
    covered = (q >= low) & (q <= high) & (edges[:-1] >= pattern.q[0]) & (edges[1:] <= pattern.q[-1])
    inside = covered.copy()
    for start, stop in _gaps(pattern.q):
        inside &= (edges[1:] <= start) | (edges[:-1] >= stop)
    needed = min(MIN_OVERLAP, 0.9 * (high - low))
    if inside.sum() * step < needed:
        apart = float(np.median(np.diff(pattern.q)))
        if apart > MAX_GAP and covered.sum() * step >= needed:
            raise FileError(
                path,
                f"expected points at most {MAX_GAP:g} Å⁻¹ apart, between which no reflection hides, got steps of "
                f"{apart:.2g} Å⁻¹ ({len(pattern.q)} points from {pattern.q[0]:.4g} to {pattern.q[-1]:.4g} Å⁻¹); "
                "export the pattern in the steps in which it was measured",
            )
        raise FileError(
            path,
            f"expected at least {needed:.3g} Å⁻¹ of the model's range {low:.3g} to {high:.3g} Å⁻¹, got "
            f"{inside.sum() * step:.3g} (the file covers {pattern.q[0]:.4g} to {pattern.q[-1]:.4g} Å⁻¹ in "
            f"steps of {apart:.2g}); check the wavelength or the Q unit, or use a model trained for this range",
        )

    notes = []
    if hidden := int(covered.sum() - inside.sum()):
        where = q[covered & ~inside]
        notes.append(
            f"{hidden} grid points from Q = {where[0]:.3f} to {where[-1]:.3f} Å⁻¹ lie in gaps of the file: masked"
        )
    mean = _bin_means(pattern.q, pattern.intensity, edges)
    mask = inside & (mean > 0)
    dropped = int(inside.sum() - mask.sum())
    if dropped > MAX_NOT_POSITIVE * inside.sum():
        raise FileError(
            path,
            f"expected positive intensities, got {dropped} of {int(inside.sum())} grid points ≤ 0; give the "
            "pattern as measured, with solvent and background",
        )
    if dropped:
        notes.append(f"{dropped} grid points with an intensity ≤ 0 were masked")
    visible = q[mask]
    in_window = (pattern.q >= visible[0] - step / 2) & (pattern.q <= visible[-1] + step / 2)
    source = noise_of(pattern.intensity, pattern.sigma)
    variance = _bin_means(pattern.q, source.sigma**2 * np.gradient(pattern.q), edges) / step
    noise = np.sqrt(np.where(mask, variance, 1.0))
    return OnGrid(
        intensity=np.where(mask, mean, 0.0),
        noise=noise,
        noise_source=source,
        mask=mask,
        window=(float(visible[0]), float(visible[-1])),
        n_points=int(in_window.sum()),
        coverage=float(mask.mean()),
        counts=float(np.median((mean[mask] / noise[mask]) ** 2)),
        notes=tuple(notes),
    )


def _check_rising(path: Path, x: np.ndarray, lines: np.ndarray) -> None:
    """Refuse x values that do not rise strictly."""
    step = np.diff(x)
    if (step > 0).all():
        return
    i = int(np.argmax(step <= 0))
    if step[i] == 0:
        problem = f"x = {x[i + 1]:g} stands in line {lines[i]} already"
    else:
        problem = f"x = {x[i + 1]:g} comes after x = {x[i]:g} in line {lines[i]}"
    raise FileError(
        path,
        f"expected x to rise from line to line, but {problem}; does the file hold more than one scan? Keep "
        "one",
        line=int(lines[i + 1]),
    )


def _to_q(path: Path, x: np.ndarray, lines: np.ndarray, radiation: Radiation) -> np.ndarray:
    """Abscissa of the file -> (point,) Q [Å⁻¹]."""
    if radiation.q_unit is not None:
        q = x if radiation.q_unit == "1/A" else 0.1 * x
        if (q <= 0).any():
            raise FileError(path, f"expected Q > 0, got {x[0]:g}; remove such points", line=int(lines[0]))
        if q[-1] > MAX_Q:
            raise FileError(
                path,
                f"expected Q ≤ {MAX_Q:g} Å⁻¹, got {q[-1]:g}; if x is 2θ in degrees, give --wavelength "
                "instead of --q-unit, if it is Q in 1/nm, --q-unit 1/nm",
                line=int(lines[-1]),
            )
        return q.copy()
    if x[0] <= 0 or x[-1] >= 180:
        bad = 0 if x[0] <= 0 else -1
        raise FileError(
            path,
            f"expected 2θ between 0 and 180 degrees, got {x[bad]:g}; if x is Q, give --q-unit, otherwise "
            "remove such points",
            line=int(lines[bad]),
        )
    assert radiation.energy is not None
    return 4 * math.pi * radiation.energy / HC_KEV_ANGSTROM * np.sin(np.radians(x) / 2)


def _contradicting_wavelength(columns: Columns, radiation: Radiation) -> tuple[str, ...]:
    """A warning when the header names one wavelength in Å that is not the given one."""
    name = r"(?:wavelength|lambda)[^\d\n]{0,20}(\d+\.\d+)\s*(?:Å|A\b|Angstrom)"
    found = re.findall(name, "\n".join(columns.header), re.IGNORECASE)
    if radiation.energy is None or len(found) != 1:
        return ()
    given = HC_KEV_ANGSTROM / radiation.energy
    if abs(float(found[0]) / given - 1) < 1e-3:
        return ()
    return (
        f"the file's header names the wavelength {found[0]} Å, the options {given:.6g} Å (which was used)",
    )


def _gaps(q: np.ndarray) -> list[tuple[float, float]]:
    """Intervals (start, stop) between neighbouring points that lie further apart than `MAX_GAP` [Å⁻¹]."""
    return [(float(q[i]), float(q[i + 1])) for i in np.flatnonzero(np.diff(q) > MAX_GAP)]


def _bin_means(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean over each bin of the piecewise linear function through (x, y); constant beyond its ends.

    Returns:
        (bin,) float64
    """
    knots = np.union1d(x, edges)
    values = np.interp(knots, x, y)
    integral = np.append(0.0, np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(knots)))
    return np.diff(integral[np.searchsorted(knots, edges)]) / np.diff(edges)
