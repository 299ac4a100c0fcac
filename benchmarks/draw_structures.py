"""What structure does to a pattern: each variant of `conf/` against the perfect sphere, as one figure.

    python benchmarks/draw_structures.py [--diameter-nm 4] [-o benchmarks/results/structures.png]

PbS dots of one volume-equivalent diameter, σ = 8 %. Every panel: the pattern of the variant and, below, its difference
to that of the sphere, in percent of the sphere's highest point and magnified as the panel says.
"""

from __future__ import annotations

import numpy as np
from figures import figure_arguments

from hpc.dots import dot_pattern
from hpc.pairs.families import Sampling
from hpc.structure.material import load_material
from hpc.structure.variant import Variant

# Title -> choices of the groups of conf/, by name.
VARIANTS: dict[str, dict[str, str]] = {
    "cube": {"shape": "cube"},
    "octahedron": {"shape": "octahedron"},
    "truncated octahedron": {"shape": "truncated_octahedron"},
    "rod": {"shape": "rod"},
    "platelet": {"shape": "platelet"},
    "cation terminated": {"surface": "cation_terminated"},
    "S skin, 1/8 occupied": {"surface": "skin"},
    "rhombohedral, α = 89.6°": {"lattice": "rhombohedral"},
    "Pb 0.05 Å along [111]": {"lattice": "off_centre"},
    "ε(D), inverse-linear": {"lattice": "size_strain"},
    "deformation faults, 2 % per layer": {"faults": "deformation"},
    "growth faults": {"faults": "growth"},
    "one twin plane": {"faults": "twin_plane"},
    "faulted {111} facets": {"faults": "facet_layer"},
    "relaxed surface": {"disorder": "relaxed_surface"},
    "static disorder": {"disorder": "disordered"},
    "vacancies": {"disorder": "vacancies"},
    "PbSe core, PbS shell": {"material": "pbse", "coating": "pbs_shell"},
    "neighbours move together": {"motion": "neighbours"},
    "neighbours, and a halo": {"motion": "halo"},
    "neighbours, and surface B × 2": {"motion": "surface"},
}
SIGMA = 0.08
COLUMNS = 3


def _variant(choices: dict[str, str]) -> Variant:
    choices = {"material": "pbs", "shape": "sphere", **choices}
    return Variant.from_config({**choices, "material": load_material(choices["material"])})


def main() -> None:
    """Compute and draw."""
    chosen = figure_arguments(__doc__, "structures.png", diameter_nm=4.0)
    import matplotlib.pyplot as plt

    q = np.arange(0.8, 8.0, 0.01)

    def pattern(choices: dict[str, str]) -> np.ndarray:
        return dot_pattern(
            _variant(choices),
            q=q,
            diameter_nm=chosen.diameter_nm,
            sigma=SIGMA,
            energy_kev=22.0,
            tail=1e-4,
            sampling=Sampling(realisations=4),
        )

    sphere = pattern({})
    rows = -(-len(VARIANTS) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(11, 1.75 * rows), sharex=True, sharey=True, layout="constrained"
    )
    for axis, (title, choices) in zip(axes.flat, VARIANTS.items(), strict=False):
        # A dot of another material is compared with the sphere of that material.
        reference = pattern({"material": choices["material"]}) if "material" in choices else sphere
        values, peak = pattern(choices), reference.max()
        difference = 100 * (values - reference) / peak
        # Of these, the largest that leaves the difference in its part of the panel.
        factor = next(m for m in (100, 30, 10, 3, 1, 0.5) if m * np.abs(difference).max() < 45)
        axis.plot(q, 100 * values / peak, lw=0.8, color="#33658a")
        axis.axhline(-50, lw=0.4, color="0.6")
        axis.plot(q, factor * difference - 50, lw=0.8, color="#c8553d")
        axis.set_title(title, fontsize=9, loc="left")
        rms = np.sqrt(np.mean(difference**2))
        axis.text(
            0.98,
            0.84,
            f"difference ×{factor:g}, rms {rms:.2g} %",
            fontsize=8,
            ha="right",
            transform=axis.transAxes,
            color="#c8553d",
        )
        print(f"{title:36s} rms difference {rms:6.2f} % of the peak")
    for axis in axes.flat[len(VARIANTS) :]:
        axis.set_visible(False)
    figure.supxlabel("Q [1/Å]", fontsize=9)
    figure.supylabel("I [% of the sphere's highest point]; below: its difference to the sphere", fontsize=9)
    figure.savefig(chosen.output, dpi=110)
    print(f"{chosen.output}: PbS, {chosen.diameter_nm:g} nm, σ = {SIGMA:g}")


if __name__ == "__main__":
    main()
