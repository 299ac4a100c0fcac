"""What augmentation does to a pattern: each effect by itself, before and after, as one figure.

    python benchmarks/draw_augmentation.py [-o benchmarks/results/augmentation.png]

A PbS dot of 4 nm, σ = 8 %, on the grid of `experiment=quick`. Grey: before the effect; colours: after,
three draws of the recipe `instrument`, the strength of its ranges. Below each pair the ratio of after to
before, where it shows more.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_augmentation import config_of, small_store
from figures import figure_arguments

from hpc.instrument.lines import seen
from qdml.augmentation.counts import photons
from qdml.augmentation.dots import Dots
from qdml.augmentation.instrument import InstrumentRecipe
from qdml.augmentation.latents import LatentSpace
from qdml.augmentation.recipes import build_recipe
from qdml.dataset import read_rows

# Panels with the difference below.
DIFFERENCES = (
    "correlated motion",
    "halo of a disordered shell",
    "B of the surface and of S",
    "f', f'' of the photon energy",
    "Cu Kα doublet, zero, widths",
    "Ag Kα doublet, capillary",
    "strip (blue) and flat panel (red)",
)
COLOURS = ("#33658a", "#c8553d", "#5b8e55")
CPU = torch.device("cpu")


def main() -> None:
    """Draw."""
    import tempfile

    chosen = figure_arguments(__doc__, "augmentation.png")
    import matplotlib.pyplot as plt

    with tempfile.TemporaryDirectory() as folder:
        store = small_store(Path(folder) / "store.zarr")
        panels = _panels(store)
    q = store.q
    figure, axes = plt.subplots(4, 3, figsize=(12, 11), layout="constrained")
    for axis, (title, before, after, limits, note) in zip(axes.flat, panels, strict=True):
        inside = (q >= limits[0]) & (q <= limits[1])
        top = max(float(np.nanmax(y[inside])) for y in (before, *after) if y is not None)
        if before is not None:
            axis.fill_between(q, 0, 100 * before / top, color="0.85", lw=0)
            axis.plot(q, 100 * before / top, color="0.45", lw=1.0)
        for colour, y in zip(COLOURS, after, strict=False):
            axis.plot(q, 100 * y / top, color=colour, lw=0.9)
        axis.set_xlim(*limits)
        axis.set_ylim(0, 108)
        if before is not None and title in DIFFERENCES:
            change = [100 * (y - before) / top for y in after]
            largest = max(float(np.abs(one[inside]).max()) for one in change)
            times = next(m for m in (50, 30, 20, 10, 5, 3, 2, 1, 0.5) if m * largest < 45)
            axis.axhline(-50, lw=0.4, color="0.6")
            for colour, one in zip(COLOURS, change, strict=False):
                axis.plot(q, times * one - 50, color=colour, lw=0.9)
            axis.set_ylim(-100, 108)
            note += f"\nbelow: difference ×{times:g}"
        axis.set_yticks([])
        axis.set_title(title, fontsize=10, loc="left")
        axis.text(0.98, 0.93, note, fontsize=8, ha="right", va="top", transform=axis.transAxes, color="0.25")
    figure.supxlabel("Q [1/Å]", fontsize=10)
    figure.supylabel("intensity (grey: before, colours: three draws)", fontsize=10)
    figure.savefig(chosen.output, dpi=100)
    print(chosen.output)


def _panels(store: Any) -> list[tuple[str, Any, list[np.ndarray], tuple[float, float], str]]:
    """Title, pattern before, patterns after, range of Q, and a line of text, for each effect."""
    config = config_of("instrument")
    recipe = build_recipe(config, store, CPU)
    assert isinstance(recipe, InstrumentRecipe)
    basis, space = recipe.basis, recipe.space
    crystal_q = torch.tensor(basis.q, dtype=torch.float32)
    rows = read_rows(store, np.arange(store.n_samples), CPU)
    one = int(torch.argmin((rows.diameter - 4.0).abs() + 20 * (rows.sigma - 0.08).abs()))
    rows = rows.take(torch.full((3,), one))
    dot = rows.main()
    energy = torch.full((3, 1), 22.0)
    off = replace(config.dots, correlation=(0.0, 0.0), halo=0.0, surface_b=(0.0, 0.0), b_ratio=(1.0, 1.0))

    def on_grid(y: torch.Tensor) -> list[np.ndarray]:
        read = seen(y, crystal_q, [1.0], [1.0], dot.strain[:, None] * crystal_q)
        return list(read[:, basis.inside].numpy())

    def dots(texture: float = 0.0, seed: int = 5, **on: Any) -> list[np.ndarray]:
        names = LatentSpace()
        effect = Dots(replace(off, **on), basis, (8.0, 90.0), names, CPU)
        values = names.values(names.draw(3, torch.Generator().manual_seed(seed)))
        return on_grid(effect(dot, energy, values, torch.full((3, 1), texture)))

    perfect = Dots(None, basis, (8.0, 90.0), LatentSpace(), CPU)
    clean = perfect(dot, energy)
    before = on_grid(clean)[0]
    anodes = on_grid(perfect(dot, torch.tensor([[8.048], [17.48], [75.0]])))

    def drawn(cell: int, seed: int) -> tuple[Any, Any, Any]:
        setting, z = recipe.draw(rows, torch.Generator().manual_seed(seed), cell)
        values = space.values(z)
        return setting, values, recipe._optics.view(setting, values)

    def shown(cell: int, seed: int = 1) -> list[np.ndarray]:
        _, _, view = drawn(cell, seed)
        return list(recipe._optics.show(clean, view, dot.strain[:, None]).numpy())

    _, values, _ = drawn(0, 3)
    liquids = recipe._surroundings.on_grid(recipe._surroundings.solvent(values)).numpy()
    setting, z = recipe.draw(rows, torch.Generator().manual_seed(4), 2)
    expected = recipe.expected(dot, setting, z)
    scene = expected.intensity.numpy()
    hidden = np.where(setting.mask > 0, scene, np.nan)
    parts = [np.where(setting.mask > 0, part, np.nan)[0] for part in expected.parts.values()]
    dose = torch.tensor([[30.0], [300.0], [3000.0]]) / hidden[0][~np.isnan(hidden[0])].max()
    noisy = photons(expected.intensity[:1] * dose, torch.Generator().manual_seed(3)) / dose
    noisy = torch.where(setting.mask[:1] > 0, noisy, torch.nan).numpy()
    whole = {}
    for cell in (0, 2):
        got = recipe.cell(cell, rows, torch.Generator().manual_seed(11))
        whole[cell] = list(torch.where(got.mask > 0, got.intensity, torch.nan).numpy())
    near, far, all_ = (1.5, 6.0), (1.5, 10.0), (0.9, 14.0)
    whole_before = before / before.max() * 2.5
    strip, area = shown(0), shown(1)
    motion, halo = dots(correlation=config.dots.correlation), dots(halo=config.dots.halo, seed=1)
    vibration = dots(surface_b=config.dots.surface_b, b_ratio=config.dots.b_ratio, seed=7)
    return [
        ("correlated motion", before, motion, far, "diffuse, between reflections"),
        ("halo of a disordered shell", before, halo, far, "broad near distances"),
        ("B of the surface and of S", before, vibration, far, "reflections fall at large Q"),
        ("f', f'' of the photon energy", before, anodes, far, "22 keV → 8, 17, 75 keV"),
        ("texture, ln γ ± 0.5", before, dots(texture=0.5), near, "Bragg part alone, by direction"),
        ("Cu Kα doublet, zero, widths", before, shown(2), far, "laboratory, Bragg-Brentano"),
        ("Ag Kα doublet, capillary", before, shown(4), far, "laboratory, Debye-Scherrer"),
        ("strip (blue) and flat panel (red)", before, [strip[0], area[0]], far, "synchrotrons"),
        ("solvents: mixed, of families", None, list(liquids), (0.9, 6.0), "ring position, width, height"),
        ("parts of a pattern", hidden[0], parts[:3], (0.9, 5.2), "dots, solvent, container; laboratory Cu"),
        ("photons", hidden[0], list(noisy), (1.2, 5.0), "30, 300, 3000 at the peak"),
        ("everything", whole_before, [*whole[0][:2], whole[2][0]], all_, "strip (blue, red), Cu (green)"),
    ]


if __name__ == "__main__":
    main()
