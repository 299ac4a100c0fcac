"""Built-in liquids against measured curves: tables of numbers and a figure.

    python benchmarks/compare_liquids.py hexane=Hexane.xye toluene=Toluene.xye --wavelength 0.564162 \
        [-o benchmarks/results/liquids.png]

A measured curve holds the liquid on an unknown scale, and its container, air and the detector's offset below it. Scale
and a cubic polynomial of Q are fitted by least squares over --q; ring position and full width at half maximum are those
of the measured curve less the polynomial, and of the model. `rms` is that of measured/fit - 1, `rms at the ring` the
same at 0.8 to 2.2 Å⁻¹, where the ring and its flanks are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc.liquids import Liquid, liquid_names, liquid_profile, liquid_terms, load_liquid
from qdml.files.patterns import read_pattern

BACKGROUND_POWERS = 4
RING = (0.8, 2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model against one measured curve on the same Q."""

    name: str
    model: str
    q: np.ndarray
    measured: np.ndarray
    fit: np.ndarray
    background: np.ndarray

    def numbers(self) -> list[str]:
        """The row of the table."""
        residual = self.measured / self.fit - 1
        at_ring = (self.q > RING[0]) & (self.q < RING[1])
        position, width = ring(self.q, self.measured - self.background)
        model_position, model_width = ring(self.q, self.fit - self.background)
        correlation = np.corrcoef(self.measured, self.fit)[0, 1]
        return [
            self.name,
            self.model,
            f"{correlation:.4f}",
            f"{100 * np.sqrt(np.mean(residual**2)):.1f} %",
            f"{100 * np.sqrt(np.mean(residual[at_ring] ** 2)):.1f} %",
            f"{position:.3f}",
            f"{model_position:.3f}",
            f"{width:.3f}",
            f"{model_width:.3f}",
        ]


HEADER = [
    "liquid",
    "structure",
    "correlation",
    "rms",
    "rms at the ring",
    "ring, measured [Å⁻¹]",
    "model",
    "its FWHM, measured [Å⁻¹]",
    "model",
]


def ring(q: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Position (a parabola through the top 10 %) and full width at half maximum of the highest maximum."""
    top = int(y.argmax())
    near = (y > 0.9 * y[top]) & (np.abs(q - q[top]) < 0.15)
    curve = np.polynomial.Polynomial.fit(q[near], y[near], 2)
    slope = curve.deriv().roots()[0].real
    half = y[top] / 2
    low = np.flatnonzero(y[:top] < half)[-1]
    high = top + np.flatnonzero(y[top:] < half)[0]
    return float(slope), float(q[high] - q[low])


def compare(liquid: Liquid, model: str, q: np.ndarray, measured: np.ndarray) -> Comparison:
    """Fit scale and background."""
    profile = liquid_profile(liquid, q)
    powers = np.stack([(q / q[-1]) ** n for n in range(BACKGROUND_POWERS)], axis=1)
    design = np.column_stack([profile, powers])
    # Relative residuals: the ring is ten times higher than what follows it.
    coefficients = np.linalg.lstsq(design / measured[:, None], np.ones_like(measured), rcond=None)[0]
    return Comparison(
        name=liquid.name,
        model=model,
        q=q,
        measured=measured,
        fit=design @ coefficients,
        background=powers @ coefficients[1:],
    )


def smoothed(path: str, wavelength: float, q: np.ndarray) -> np.ndarray:
    """The measured curve as means over the cells of the uniform grid q."""
    pattern = read_pattern(path, wavelength=wavelength, q_unit=None)
    step = q[1] - q[0]
    cell = np.rint((pattern.q - q[0]) / step).astype(int)
    inside = (cell >= 0) & (cell < q.size)
    count = np.bincount(cell[inside], minlength=q.size)
    if not count.all():
        raise ValueError(
            f"{path} does not cover {q[0]:g} to {q[-1]:g} Å⁻¹ in steps of {step:g}; give another --q"
        )
    return np.bincount(cell[inside], weights=pattern.intensity[inside], minlength=q.size) / count


def draw(comparisons: list[Comparison], path: Path) -> None:
    """One column per measured curve: the curve and the models, and their residuals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(c.name for c in comparisons))
    figure, axes = plt.subplots(
        2,
        len(names),
        figsize=(5.5 * len(names), 5.5),
        squeeze=False,
        sharex=True,
        height_ratios=(3, 1),
        layout="constrained",
    )
    for column, name in enumerate(names):
        upper, lower = axes[:, column]
        for n, c in enumerate(c for c in comparisons if c.name == name):
            if n == 0:
                upper.plot(c.q, c.measured, color="black", lw=2.5, alpha=0.35, label="measured")
                upper.plot(c.q, c.background, color="grey", lw=0.8, ls="--", label="background of the fit")
            upper.plot(c.q, c.fit, color=f"C{n}", lw=1.1, label=f"model, {c.model.replace('_', ' ')}")
            lower.plot(c.q, 100 * (c.measured / c.fit - 1), color=f"C{n}", lw=1.0)
        upper.set(title=name, ylabel="intensity [arbitrary]" if column == 0 else "")
        upper.legend(frameon=False, fontsize=8)
        lower.axhline(0, color="black", lw=0.5)
        lower.set(xlabel="Q [Å⁻¹]", ylabel="measured/fit - 1 [%]" if column == 0 else "", ylim=(-30, 30))
        lower.set_xlim(comparisons[0].q[0], 10)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Compare, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "curves", nargs="+", metavar="LIQUID=FILE", help="measured curves by name of the liquid"
    )
    parser.add_argument(
        "--wavelength", type=float, required=True, help="of the measurement [Å]; files hold 2θ"
    )
    parser.add_argument("--q", type=float, nargs=2, default=(0.5, 15.0), help="window [Å⁻¹] (0.5 15)")
    parser.add_argument(
        "--structures", nargs="+", default=["table", "hard_spheres"], help="kinds of structure"
    )
    parser.add_argument("-o", "--output", type=Path, help="figure to write")
    arguments = parser.parse_args()
    q = np.arange(arguments.q[0], arguments.q[1], 0.01)
    comparisons = []
    for curve in arguments.curves:
        name, file = curve.split("=", 1)
        measured = smoothed(file, arguments.wavelength, q)
        for kind in arguments.structures:
            liquid = replace(load_liquid(name), structure={"asymptote_from": 0.5, "kind": kind})
            comparisons.append(compare(liquid, kind, q, measured))
    print("| " + " | ".join(HEADER) + " |")
    print("|" + "---|" * len(HEADER))
    for c in comparisons:
        print("| " + " | ".join(c.numbers()) + " |")
    print("\n| liquid | structure | ring of the model [Å⁻¹] | half width [Å⁻¹] | height over free atoms |")
    print("|---|---|---|---|---|")
    for name in liquid_names():
        terms = liquid_terms(name, q)
        height = np.interp(terms.ring, q, terms.total / terms.self)
        kind = load_liquid(name).structure["kind"]
        print(f"| {name} | {kind} | {terms.ring:.2f} | {terms.ring_width:.2f} | {height:.1f} |")
    if arguments.output:
        draw(comparisons, arguments.output)


if __name__ == "__main__":
    main()
