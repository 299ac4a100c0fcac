"""Patterns of dots that are not those of the training, with known sizes: what measured patterns are, and are not.

Sizes of measured patterns are known to nobody, so whether intervals hold for patterns that the world of a model does
not contain has to be asked of simulated ones. Each of `KINDS` is wrong in a way of its own that none of the latents of
conf/augment/instrument.yaml describes: planar faults, other shapes, two sizes, strain that differs from dot to dot, a
liquid that is not listed, another resolution than is told, steps between the modules of a detector; films that are
thin, whose dots lie on a face, whose tube has a monochromator. The simulation is exact (`hpc.dots`, `oriented`,
`hpc.instrument.recorded`). How wrong they are was chosen for what samples may be, not for what comes of it: qd-fit
finds 7 to 30 % of faulted dots in measured solutions (qdml/README.md), fits of measured patterns are better with
strains that differ by 0.2 to 0.4 % (results/film_hypotheses.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from oriented import excess

from hpc.dots import dot_pattern
from hpc.instrument.angles import two_theta_of
from hpc.instrument.geometry import thin_film
from hpc.instrument.recorded import Sample, ideal_window, measure
from hpc.instrument.setup import Instrument, load_instrument
from hpc.liquids.terms import liquid_profile
from hpc.radiation import load_radiation
from hpc.structure.material import load_material
from hpc.structure.variant import Variant
from qdml.files.patterns import Pattern

__all__ = ["KINDS", "Kind", "Misfit", "misfits"]

# Number-mean D [nm] and σ of the main population: what samples of these sizes have.
_SMALL, _MIDDLE, _LARGE = (3.1, 0.13), (4.7, 0.10), (7.0, 0.08)
# Instrument -> scan [degrees], photons at the highest point, zero error [degrees], dots.
_SCANS = {
    "synchrotron_strip": ((5.0, 88.0, 0.0108), 500_000, 0.01, (_SMALL, _MIDDLE, _LARGE)),
    "lab_cu": ((17.0, 100.0, 0.02), 10_000, 0.08, (_SMALL, _MIDDLE)),
}
# As measured dots need them (qdml/README.md, "What explains measured patterns"): correlated motion c = 1.2 Å/r, B above
# that of bulk.
_MOTION, _B_SCALE, _STRAIN = {"smooth": 1.2}, 1.3, 0.001
# Of the recorded area: dots, liquid; the rest is flat.
_DOTS, _LIQUID = 0.5, 0.3
_STEP = 0.004  # of the simulation [Å⁻¹]
_SPHERE = {"shape": "sphere"}
_MODULE_DEG = 5.0
# Films: normals of the dots' faces lie within so many degrees of that of the film, which makes gains of reflections of
# 0.1 to 5, for this share of the dots; the others lie anyhow.
_SPREAD_DEG, _ORIENTED = 15.0, 0.8
# Nodes of a normal distribution of strains.
_STRAINS = 7

# A liquid with a ring of another place and width than any in the world of the training.
_OTHER_LIQUID = ("toluene", 0.92)


def _faulted(shape: str) -> tuple[tuple[float, float, Mapping[str, Any]], ...]:
    """Dots of which a fifth has faults."""
    return (0.8, 1.0, {"shape": shape}), (0.2, 1.0, {"shape": shape, "faults": {"deformation": 0.1}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to be wrong."""

    name: str
    dots: tuple[tuple[float, float, Mapping[str, Any]], ...] = ((1.0, 1.0, _SPHERE),)
    """Populations: share by number, D over that of the main one, variant beside material and motion."""
    liquid: tuple[str, float] = ("hexane", 1.0)
    """A liquid, and by how much its pattern is stretched along Q."""
    resolution: float = 1.0
    """Widths over those that are told."""
    modules: float = 0.0
    """Standard deviation of the efficiency of detector modules."""
    strains: float = 0.0
    """Standard deviation of ε from dot to dot."""
    pole: tuple[int, int, int] | None = None
    """Normal of the face that the dots of a film lie on."""
    layer: float | None = None
    """μt of a film; None for one that is thick."""
    radiation: str | None = None
    """Lines of the tube, where they are not those that are told."""

    def possible(self, instrument: Instrument) -> bool:
        """Whether a measurement with this instrument can be wrong in this way."""
        film = self.pole is not None or self.layer is not None or self.radiation is not None
        plate = instrument.geometry == "bragg_brentano"
        return not (film and not plate) and not (self.modules > 0 and plate)


KINDS = (
    Kind(name="nothing wrong"),
    Kind(name="20 % of the dots have 10 % deformation faults per layer", dots=_faulted("sphere")),
    Kind(name="rhombohedral, 89.6°", dots=((1.0, 1.0, _SPHERE | {"lattice": "rhombohedral"}),)),
    Kind(name="surface relaxed by -0.2 Å", dots=((1.0, 1.0, _SPHERE | {"disorder": {"relaxation": -0.2}}),)),
    Kind(
        name="ellipsoids, 1.3 along [001]",
        dots=((1.0, 1.0, {"shape": {"name": "ellipsoid", "aspect": 1.3}}),),
    ),
    Kind(name="two sizes, 30 % of the dots have 0.7 D", dots=((0.7, 1.0, _SPHERE), (0.3, 0.7, _SPHERE))),
    Kind(
        name="skewed to small sizes",
        dots=((0.55, 1.05, _SPHERE), (0.25, 0.92, _SPHERE), (0.13, 0.78, _SPHERE), (0.07, 0.62, _SPHERE)),
    ),
    Kind(name="a liquid not listed", liquid=_OTHER_LIQUID),
    Kind(name="resolution 1.5 times what is told", resolution=1.5),
    Kind(name="modules of the detector differ by 1 %", modules=0.01),
    Kind(
        name="truncated octahedra, 20 % faulted, liquid not listed, resolution 1.2",
        dots=_faulted("truncated_octahedron"),
        liquid=_OTHER_LIQUID,
        resolution=1.2,
    ),
    Kind(name="strain differs by 0.3 % from dot to dot", strains=0.003),
    Kind(name="a film of μt = 0.1", layer=0.1),
    Kind(name="a film, dots lie on {110}", pole=(1, 1, 0)),
    Kind(name="a film, dots lie on {111}", pole=(1, 1, 1)),
    Kind(name="a tube with a monochromator, Kα1 alone", radiation="cu_kalpha1"),
    Kind(
        name="a film of μt = 0.1, truncated octahedra on {110}, strain differs by 0.3 %, Kα1 alone",
        dots=((1.0, 1.0, {"shape": "truncated_octahedron"}),),
        strains=0.003,
        pole=(1, 1, 0),
        layer=0.1,
        radiation="cu_kalpha1",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """One pattern and what is true of its dots."""

    kind: str
    instrument: str
    pattern: Pattern
    diameter_nm: float
    """<d>."""
    diameter_volume_nm: float
    """<d⁴>/<d³>, which D(1 + σ²)³ is of a lognormal distribution."""
    sigma: float
    """Of all dots together."""


def misfits(seed: int = 0) -> Iterator[Misfit]:
    """Every kind, size and instrument, one after the other; their noise has seeds of its own."""
    number = seed
    for kind in KINDS:
        for name, (*_, dots) in _SCANS.items():
            for diameter, sigma in dots:
                number += 1
                if kind.possible(load_instrument(name)):
                    yield _misfit(kind, diameter, sigma, name, number)


def _misfit(kind: Kind, diameter: float, sigma: float, name: str, seed: int) -> Misfit:
    scan, photons, zero, _ = _SCANS[name]
    instrument = load_instrument(name).with_window(*scan)
    energy = instrument.radiation.energy_kev
    assert energy is not None  # of X-rays
    if kind.radiation is not None:
        instrument = replace(instrument, radiation=load_radiation(kind.radiation))
    low, high = ideal_window(instrument)
    q = np.arange(max(low - _STEP, _STEP), high + 2 * _STEP, _STEP)
    dots = np.zeros(len(q))
    for share, factor, variant in kind.dots:
        dots += share * _population(kind, variant, q, diameter * factor, sigma, energy)
    window = instrument.q_window()
    inside = (q >= window[0]) & (q <= window[1])
    liquid, stretch = kind.liquid
    around = np.interp(q, q * stretch, liquid_profile(liquid, q, energy_kev=instrument.radiation.energy_kev))
    ideal = dots / dots[inside].mean() + _LIQUID / _DOTS * around / around[inside].mean()
    if kind.layer is not None:
        ideal = ideal * thin_film(two_theta_of(q, instrument.wavelength), kind.layer)
    placed = Sample(
        zero_deg=zero, displacement_mm=0.0, solvents={}, background=1 - _DOTS - _LIQUID, isotropic=0.0
    )
    seen = measure(q, ideal, _blurred(instrument, kind.resolution), placed, peak_counts=photons, noise=False)
    generator = np.random.default_rng(seed)
    gains = generator.normal(1.0, kind.modules, int(180 / _MODULE_DEG))
    expected = seen.expected * seen.unit * gains[(seen.two_theta / _MODULE_DEG).astype(int)]
    counts = generator.poisson(expected).astype(float)
    mean, volume, spread = _moments(kind, diameter, sigma)
    return Misfit(
        kind=kind.name,
        instrument=name,
        pattern=Pattern(
            source=f"{kind.name}, {diameter:g} nm, {name}",
            q=4 * np.pi / instrument.wavelength * np.sin(np.radians(seen.two_theta) / 2),
            intensity=counts / seen.unit,
            sigma=np.sqrt(np.maximum(counts, 1)) / seen.unit,
            energy_kev=energy,
        ),
        diameter_nm=mean,
        diameter_volume_nm=volume,
        sigma=spread,
    )


def _population(
    kind: Kind, variant: Mapping[str, Any], q: np.ndarray, diameter: float, sigma: float, energy_kev: float
) -> np.ndarray:
    """(q,) what a mean dot of one population scatters [electron units]."""
    node, weight = np.polynomial.hermite_e.hermegauss(_STRAINS if kind.strains else 1)
    common: dict[str, Any] = {
        "q": q,
        "diameter_nm": diameter,
        "sigma": sigma,
        "strain": _STRAIN + kind.strains * node,
        "energy_kev": energy_kev,
        "b_scale": _B_SCALE,
    }
    dot = Variant.from_config({"material": load_material("pbs"), "motion": _MOTION} | dict(variant))
    found = dot_pattern(dot, per_atom=False, tail=1e-4, **common)
    if kind.pole is not None:
        found = found + _ORIENTED * excess(dot, pole=kind.pole, spread_deg=_SPREAD_DEG, **common)
    mean: np.ndarray = weight / weight.sum() @ found
    return mean


def _blurred(instrument: Instrument, factor: float) -> Instrument:
    """The instrument with all widths times a factor; u, v, w are squares."""
    powers = {"u": 2, "v": 2, "w": 2, "x": 1, "y": 1}
    old = instrument.resolution
    wider = {name: getattr(old, name) * factor**power for name, power in powers.items()}
    return replace(instrument, resolution=replace(old, **wider))


def _moments(kind: Kind, diameter: float, sigma: float) -> tuple[float, float, float]:
    """<d>, <d⁴>/<d³> and the relative standard deviation of lognormal populations of one σ."""

    def moment(k: int) -> float:
        # Of a lognormal number: D^k (1 + σ²)^(k(k-1)/2).
        return sum(
            share * (factor * diameter) ** k * (1 + sigma**2) ** (k * (k - 1) / 2)
            for share, factor, _ in kind.dots
        )

    return moment(1), moment(4) / moment(3), float(np.sqrt(moment(2) / moment(1) ** 2 - 1))
