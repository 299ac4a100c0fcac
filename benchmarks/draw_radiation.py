"""What the radiation does: patterns of one dot by X-rays and neutrons, and the tables behind them, as one figure.

    python benchmarks/draw_radiation.py [-o benchmarks/results/radiation.png]

PbS dots of 4 nm, σ = 8 %; dispersion of lead; fluorescence of compounds (lines above 4 keV); the resonance of cadmium.
"""

from __future__ import annotations

import numpy as np
from figures import figure_arguments

from hpc.absorption import fluorescence
from hpc.dots import dot_pattern
from hpc.form_factors import compton, scattering_factor
from hpc.neutrons import scattering_length
from hpc.radiation import load_radiation
from hpc.structure.material import load_material

TUBES = {"Cu": "cu_kalpha", "Mo": "mo_kalpha", "Ag": "ag_kalpha"}
COMPOUNDS = ("PbS", "CdSe", "CsPbBr3")
BLUE, RED, GREEN, GREY = "#33658a", "#c8553d", "#588157", "0.55"
# What air, windows and the capillary absorb [keV].
LINES_ABOVE = 4.0


def main() -> None:
    """Compute and draw."""
    chosen = figure_arguments(__doc__, "radiation.png")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), layout="constrained")
    _draw_patterns(axes[0, 0])
    _draw_dispersion(axes[0, 1])
    _draw_fluorescence(axes[1, 0])
    _draw_cadmium(axes[1, 1])
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8, frameon=False)
    # Between the lowest curve and the line of Compton scattering.
    axes[1, 0].legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.13))
    figure.savefig(chosen.output, dpi=110)
    print(chosen.output)


def _energy(name: str) -> float:
    energy = load_radiation(name).energy_kev
    assert energy is not None
    return energy


def _draw_patterns(axis) -> None:
    """Intensity over that of atoms that scatter alone: 1 at large Q, whatever the radiation."""
    pbs, q = load_material("pbs"), np.arange(0.8, 8.0, 0.01)
    silver = _energy("ag_kalpha")
    x_rays = {e: scattering_factor(e, q, energy_kev=silver) for e in ("Pb", "S")}
    alone = sum(abs(f) ** 2 for f in x_rays.values()) / 2
    dot = {"q": q, "diameter_nm": 4.0, "sigma": 0.08}
    axis.plot(
        q, dot_pattern(pbs, **dot, energy_kev=silver) / alone, lw=0.9, color=BLUE, label="X-rays, Ag Kα1"
    )
    alone = sum(abs(scattering_length(e)) ** 2 for e in ("Pb", "S")) / 2
    axis.plot(q, dot_pattern(pbs, **dot, particle="neutron") / alone, lw=0.9, color=RED, label="neutrons")
    axis.set(xlabel="Q [1/Å]", ylabel="I / ⟨|f|²⟩")
    axis.set_title(
        "PbS, 4 nm: the nuclei of Pb and S differ less than their electrons", fontsize=9, loc="left"
    )


def _draw_dispersion(axis) -> None:
    energy = np.concatenate(
        (np.arange(6.0, 12.9, 0.05), np.arange(12.9, 16.2, 0.004), np.arange(16.2, 30, 0.05))
    )
    zero = np.zeros(1)
    bare = scattering_factor("Pb", zero, anomalous=False)[0]
    f = np.array([scattering_factor("Pb", zero, energy_kev=e)[0] - bare for e in energy])
    axis.plot(energy, f.real, lw=0.9, color=BLUE, label="f' of Pb")
    axis.plot(energy, f.imag, lw=0.9, color=RED, label="f''")
    _mark_tubes(axis)
    axis.set(xlabel="photon energy [keV]", ylabel="electrons", xlim=(6, 30))
    axis.set_title("dispersion by energy, and the Kα1 lines", fontsize=9, loc="left")


def _draw_fluorescence(axis) -> None:
    energy = np.arange(6.0, 60.0, 0.1)
    for compound, colour in zip(COMPOUNDS, (BLUE, RED, GREEN), strict=True):
        level = [fluorescence(compound, e, lines_above_kev=LINES_ABOVE) for e in energy]
        axis.plot(energy, np.where(np.array(level) > 0, level, np.nan), lw=0.9, color=colour, label=compound)
    q = np.array([5.0])
    coherent = sum(abs(scattering_factor(e, q, energy_kev=22.0)[0]) ** 2 for e in ("Pb", "S")) / 2
    axis.axhline(coherent, lw=0.7, ls="--", color=BLUE, label="⟨|f|²⟩ of PbS at 5 1/Å")
    incoherent = sum(compton(e, q)[0] for e in ("Pb", "S")) / 2
    axis.axhline(incoherent, lw=0.7, ls=":", color=BLUE, label="its Compton scattering")
    _mark_tubes(axis)
    axis.set(
        xlabel="photon energy [keV]",
        ylabel="electron units per atom",
        yscale="log",
        xlim=(6, 60),
        ylim=(5, 3e4),
    )
    axis.set_title("fluorescence, lines above 4 keV", fontsize=9, loc="left")


def _draw_cadmium(axis) -> None:
    wavelength = np.linspace(0.3, 3.0, 800)
    b = np.array([scattering_length("Cd", wavelength=w) for w in wavelength])
    axis.plot(wavelength, b.real, lw=0.9, color=BLUE, label="b' of Cd")
    axis.plot(wavelength, b.imag, lw=0.9, color=RED, label="b''")
    axis.axhline(scattering_length("Se").real, lw=0.7, ls="--", color=GREY, label="b of Se")
    axis.set(xlabel="wavelength [Å]", ylabel="scattering length [fm]")
    axis.set_title("cadmium near the resonance of ¹¹³Cd", fontsize=9, loc="left")


def _mark_tubes(axis) -> None:
    above = axis.get_xaxis_transform()
    for element, name in TUBES.items():
        axis.axvline(_energy(name), lw=0.5, color=GREY)
        axis.text(_energy(name), 0.98, f" {element}", transform=above, fontsize=7, va="top", color="0.4")


if __name__ == "__main__":
    main()
