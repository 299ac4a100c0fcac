"""What a run of `qd-simulate` will make, before anything is counted: samples, families, and the layout of the store."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.config import SimulateConfig
from hpc.config_variants import title
from hpc.device import Device
from hpc.ensemble import OVERHANG, fine_step, largest_diameter
from hpc.grid import grid_samples, q_values
from hpc.memory import available_memory
from hpc.pairs.counting import Counting
from hpc.pairs.families import Sampling, Sizes, plan_counting, variant_kinds
from hpc.schema import DIAMETER, INTENSITY_UNITS, SIGMA, STRAIN, VARIANT
from hpc.store_writing import BasisLayout, Layout
from hpc.structure.material import Kind

if TYPE_CHECKING:
    from hpc.mpi import World

__all__ = ["Plan"]

# What the numbers of a store depend on.
_SOFTWARE = ("debye-dots", "numpy", "numba", "scipy", "periodictable", "xraydb", "xraylib", "zarr")
# How far the basis goes beyond the last point at the largest strain [Å⁻¹]. Whoever makes patterns of it reads there:
# reading between points, the second line of a doublet (0.04 at 14 Å⁻¹), a shifted zero (0.05 for 0.3° and Mo).
_BEYOND = 0.2
# Fraction of an ensemble's atoms in dots so large that the step of Q need not follow their longest distances: these are
# a small part of few dots' pairs. Patterns between the points are then right to 1e-3 of the peak, and most of them to
# 1e-5 (`hpc.instrument.lines`; experiment=production: all to 1e-4).
_RARE = 0.1


class Plan:
    """The same on every rank."""

    def __init__(self, config: SimulateConfig, device: Device) -> None:
        """Lay out the samples; variants are cut when they are asked for.

        Args:
            config: what to simulate.
            device: where this rank counts.
        """
        self.config, self._device = config, device
        self.samples = grid_samples(config.grid, config.seed, len(config.variants))
        self.q = q_values(config.q)
        particles = config.particles
        self._sampling = Sampling(
            size_step=10 * particles.size_step_nm,
            cut_step=10 * particles.cut_step_nm,
            realisations=particles.realisations,
            tolerance=particles.tolerance,
            seed=config.seed,
        )
        # Sites of one variant at a time: large families take gigabytes.
        self.counting = lru_cache(maxsize=1)(self._plan_counting)

    def _of_variant(self, variant: int) -> dict[str, np.ndarray]:
        mine = self.samples[VARIANT] == variant
        return {name: values[mine] for name, values in self.samples.items()}

    def _q_max(self, variant: int) -> float:
        """Largest Q [Å⁻¹] of the unstrained particles."""
        return float(self.q[-1] * (1 + self._of_variant(variant)[STRAIN].max()))

    def _plan_counting(self, variant: int) -> Counting:
        samples = self._of_variant(variant)
        sizes = Sizes(diameter=10 * samples[DIAMETER], sigma=samples[SIGMA], tail=self.config.grid.tail)
        return plan_counting(
            self.config.variants[variant],
            sizes,
            q_max=self._q_max(variant),
            device=self._device,
            sampling=self._sampling,
        )

    def kinds(self, variant: int) -> tuple[Kind, ...]:
        """What scatters in a variant."""
        return variant_kinds(self.config.variants[variant])

    def describe(self, variant: int) -> str:
        """What it is, how it is counted and what that takes."""
        counting = self.counting(variant)
        # Real positions in one pass: the only engine without a kernel.
        where = " on CPU cores" if self._device.kind == "cuda" and counting.engine == "cut" else ""
        return (
            f"{title(self.config.variants[variant])}: {counting.engine}{where}, {len(counting.diameter)} sizes, "
            f"{counting.costs.sum():.2g} pairs to visit, {counting.memory / 1e6:.0f} MB"
        )

    def layout(self, identity: dict[str, Any], world: World) -> Layout:
        """Axes, sizes and attributes of the store.

        Args:
            identity: the composed configuration, to be kept in the store.
            world: the ranks, which share the memory of their nodes.

        Raises:
            ValueError: q.step is too coarse for the largest particle, or the tables do not fit into memory.
        """
        config = self.config
        unit = INTENSITY_UNITS[config.particle]
        return Layout(
            q=self.q,
            parameters=self.samples,
            bases=tuple(self._basis(variant, world) for variant in range(len(config.variants))),
            rows_per_shard=config.store.rows_per_shard,
            rows_per_chunk=config.store.rows_per_chunk,
            attributes={
                "material": config.material.name,
                "variants": [self._attributes_of(variant) for variant in range(len(config.variants))],
                "radiation": config.radiation,
                "particle": config.particle,
                "energy_kev": config.energy_kev,
                "wavelength_angstrom": config.wavelength,
                "normalisation": f"{unit}: sum_k w_k I_k / sum_k w_k N_k, w lognormal number weights",
                "units": {"q": "1/angstrom", "diameter": "nm", "intensity": unit},
                "config": {**identity, "device": self._device.kind},
                "seed": config.seed,
                "software": {name: version(name) for name in _SOFTWARE},
                "git_commit": _git_commit(),
                # Not the number of cores: a rank that is pinned to one of them writes the same bytes.
                "device": "CPU" if self._device.kind == "cpu" else self._device.name,
            },
        )

    def _attributes_of(self, variant: int) -> dict[str, Any]:
        chosen = self.config.variants[variant]
        kinds = [
            {"label": k.label, "element": k.element, "occupancy": k.occupancy, "b_iso": k.b_iso}
            for k in self.kinds(variant)
        ]
        return {"title": title(chosen), **chosen.to_mapping(), "kinds": kinds}

    def _basis(self, variant: int, world: World) -> BasisLayout:
        counting = self.counting(variant)
        samples = self._of_variant(variant)
        common = largest_diameter(10 * samples[DIAMETER], samples[SIGMA], tail=_RARE)
        longest = counting.extent * min(1.0, common / counting.diameter[-1])
        if self.config.q.step > np.pi / longest:
            raise ValueError(
                f"q.step is too coarse for these dots: distances up to {longest / 10:.3g} nm need "
                f"q.step <= {np.pi / longest:.3g} 1/Å (Nyquist, π/D), got {self.config.q.step:g}; choose a finer "
                "q.step, smaller sizes or a smaller σ"
            )
        step = fine_step(counting.extent)
        axes = BasisLayout(
            diameter_nm=counting.diameter / 10,
            n_kind=len(counting.kinds),
            q_fine=step * np.arange(int(np.ceil((self._q_max(variant) + _BEYOND) / step)) + OVERHANG),
            near_distance=counting.near_distance,
        )
        # Counting; or patterns, which need the basis as it is stored and in the order of the products.
        needed, available = world.local_size * max(counting.memory, 2 * axes.bytes_needed), available_memory()
        if needed > available:
            raise ValueError(
                f"the pairs of {title(self.config.variants[variant])} up to {counting.diameter[-1] / 10:.3g} nm need "
                f"{needed / 1e9:.3g} GB on a node with {world.local_size} rank(s), it has {available / 1e9:.3g} GB; "
                "start fewer ranks on each node, or choose smaller sizes, a larger grid.tail, a larger "
                "particles.cut_step_nm or particles.size_step_nm"
            )
        return axes


def _git_commit() -> str | None:
    """The commit of this checkout; None for an installed package."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return None
    return answer.stdout.strip() or None
