"""What is told about a fit: record of `results.json`, row of `results.csv`, lines and doubts for the console."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qdml.files.command import Sized, estimate_columns
from qdml.fitting.fit import Fit

__all__ = ["csv_row", "doubts", "notes", "record_of", "shown"]

# A fit of the right material leaves 1 to 3 % on synchrotron patterns and textured films with --texture, 14 %
# and more on films without it.
MAX_RWP = 0.05
# Dots of the right material explain 0.98 and more of what a smooth background leaves (the five measured
# patterns here).
MIN_EXPLAINED = 0.95
# An interval of σ that fills this part of its bounds says nothing about σ.
_WIDE = 0.6
_SIZES = ("diameter_nm", "diameter_volume_nm", "sigma", "strain")


def record_of(fit: Fit) -> dict[str, Any]:
    """The fit as JSON data: one entry of `results.json`."""
    area = float(fit.total.sum())
    profile = fit.profile
    return {
        "file": fit.pattern.source,
        **{name: asdict(getattr(fit, name)) for name in _SIZES},
        "parameters": {
            name: {"value": value, "error": fit.errors[name], "held": fit.errors[name] == 0}
            for name, value in fit.best.items()
        },
        "fit": {
            "rwp": fit.rwp,
            "rwp_weighted": fit.rwp_weighted,
            "chi2_counts": None if np.isnan(fit.chi2) else fit.chi2,
            "chi2": fit.chi2_model,
            "correlated_points": fit.correlated_points,
            "explained_structure": fit.explained,
            "converged": fit.converged,
            "evaluations": fit.evaluations,
            "seconds": fit.seconds,
        },
        "area": {name: float(curve.sum()) / area for name, curve in fit.contributions.items()},
        "gains": dict(fit.gains),
        "profile": {
            "sigma": profile.values.tolist(),
            "chi2_rise": ((profile.cost - profile.cost.min()) / profile.unit).tolist(),
            "diameter_nm": fit.profile_diameter_nm.tolist(),
        },
        "pattern": {
            "energy_kev": fit.pattern.energy_kev,
            "q_window": list(fit.points.on_grid.window),
            "points": len(fit.points.y),
        },
        "warnings": list(doubts(fit)),
        "notes": list(notes(fit)),
    }


def csv_row(record: dict[str, Any]) -> dict[str, str]:
    """The same as a row of `results.csv`."""
    window, fit = record["pattern"]["q_window"], record["fit"]
    return {
        "file": record["file"],
        **estimate_columns(record, _SIZES),
        **{f"best_{name}": f"{one['value']:.5g}" for name, one in record["parameters"].items()},
        "q_min": f"{window[0]:.5g}",
        "q_max": f"{window[1]:.5g}",
        "rwp": f"{fit['rwp']:.4g}",
        "chi2": f"{fit['chi2']:.4g}",
        "explained_structure": f"{fit['explained_structure']:.4g}",
        "warnings": "; ".join(record["warnings"]),
    }


def shown(fit: Fit) -> Sized:
    """What the console shows."""
    window, best = fit.points.on_grid.window, fit.best
    b = [f"B({name[2:]}) {value:.2f} Å²" for name, value in best.items() if name.startswith("b_")]
    c = [f"{value:.2f}" for name, value in best.items() if name.startswith("correlation_")]
    values = [f"ε {fit.strain.text(2, factor=100)} %", *b]
    if c:
        values.append(f"correlated motion {', '.join(c)}")
    if best["zero_deg"]:
        values.append(f"zero {best['zero_deg']:.4f}°")
    quality = (
        f"Q {window[0]:.2f} to {window[1]:.2f} Å⁻¹, {len(fit.points.y)} points, Rwp {100 * fit.rwp:.2f} %, "
        f"χ² {fit.chi2_model:.2f} with the model error, {fit.seconds:.2f} s"
    )
    return Sized(
        file=Path(fit.pattern.source),
        diameter_nm=fit.diameter_nm,
        diameter_volume_nm=fit.diameter_volume_nm,
        sigma=fit.sigma,
        lines=(
            f"best: D {best['diameter_nm']:.3f} nm, σ {100 * best['sigma']:.1f} %; " + "; ".join(values),
            quality,
            *(f"note: {note}" for note in notes(fit)),
        ),
        refusals=(),  # what it fits is what it was told
        doubts=doubts(fit),
    )


def notes(fit: Fit) -> tuple[str, ...]:
    """What was done to the pattern, and what ended where it may not go on."""
    free = [name for name in fit.at_bound if name.startswith(("b_", "correlation_"))]
    ended = (f"at a bound: {', '.join(free)}",) if free else ()
    unknown = ("the photon energy is not known: f' and f'' were left out, and no zero shift was fitted",)
    return (
        *fit.pattern.notes,
        *fit.points.on_grid.notes,
        *ended,
        *(unknown if fit.pattern.energy_kev is None else ()),
    )


def doubts(fit: Fit) -> tuple[str, ...]:
    """Reasons to doubt a fit, one sentence each."""
    found = list(fit.pattern.warnings)
    words = {
        "diameter_volume_nm": "D_vol",
        "sigma": "σ",
        "strain": "the strain",
        "zero_deg": "the zero shift",
    }
    found += [
        f"{words[name]} ended at its bound, {fit.best[name]:.4g}: the model, the wavelength or the start does not fit "
        "this pattern"
        for name in fit.at_bound
        if name in words
    ]
    if not fit.converged:
        found.append("the fit has not converged; give sizes to start from with --start")
    low, high = fit.settings.sigma
    if "sigma" not in fit.settings.fixed and fit.sigma.hi95 - fit.sigma.lo95 > _WIDE * (high - low):
        found.append(
            f"the pattern does not say what σ is: 95 % of its profile reach from {100 * fit.sigma.lo95:.0f} to "
            f"{100 * fit.sigma.hi95:.0f} %, and D goes with it"
        )
    if fit.beyond > 1e-3:
        found.append(
            f"{100 * fit.beyond:.2g} % of the atoms would lie in dots larger than {fit.settings.largest_nm[1]:g} nm, "
            "which are left out"
        )
    if fit.explained < MIN_EXPLAINED or fit.rwp > MAX_RWP:
        found.append(
            f"the fit describes the pattern badly: it explains {100 * max(fit.explained, 0):.0f} % of the structure "
            f"(expected {100 * MIN_EXPLAINED:.0f} % or more) at Rwp {100 * fit.rwp:.1f} % (expected "
            f"{100 * MAX_RWP:.0f} % or less); is it this material, this wavelength, a dried film (--texture)?"
        )
    return tuple(found)
