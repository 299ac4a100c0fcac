"""What each ingredient of the forward model is worth on measured patterns: fits with and without it.

    python benchmarks/fit_measured.py PATTERN... [--solvent FILE@ANGSTROM]... [--oriented WORD] [-o benchmarks/results]

The name of a pattern says its wavelength in Å and its size in nm, as in `PbS_wl0p564162A_5p03nm.xye`. The sizes in the
names come from fits too, so differences below 0.05 nm mean nothing. A pattern whose name holds the word of `--oriented`
(`lab` when not given) is a dried film: the directions of its reflections have free gains.

Written: a Markdown table of each pattern, their means, and one figure.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from qdml.files.patterns import Pattern
    from qdml.fitting.fit import Fit

RESULTS = Path(__file__).parent / "results"
#: Rows of the figure, the last where there is one; the parameters of the last two are told.
FIGURE = (
    "perfect spheres",
    "+ correlated motion, 2 shells",
    "+ tail of correlated motion",
    "tail + deformation faults, mixed",
)
# Where the misfit of perfect spheres shows first: flank of 111, valley, flank of 200 of PbS [1/Å].
FLANKS = (1.75, 1.97, 2.20)
_FLANK_WIDTH = 0.04
# Zero errors of laboratory instruments [degrees]: conf/instrument/lab_cu.yaml.
_FILM_ZERO = 0.3
# Below it [nm] dispersions are large.
_SMALL = 4.0
# Share of the intensity that is polarised in the scattering plane: a tube, a detector that moves vertically.
_TUBE, _SYNCHROTRON = 0.5, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row: how the model of a fit differs from that of perfect spheres of independent atoms."""

    name: str
    motion: str = "independent"
    """independent, shells 2, shells 4 or tail."""
    solvents: str = "measured"
    """measured, models or none."""
    variant: tuple[tuple[str, str], ...] = ()
    """Groups of conf/ and their choices, of all dots."""
    mixed: tuple[tuple[str, str], ...] = ()
    """Of a second sort of dots, in a free fraction."""
    corrected: bool = False
    """Pattern and solvents divided by the polarisation factor."""
    instrument: bool = False
    """Resolution and lines of an instrument of conf/instrument."""
    anomalous: bool = True
    gains: str | None = "direction"
    """Free gains of films: direction, reflection or None."""
    settings: tuple[tuple[str, Any], ...] = ()


MOTION: dict[str, dict[str, Any]] = {
    "independent": {"correlation_shells": 0},
    "shells 2": {"correlation_shells": 2},
    "shells 4": {"correlation_shells": 4},
    "tail": {"correlation_shells": 1, "correlation_tail": 25.0},
}
CASES = (
    Case(name="perfect spheres, no solvent", solvents="none"),
    Case(name="perfect spheres, modelled liquids", solvents="models"),
    Case(name=FIGURE[0]),
    Case(name=FIGURE[1], motion="shells 2"),
    Case(name="+ correlated motion, 4 shells", motion="shells 4"),
    Case(name=FIGURE[2], motion="tail"),
    Case(name="tail, modelled liquids", motion="tail", solvents="models"),
    Case(name="tail, no solvent", motion="tail", solvents="none"),
    Case(name="tail + halo of 4 terms", motion="tail", settings=(("halo_shells", 4),)),
    Case(name=FIGURE[3], motion="tail", mixed=(("faults", "deformation_10"),)),
    Case(
        name="tail + deformation faults + halo",
        motion="tail",
        mixed=(("faults", "deformation_10"),),
        settings=(("halo_shells", 4),),
    ),
    Case(
        name="tail, deformation faults 2 % in all dots", motion="tail", variant=(("faults", "deformation"),)
    ),
    Case(name="tail + growth faults, mixed", motion="tail", mixed=(("faults", "growth_10"),)),
    Case(name="tail + truncated octahedra, mixed", motion="tail", mixed=(("shape", "truncated_octahedron"),)),
    Case(name="tail, cations end the dot", motion="tail", variant=(("surface", "cation_terminated"),)),
    Case(name="tail, polarisation divided out", motion="tail", corrected=True),
    Case(name="tail, no f', f'' and zero shift", motion="tail", anomalous=False),
    Case(name="tail, no zero shift", motion="tail", settings=(("zero_deg", 0.0),)),
    Case(name="tail, resolution and lines", motion="tail", instrument=True),
    Case(name="tail, weights by counts alone", motion="tail", settings=(("model_error", 0.0),)),
    Case(name="tail, a gain for each reflection", motion="tail", gains="reflection"),
    Case(name="tail, no gains", motion="tail", gains=None),
)
#: Choices of a group that conf/ does not have.
CHOICES: dict[str, Any] = {"deformation_10": {"deformation": 0.1}, "growth_10": {"growth": 0.1}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One file."""

    pattern: Pattern
    name: str
    wavelength: float
    size: float
    """[nm], from the name."""
    oriented: bool


def main(words: Sequence[str] | None = None) -> None:
    """Fit every file with every case; write table and figure."""
    options = _options(words)
    solvents = [_solvent(word) for word in options.solvent]
    samples = [_sample(path, options.oriented) for path in options.files]
    fits: dict[str, dict[str, Fit]] = {}
    for sample in samples:
        fits[sample.name] = {}
        for case in CASES:
            if not _concerns(case, sample) or (options.only and not re.search(options.only, case.name)):
                continue
            fit = fits[sample.name][case.name] = fit_case(case, sample, solvents)
            print(f"{sample.name:44s} {_row(case.name, fit)}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "fit_measured.md"
    table.write_text(_markdown(samples, fits), encoding="utf-8")
    _draw(options.output / "fit_measured.png", samples, fits)
    print(f"{table} and fit_measured.png")


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What each ingredient of the forward model is worth on measured patterns of PbS dots."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="PATTERN", help="2θ, intensity and perhaps σ")
    parser.add_argument(
        "--solvent", action="append", default=[], metavar="FILE@ANGSTROM", help="measured; may be repeated"
    )
    parser.add_argument("--oriented", default="lab", metavar="WORD", help="in the names of dried films (lab)")
    parser.add_argument("--only", metavar="REGEX", help="cases whose name matches")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, metavar="FOLDER")
    return parser.parse_args(words)


def parse_name(path: Path) -> tuple[float, float]:
    """Wavelength [Å] and size [nm] that the name of a file says, as in `wl0p5641A` and `5p03nm`.

    Raises:
        ValueError: one of them is missing.
    """
    wavelength = re.search(r"wl(\d+p\d+)", path.name)
    size = re.search(r"(?<![\dp])(\d+(?:p\d+)?)nm", path.name)
    if wavelength is None or size is None:
        raise ValueError(
            f"{path.name}: expected wavelength and size in the name, like PbS_wl0p5641A_5p03nm.xye; rename the file"
        )
    return float(wavelength[1].replace("p", ".")), float(size[1].replace("p", "."))


def about(card: Mapping[str, Any]) -> str:
    """A model, for the head of a table."""
    trained = card["trained"]
    return (
        f"{card['architecture']['name']}, {trained['patterns']:,} patterns, {trained['seconds'] / 60:.0f} minutes on "
        f"{trained['device']}; debye-dots {version('debye-dots')}"
    )


def _sample(path: Path, oriented: str) -> Sample:
    from qdml.files.patterns import read_pattern

    wavelength, size = parse_name(path)
    return Sample(
        pattern=read_pattern(path, wavelength=wavelength),
        name=path.stem,
        wavelength=wavelength,
        size=size,
        oriented=oriented in path.name,
    )


def _solvent(word: str) -> tuple[Pattern, float]:
    from qdml.files.patterns import read_pattern

    name, at, wavelength = word.rpartition("@")
    if not at:
        raise SystemExit(f"--solvent takes FILE@ANGSTROM, got {word!r}")
    return read_pattern(name, wavelength=float(wavelength)), float(wavelength)


def _concerns(case: Case, sample: Sample) -> bool:
    """Whether a case differs from others for this sample, and can be told: free gains would choose among two sorts."""
    return not case.mixed if sample.oriented else case.gains == "direction"


def fit_case(case: Case, sample: Sample, solvents: Sequence[tuple[Pattern, float]]) -> Fit:
    """One fit."""
    from hpc.instrument.setup import load_instrument
    from hpc.structure.variant import Variant
    from qdml.fitting.fit import fit_pattern
    from qdml.fitting.settings import fit_settings

    def variant(extra: tuple[tuple[str, str], ...]) -> Variant:
        chosen = {"material": "pbs", "shape": "sphere", **dict(case.variant), **dict(extra)}
        return Variant.from_config({name: CHOICES.get(one, one) for name, one in chosen.items()})

    variants = (variant(()), *((variant(case.mixed),) if case.mixed else ()))
    liquids: tuple[Any, ...] = {
        "measured": tuple(
            _divided(one, wavelength, in_plane=_SYNCHROTRON) if case.corrected else one
            for one, wavelength in solvents
        ),
        "models": ("hexane", "toluene"),
        "none": (),
    }[case.solvents]
    pattern = sample.pattern
    if case.corrected:
        in_plane = _TUBE if sample.oriented else _SYNCHROTRON
        pattern = _divided(pattern, sample.wavelength, in_plane=in_plane)
    if not case.anomalous:
        pattern = replace(pattern, energy_kev=None)
    instrument = None
    if case.instrument:
        instrument = load_instrument("lab_cu" if sample.oriented else "synchrotron_strip")
    # Faulted crystals take long to count: not larger ones than these sizes need.
    largest = (2.1 if sample.size < _SMALL else 1.45) * sample.size
    changes: dict[str, Any] = {
        "largest_nm": (largest, 40.0),
        **MOTION[case.motion],
        "solvents": liquids,
        "instrument": instrument,
        "texture": case.gains if sample.oriented else None,
        **({"zero_deg": _FILM_ZERO} if sample.oriented else {}),
        **dict(case.settings),
    }
    return fit_pattern(pattern, fit_settings(variants, **changes))


def _divided(pattern: Pattern, wavelength: float, *, in_plane: float) -> Pattern:
    """A pattern without its polarisation factor."""
    from hpc.instrument.angles import two_theta_of
    from hpc.instrument.geometry import polarisation

    factor = np.asarray(polarisation(two_theta_of(pattern.q, wavelength), in_plane))
    sigma = None if pattern.sigma is None else pattern.sigma / factor
    return replace(pattern, intensity=pattern.intensity / factor, sigma=sigma)


def _flanks(fit: Fit) -> list[float]:
    """Mean of (measured - fitted)/measured [%] at `FLANKS`."""
    q = fit.points.q[fit.points.mask]
    residual = 100 * (fit.points.y - fit.total) / fit.points.y
    return [float(residual[np.abs(q - at) < _FLANK_WIDTH].mean()) for at in FLANKS]


HEADER = (
    "| model | χ² counts | χ² with model error | R_wp % | residual % at Q 1.75 / 1.97 / 2.20 "
    "| D_n nm | D_v nm | σ % | s |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def _row(name: str, fit: Fit) -> str:
    """One line of a table."""
    counts = "-" if np.isnan(fit.chi2) else f"{fit.chi2:.0f}"
    flanks = " / ".join(f"{one:+.1f}" for one in _flanks(fit))
    number, volume = fit.diameter_nm, fit.diameter_volume_nm

    def interval(one: Any, digits: int, factor: float = 1) -> str:
        low, high = factor * one.lo68, factor * one.hi68
        return f"{factor * one.mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    return (
        f"| {name} | {counts} | {fit.chi2_model:.3f} | {100 * fit.rwp:.2f} | {flanks} "
        f"| {interval(number, 2)} | {interval(volume, 2)} | {interval(fit.sigma, 1, 100)} | {fit.seconds:.1f} |"
    )


def _dots(fit: Fit) -> list[np.ndarray]:
    """The pattern of each sort of dots."""
    return [curve for name, curve in fit.contributions.items() if name.startswith("dots")]


def _faulted(fit: Fit) -> str:
    """Share of a second sort of dots, by area."""
    areas = [float(curve.sum()) for curve in _dots(fit)]
    return f"; second sort {100 * areas[1] / sum(areas):.0f} % of the dots' area" if len(areas) > 1 else ""


def _markdown(samples: Sequence[Sample], fits: dict[str, dict[str, Fit]]) -> str:
    lines = [
        "# Fits of measured PbS patterns, with and without each ingredient",
        "",
        "`python benchmarks/fit_measured.py PATTERN... --solvent FILE@ANGSTROM`. Patterns, solvents and the sizes in",
        "the names: QDots-sizer, University of Insubria (npj Comput. Mater. 2024, 10.1038/s41524-024-01241-6). Those",
        "sizes come from fits of the Debye equation too: differences below 0.05 nm mean nothing, and a better χ² is",
        "not a better size.",
        "",
        "*χ² counts*: with the noise of counting alone, points every 0.01 1/Å. *χ² with model error*: with the weights",
        "of the fit. Residual: (measured - fitted)/measured. In brackets: central 68 % of the profile along σ. Dried",
        "films have free gains of directions. *tail*: the first shell's correlation is free, beyond it c = t r_1/r up",
        "to 25 Å.",
        "",
    ]
    for oriented, title in ((False, "Solutions"), (True, "Dried films")):
        chosen = [sample for sample in samples if sample.oriented == oriented]
        if not chosen:
            continue
        lines += [
            f"## {title}: mean of {len(chosen)}",
            "",
            "| model | χ² with model error | R_wp % | \\|D_n - name\\| nm | D_n - name nm | D_v - name nm | σ % | s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in fits[chosen[0].name]:
            own = [(fits[sample.name][name], sample.size) for sample in chosen]
            number = np.array([fit.diameter_nm.mean - size for fit, size in own])
            volume = np.array([fit.diameter_volume_nm.mean - size for fit, size in own])
            lines.append(
                f"| {name} | {np.mean([fit.chi2_model for fit, _ in own]):.3f} "
                f"| {100 * np.mean([fit.rwp for fit, _ in own]):.2f} | {np.abs(number).mean():.2f} "
                f"| {' '.join(f'{one:+.2f}' for one in number)} | {' '.join(f'{one:+.2f}' for one in volume)} "
                f"| {' '.join(f'{100 * fit.sigma.mean:.1f}' for fit, _ in own)} "
                f"| {np.mean([fit.seconds for fit, _ in own]):.1f} |"
            )
        lines.append("")
        for sample in chosen:
            lines += [f"### `{sample.name}`: {sample.size:g} nm", "", HEADER]
            lines += [_row(name, fit) for name, fit in fits[sample.name].items()]
            for name in FIGURE[2:]:
                if fit := fits[sample.name].get(name):
                    values = ", ".join(f"{key} {value:.4g}" for key, value in fit.best.items())
                    shares = _faulted(fit)
                    lines += ["", f"*{name}*: {values}{shares}."]
            lines.append("")
    return "\n".join(lines)


_MEASURED, _COLOURS = "#222222", ("#b8b8b8", "#8fbcd8", "#2f6f9f", "#c8402f")


def _draw(path: Path, samples: Sequence[Sample], fits: dict[str, dict[str, Fit]]) -> None:
    """A row for each sample: the pattern with its best fit, residuals of some models, the same around 111 and 200."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    with mpl.rc_context({**style, "legend.frameon": False, "legend.fontsize": 7}):
        figure = Figure(figsize=(11, 2.5 * len(samples)), layout="constrained")
        grid = figure.subplots(len(samples), 3, squeeze=False, width_ratios=(1.25, 1.25, 1))
        for row, (axes, sample) in enumerate(zip(grid, samples, strict=True)):
            shown = [(name, fits[sample.name][name]) for name in FIGURE if name in fits[sample.name]]
            if not shown:
                continue
            best = shown[-1][1]
            q = best.points.q[best.points.mask]
            unit = best.points.y.max()
            axes[0].plot(q, best.points.y / unit, color=_MEASURED, lw=1.6, label="measured")
            colour = _COLOURS[len(shown) - 1]
            axes[0].plot(q, best.total / unit, color=colour, lw=0.8, label=shown[-1][0])
            axes[0].plot(
                q, (best.total - sum(_dots(best))) / unit, color="#3f8f5f", lw=0.8, label="all but the dots"
            )
            axes[0].set_yscale("log")
            axes[0].set_title(f"{sample.name}: {sample.size:g} nm", fontsize=8, loc="left", parse_math=False)
            limit = 1.0
            for axis, high in ((axes[1], q[-1]), (axes[2], 4.0)):
                for colour, (name, fit) in zip(_COLOURS, shown, strict=False):
                    residual = 100 * (fit.points.y - fit.total) / fit.points.y
                    text = f"{name}: D {fit.diameter_nm.mean:.2f}, σ {100 * fit.sigma.mean:.0f} %"
                    axis.plot(q, residual, color=colour, lw=0.9, label=text if axis is axes[1] else None)
                    limit = max(limit, float(np.percentile(np.abs(residual), 99.7)))
                axis.axhline(0, color="0.6", lw=0.5, zorder=0)
                axis.set_xlim(q[0], high)
                axis.set_ylim(-1.1 * limit, (1.1 if axis is axes[2] else 1.9) * limit)
            axes[0].set_xlim(q[0], q[-1])
            for at in FLANKS:
                axes[2].axvline(at, color="0.8", lw=0.5, zorder=0)
            axes[0].set_ylabel("Intensity / maximum")
            axes[1].set_ylabel("(measured - fitted) / measured (%)")
            axes[1].legend(loc="upper right", labelspacing=0.2)
            axes[0].legend(loc="upper right")
            if row == 0:
                axes[2].set_title("the same around 111 and 200", fontsize=8, loc="left")
        for axis in grid[-1]:
            axis.set_xlabel("Q (Å$^{-1}$)")
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
