"""The data contract: names, axes, types and units of everything in a store.

One zarr v3 group per data set. Coordinates and intensities lie at its root, the size-resolved partial sums in the
group `basis`. Readers check `FORMAT_VERSION` and nothing else about the writer.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ARRAYS",
    "BASIS",
    "BASIS_PARTIAL",
    "B_SCALE",
    "DIAMETER",
    "FORMAT_VERSION",
    "INTENSITY",
    "PARAMETERS",
    "SIGMA",
    "STRAIN",
    "Field",
    "Q",
]

FORMAT_VERSION = 1

Q = "q"
INTENSITY = "intensity"
DIAMETER = "diameter"
SIGMA = "sigma"
STRAIN = "strain"
B_SCALE = "b_scale"
BASIS = "basis"
BASIS_PARTIAL = "basis/partial"

#: The grid's parameters, slowest axis of a cartesian grid first: neighbouring samples share size tables.
PARAMETERS = (STRAIN, B_SCALE, DIAMETER, SIGMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One stored array."""

    axes: tuple[str, ...]
    dtype: str
    units: str
    meaning: str


ARRAYS: dict[str, Field] = {
    Q: Field(axes=("q",), dtype="float64", units="1/angstrom", meaning="scattering vector, uniform"),
    INTENSITY: Field(
        axes=("sample", "q"),
        dtype="float32",
        units="electron units per atom",
        meaning="clean coherent intensity",
    ),
    DIAMETER: Field(axes=("sample",), dtype="float64", units="nm", meaning="number-mean diameter D"),
    SIGMA: Field(
        axes=("sample",), dtype="float64", units="1", meaning="relative standard deviation of the diameter"
    ),
    STRAIN: Field(axes=("sample",), dtype="float64", units="1", meaning="isotropic lattice strain"),
    B_SCALE: Field(axes=("sample",), dtype="float64", units="1", meaning="factor on every Debye-Waller B"),
    "basis/diameter": Field(
        axes=("k",),
        dtype="float64",
        units="nm",
        meaning="particle k exists from this diameter up to the next one",
    ),
    "basis/n_atoms": Field(
        axes=("k", "kind"), dtype="float64", units="1", meaning="sites of each kind in particle k"
    ),
    "basis/q_fine": Field(
        axes=("q_fine",), dtype="float64", units="1/angstrom", meaning="grid of the partial sums"
    ),
    BASIS_PARTIAL: Field(
        axes=("pair", "k", "q_fine"),
        dtype="float64",
        units="1",
        meaning="sum over ordered pairs of sin(Qr)/(Qr), without form factors, for each pair of kinds a <= b",
    ),
}
