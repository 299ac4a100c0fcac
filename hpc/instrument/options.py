"""`qd-pattern --instrument`: words of the command line -> what an instrument would have recorded, to be written."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc.instrument.recorded import Sample
    from hpc.instrument.setup import Instrument
    from hpc.pattern_output import Columns

__all__ = ["add_options", "choose_instrument", "record"]

# Step of the ideal pattern [Å⁻¹]: for dots of 40 nm the interpolation error is 1e-3 of the peak, for 20 nm 2e-6.
_STEP = 0.005
# Options that mean something only with --instrument, and their neutral values.
_NEUTRAL: dict[str, Any] = {
    "two_theta": None,
    "counts": None,
    "solvent": None,
    "fluorescence": None,
    "background": 0.0,
    "zero": 0.0,
    "displacement": 0.0,
    "no_noise": False,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The group of options."""
    group = parser.add_argument_group("instrument: write 2θ, intensity and σ as it would have recorded them")
    group.add_argument(
        "--instrument",
        metavar="NAME",
        help="synchrotron_strip, synchrotron_area, lab_cu, lab_mo, lab_ag (a file of conf/instrument), or a .yaml file",
    )
    group.add_argument(
        "--two-theta",
        nargs=3,
        type=float,
        metavar=("FIRST", "LAST", "STEP"),
        help="degrees, instead of the instrument's own",
    )
    group.add_argument("--counts", type=float, help="photons at the highest point; default: usual for it")
    group.add_argument(
        "--solvent",
        nargs="+",
        metavar="NAME[=SHARE]",
        help="liquids (files of conf/liquid) and their shares of the visible area; default share 0.5",
    )
    group.add_argument(
        "--background",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the recorded area that is flat",
    )
    group.add_argument(
        "--fluorescence",
        nargs="?",
        const=4.0,
        type=float,
        metavar="KEV",
        help="add what the dots emit in lines above this energy, the detector's threshold; without a number 4",
    )
    group.add_argument("--zero", type=float, default=0.0, metavar="DEGREES", help="2θ shown - 2θ true")
    group.add_argument(
        "--displacement",
        type=float,
        default=0.0,
        metavar="MM",
        help="of the sample: below the reference plane (Bragg-Brentano), downstream (the others)",
    )
    group.add_argument(
        "--no-noise", action="store_true", help="expected values instead of counts; --seed draws others"
    )


def choose_instrument(chosen: argparse.Namespace) -> Instrument | None:
    """The instrument, if one is asked for; then `chosen` gets its radiation and the grid of the ideal pattern.

    Raises:
        ValueError: unknown, or options that do not go together.
    """
    if chosen.instrument is None:
        given = [
            f"--{name.replace('_', '-')}"
            for name, neutral in _NEUTRAL.items()
            if getattr(chosen, name) != neutral
        ]
        if given:
            raise ValueError(f"{', '.join(given)} need an instrument, for example --instrument lab_cu")
        if chosen.q is None:
            raise ValueError("--q MIN MAX STEP is missing (or --instrument NAME, which has its own grid)")
        return None
    from hpc.instrument.recorded import ideal_window
    from hpc.instrument.setup import load_instrument

    if chosen.output_kind != "iq":
        raise ValueError(f"an instrument records intensities; leave out --output-kind {chosen.output_kind}")
    if chosen.radiation is not None:
        raise ValueError(
            "an instrument has its own radiation; leave out --radiation, or choose another --instrument"
        )
    if chosen.per_atom:
        raise ValueError("an instrument counts photons; leave out --per-atom")
    instrument = load_instrument(
        chosen.instrument, wavelength=chosen.wavelength, energy_kev=chosen.energy_kev
    )
    if chosen.two_theta is not None:
        instrument = instrument.with_window(*chosen.two_theta)
    sample_of(chosen)
    if chosen.q is None:
        low, high = ideal_window(instrument)
        step = _STEP
        if chosen.diameter_nm is not None and chosen.diameter_nm > 0:  # else refused later
            step = min(step, 1 / (10 * chosen.diameter_nm * (1 + 5 * abs(chosen.sigma))))
        low = step * math.floor(low / step)
        chosen.q = [low, low + step * math.ceil((high - low) / step), step]
    chosen.radiation = instrument.radiation.name
    if chosen.wavelength is None and chosen.energy_kev is None and chosen.radiation == "synchrotron":
        chosen.energy_kev = instrument.radiation.energy_kev
    return instrument


def sample_of(chosen: argparse.Namespace, *, isotropic: float = 0.0) -> Sample:
    """What the options say about the sample.

    Args:
        chosen: the options.
        isotropic: fluorescence of the dots, unit of their intensity.

    Raises:
        ValueError: shares that cannot be, or an unknown liquid.
    """
    from hpc.instrument.recorded import Sample

    return Sample(
        zero_deg=chosen.zero,
        displacement_mm=chosen.displacement,
        solvents=_solvents(chosen.solvent or []),
        isotropic=isotropic,
        background=chosen.background,
    )


def record(
    columns: Columns, atoms: Mapping[str, float], instrument: Instrument, chosen: argparse.Namespace
) -> tuple[Columns, dict[str, object]]:
    """Columns 2θ, intensity, σ and the parameters of the header.

    Args:
        columns: titles; Q [Å⁻¹] and intensity of the ideal pattern, (q,) float64 each.
        atoms: element -> number of atoms that scatter this intensity.
        instrument: of `choose_instrument`.
        chosen: the options.

    Raises:
        ValueError: a dose, a grid or a pattern that cannot be recorded.
    """
    from hpc.instrument.recorded import measure

    sample = sample_of(chosen, isotropic=_fluorescence(atoms, instrument, chosen.fluorescence))
    q, intensity = columns[1]
    recorded = measure(
        q,
        intensity,
        instrument,
        sample,
        peak_counts=chosen.counts,
        seed=chosen.seed,
        noise=not chosen.no_noise,
    )
    described = {
        "instrument": f"{instrument.name}: {instrument.description}",
        "wavelength_angstrom": f"{instrument.wavelength:.8g}",
        "lines": " ".join(
            f"{length:.8g}:{weight:.4g}"
            for length, weight in zip(
                instrument.radiation.wavelengths, instrument.radiation.weights, strict=True
            )
        ),
        "geometry": f"{instrument.geometry}, radius {instrument.radius_mm:g} mm, mu_r {instrument.mu_r:g}, "
        f"mu_t {instrument.mu_t:g}",
        "resolution": " ".join(
            f"{name}={getattr(instrument.resolution, name):g}" for name in ("u", "v", "w", "x", "y")
        )
        + " (degrees)",
        "in_plane_polarisation": f"{instrument.in_plane:g}",
        "corrected": ", ".join(instrument.corrected) or "nothing",
        "peak_counts": instrument.peak_counts if chosen.counts is None else chosen.counts,
        "counts_per_unit": instrument.counts_per_unit,
        "solvents": " ".join(f"{name}={share:g}" for name, share in sample.solvents.items()) or "none",
        "background": sample.background,
        "fluorescence": "none"
        if chosen.fluorescence is None
        else f"{sample.isotropic:.6g} electron units, lines above {chosen.fluorescence:g} keV",
        "zero_deg": sample.zero_deg,
        "displacement_mm": sample.displacement_mm,
        "noise": "none" if chosen.no_noise else f"Poisson, seed {chosen.seed}",
    }
    titles = ["2theta [degree]", "I [photons / counts_per_unit]", "sigma"]
    return (titles, [recorded.two_theta, recorded.intensity, recorded.sigma]), described


def _fluorescence(atoms: Mapping[str, float], instrument: Instrument, threshold: float | None) -> float:
    """[electron units] of all atoms together."""
    if threshold is None:
        return 0.0
    from hpc.absorption import fluorescence

    energy_kev = instrument.radiation.energy_kev
    if energy_kev is None:
        raise ValueError("--fluorescence is that of X-rays; this instrument has neutrons")
    return sum(atoms.values()) * fluorescence(atoms, energy_kev, lines_above_kev=threshold)


def _solvents(words: Sequence[str]) -> dict[str, float]:
    """`hexane`, or `hexane=0.3 toluene=0.2`."""
    from hpc.liquids.liquid import liquid_names

    shares: dict[str, float] = {}
    for word in words:
        name, sign, number = word.partition("=")
        if name not in liquid_names():
            raise ValueError(f"--solvent must be one of {liquid_names()}, got {name!r}")
        try:
            shares[name] = float(number) if sign else 0.5
        except ValueError:
            raise ValueError(f"--solvent takes NAME or NAME=SHARE, got {word!r}") from None
    return shares
