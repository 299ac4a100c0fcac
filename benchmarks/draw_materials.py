"""Gallery of the materials of `conf/material`: a dot of each, and its pattern.

    python benchmarks/draw_materials.py [--diameter-nm 4] [-o benchmarks/results/materials.png]

Left, the sphere of that diameter around the heaviest element, seen a little off an axis (wurtzite and orthorhombic
crystals with c up); what lies deeper is paler, and partly occupied sites are as transparent as they are empty. Right,
the intensity of an ensemble of such dots, σ = 8 %, X-rays of 22 keV, in units of its highest point.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import numpy as np
from figures import figure_arguments

from hpc.dots import dot_pattern
from hpc.structure.material import Material, load_material, material_names
from hpc.structure.particles import build_particle
from hpc.structure.variant import Shape, Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Families in the order of the gallery; what is in none of them comes last.
ORDER = (
    *("pbs", "pbse", "pbte"),
    *("cds", "cdse", "cdte", "cds_wurtzite", "cdse_wurtzite", "cdte_wurtzite"),
    *("zns", "zns_wurtzite", "znse", "inp", "inas", "insb"),
    *("cspbcl3", "cspbbr3", "cspbi3"),
    *("cspbcl3_orthorhombic", "cspbbr3_orthorhombic", "cspbi3_orthorhombic"),
    *("fapbbr3", "gaas", "au", "ag", "pt", "pd"),
)
SIGMA = 0.08
COLUMNS = 3
# Colours by element that can be told apart beside each other; others are those of Jmol.
COLOURS = {
    "Pb": "#4a5a73",
    "S": "#e8b923",
    "Se": "#e07b00",
    "Te": "#b5482a",
    "Cd": "#6aa6c4",
    "Zn": "#7a86b8",
    "In": "#8d6a9f",
    "P": "#f08a24",
    "As": "#6fb07f",
    "Sb": "#3f8f8a",
    "Cs": "#b7a2e0",
    "Cl": "#3fa34d",
    "Br": "#b03a2e",
    "I": "#8e1b5e",
    "C": "#505050",
    "N": "#3050f8",
    "H": "#b8b8b8",
    "Pt": "#8d97ab",
    "Pd": "#5c8f92",
}
# Radius of the discs: in covalent radii, and at most [Å] (caesium would hide the rest).
SIZE, LARGEST = 0.75, 1.35


def _colour(element: str) -> np.ndarray:
    from matplotlib.colors import to_rgb

    if element in COLOURS:
        return np.array(to_rgb(COLOURS[element]))
    from ase.data import atomic_numbers
    from ase.data.colors import jmol_colors

    return np.asarray(0.85 * jmol_colors[atomic_numbers[element]])


def _heaviest(material: Material) -> str:
    """Label of the cut centre with the most electrons."""
    import gemmi

    by_label = {kind.label: gemmi.Element(kind.element).atomic_number for kind in material.kinds}
    return max(material.cut_centres, key=lambda label: by_label[label])


def _draw_dot(axis: Axes, material: Material, diameter: float) -> None:
    """The atoms, front ones last."""
    from ase.data import atomic_numbers, covalent_radii
    from matplotlib.collections import EllipseCollection

    kinds, positions = build_particle(
        Variant(material=material, shape=Shape(name="sphere")),
        centre=_heaviest(material),
        diameter=diameter,
        seed=0,
        realisation=0,
        realisations=1,
    )
    index = np.repeat(np.arange(len(kinds)), [len(one) for one in positions])
    # The eye is on x, 14° to the side and 9° above: y to the right, z up.
    side, above = np.radians(14), np.radians(9)
    x, y, z = np.concatenate(positions).T
    x, y = np.cos(side) * x + np.sin(side) * y, -np.sin(side) * x + np.cos(side) * y
    depth, z = np.cos(above) * x + np.sin(above) * z, -np.sin(above) * x + np.cos(above) * z
    order = np.argsort(depth)
    order = order[depth[order] > -0.1 * diameter]
    near = (depth[order] / diameter + 0.5).clip(0, 1)[:, None]
    base = np.array([_colour(kind.element) for kind in kinds])[index[order]]
    shade = 1 - (1 - base) * (0.25 + 0.75 * near**1.3)
    opaque = np.array([kind.occupancy for kind in kinds])[index[order]]
    radii = SIZE * np.array([covalent_radii[atomic_numbers[kind.element]] for kind in kinds])
    radius = radii.clip(max=LARGEST)[index[order]]
    axis.add_collection(
        EllipseCollection(
            2 * radius,
            2 * radius,
            np.zeros(len(order)),
            units="xy",
            offsets=np.column_stack((y, z))[order],
            offset_transform=axis.transData,
            facecolors=np.column_stack((shade, opaque)),
            edgecolors=np.column_stack((0.55 * shade, opaque)),
            linewidths=0.25,
        )
    )
    reach = diameter / 2 + 2.5
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axis.axis("off")


def _title(material: Material) -> str:
    formula, _, form = material.name.partition("_")
    crystal = {"F m -3 m": "rocksalt", "F -4 3 m": "zinc blende", "P m -3 m": "cubic"}
    if len(material.kinds) == 1:
        crystal["F m -3 m"] = "fcc"
    formula = re.sub(r"(\d+)", r"$_{\1}$", formula)
    return f"{formula}, {form or crystal.get(material.space_group, material.space_group)}"


def main() -> None:
    """Compute and draw."""
    chosen = figure_arguments(__doc__, "materials.png", diameter_nm=4.0)
    import matplotlib.pyplot as plt

    q = np.arange(0.8, 10.0, 0.01)
    names = [*ORDER, *(name for name in material_names() if name not in ORDER)]
    rows = -(-len(names) // COLUMNS)

    figure = plt.figure(figsize=(11.5, 1.42 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.015, wspace=0, hspace=0)
    grid = figure.add_gridspec(rows, 2 * COLUMNS, width_ratios=[1, 2] * COLUMNS)
    for number, name in enumerate(names):
        material = load_material(name)
        row, column = divmod(number, COLUMNS)
        _draw_dot(figure.add_subplot(grid[row, 2 * column]), material, 10 * chosen.diameter_nm)
        start = time.process_time()
        pattern = dot_pattern(
            material, q=q, diameter_nm=chosen.diameter_nm, sigma=SIGMA, energy_kev=22.0, tail=1e-4
        )
        seconds = time.process_time() - start
        axis = figure.add_subplot(grid[row, 2 * column + 1])
        axis.plot(q, pattern / pattern.max(), lw=0.8, color="#33658a")
        axis.set(xlim=(q[0], q[-1]), ylim=(0, 1.08), yticks=[])
        axis.set_xticks([2, 4, 6, 8])
        last = number + COLUMNS >= len(names)
        axis.tick_params(labelsize=8, labelbottom=last)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.text(0.99, 0.97, _title(material), fontsize=9, ha="right", va="top", transform=axis.transAxes)
        elements = list(dict.fromkeys(kind.element for kind in material.kinds))
        for place, element in enumerate(elements):
            axis.text(
                0.99 - 0.085 * (len(elements) - 1 - place),
                0.76,
                element,
                fontsize=8.5,
                ha="right",
                va="top",
                weight="bold",
                color=_colour(element),
                transform=axis.transAxes,
            )
        if last:
            axis.set_xlabel("Q [1/Å]", fontsize=8, labelpad=1)
        print(f"{name:24s} {sum(1 for _ in material.kinds)} kinds, {seconds:6.2f} s of CPU", flush=True)
    figure.savefig(chosen.output, dpi=100)
    plt.close(figure)
    print(f"{chosen.output}: {chosen.diameter_nm:g} nm, σ = {SIGMA:g}")


if __name__ == "__main__":
    main()
