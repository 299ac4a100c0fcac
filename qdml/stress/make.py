"""A stress set from its description: exact patterns, then what the set changes, then counts.

    dots, exact (`hpc.dots.dot_pattern`)  + solvent in shares of the area 1000
    resolution    Gaussian, the same at all Q
    zero shift    shown Q = true Q + shift
    background    flat, a share of the area on top
    counts        y' = Poisson(y·scale)/scale, as published

Every size has the same number of patterns. Noise cells, dispersions and strains are dealt out to them evenly, each by a
permutation of its own (a Latin design); sets of one seed share it, row for row.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from qdml.stress.sets import StressConfig

__all__ = ["AREA", "Design", "StressSet", "design_of", "expected_patterns", "make_set", "shown_q"]

#: Area of a published pattern [intensity x Å⁻¹].
AREA = 1000.0

# Standard deviations of the resolution that patterns are simulated beyond both ends of the grid.
_REACH = 6.0
# Streams of the random numbers of a set.
_DESIGN, _COUNTS = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What each pattern of a set is of: arrays of (B,)."""

    diameter_nm: np.ndarray
    """float64 [nm], number mean."""
    sigma: np.ndarray
    strain: np.ndarray
    solvent: np.ndarray
    """int64, index into the set's solvents."""
    fraction: np.ndarray
    """float64, the dots' share of the area, before a background."""
    scale: np.ndarray
    """float64, photons per intensity."""

    def __len__(self) -> int:
        return len(self.diameter_nm)

    def take(self, index: np.ndarray) -> Design:
        """Some of the patterns."""
        return Design(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class StressSet:
    """Patterns as measured, and what they are of."""

    q: np.ndarray
    """(Q,) float64 [Å⁻¹], shown."""
    intensity: np.ndarray
    """(B, Q) float32, counts over scale."""
    mask: np.ndarray
    """(Q,) bool, visible."""
    design: Design

    @property
    def noise(self) -> np.ndarray:
        """(B, Q) float32: √max(N, 1) of the counts N, over the scale: what a file would declare."""
        scale = self.design.scale[:, None]
        counts = np.maximum(np.rint(self.intensity * scale), 1.0)
        return (np.sqrt(counts) / scale).astype(np.float32)


def shown_q(config: StressConfig) -> np.ndarray:
    """(Q,) float64 [Å⁻¹]: the grid of a set."""
    n = math.floor((config.q.max - config.q.min) / config.q.step + 1e-9) + 1
    return config.q.min + config.q.step * np.arange(n)


def design_of(config: StressConfig) -> Design:
    """What the patterns of a set are of."""
    rng = np.random.default_rng((config.seed, _DESIGN))
    n = config.per_size
    strains = np.linspace(config.strain[0], config.strain[1], config.strains)
    cells = [(s, f, k) for s in range(len(config.solvents)) for f in config.fractions for k in config.scales]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("sigma", "strain", "cell")}
    for _ in config.diameter_nm:
        for name, choices in (("sigma", len(config.sigma)), ("strain", len(strains)), ("cell", len(cells))):
            # From a random start, so that what does not divide evenly is not always the same.
            dealt = (np.arange(n) + rng.integers(choices)) % choices
            columns[name].append(rng.permutation(dealt))
    index = {name: np.concatenate(parts) for name, parts in columns.items()}
    of_cell = np.array(cells, dtype=np.float64)[index["cell"]]
    return Design(
        diameter_nm=np.repeat(np.array(config.diameter_nm), n),
        sigma=np.array(config.sigma)[index["sigma"]],
        strain=strains[index["strain"]],
        solvent=of_cell[:, 0].astype(np.int64),
        fraction=of_cell[:, 1],
        scale=of_cell[:, 2],
    )


def expected_patterns(config: StressConfig, design: Design) -> np.ndarray:
    """(B, Q) float64: patterns without noise, of the area 1000·(1 + background).

    Raises:
        ValueError: a material, shape or liquid that does not exist.
    """
    from hpc.dots import dot_pattern
    from hpc.instrument.resolution import broaden
    from hpc.liquids.terms import liquid_profile
    from hpc.structure.material import load_material

    width = config.resolution / (2 * math.sqrt(2 * math.log(2)))
    step = config.q.step
    shown = shown_q(config)
    room = math.ceil(_REACH * width / step)
    # True Q of the shown grid, and further on both sides by what the resolution brings in.
    q = shown[0] - config.zero_shift + step * np.arange(-room, len(shown) + room)
    inside = slice(room, room + len(shown))
    dots = dot_pattern(
        load_material(config.material).with_b_iso(config.b_iso),
        q=q,
        diameter_nm=design.diameter_nm,
        sigma=design.sigma,
        strain=design.strain,
        energy_kev=config.energy_kev,
        shape=config.shape,
        tail=config.tail,
    )
    solvent = np.stack([liquid_profile(name, q) for name in config.solvents])
    # Shares of the visible area: the sum over the shown points.
    dots /= dots[:, inside].sum(axis=1, keepdims=True)
    solvent /= solvent[:, inside].sum(axis=1, keepdims=True)
    share = design.fraction[:, None]
    total = share * dots + (1 - share) * solvent[design.solvent]
    if width > 0:
        total = broaden(total, width, None, step=step, sigma_max=width)
    flat = config.background / len(shown)
    return AREA / step * (total[:, inside] + flat)


def make_set(config: StressConfig) -> StressSet:
    """Simulate a set: the same bits for the same configuration.

    Raises:
        ValueError: see `expected_patterns`.
    """
    design = design_of(config)
    scale = design.scale[:, None]
    expected = expected_patterns(config, design)
    counts = np.random.default_rng((config.seed, _COUNTS)).poisson(expected * scale)
    q = shown_q(config)
    low, high = config.window or (q[0], q[-1])
    return StressSet(
        q=q,
        intensity=(counts / scale).astype(np.float32),
        mask=(q >= low) & (q <= high),
        design=design,
    )
