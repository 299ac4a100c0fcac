"""The data contract: names, axes, types and units of everything in a store.

One zarr v3 group per data set. Coordinates and intensities lie at its root, the size-resolved partial sums in the
group `basis`, or in `basis/0000`, `basis/0001`, ... when there are several structural variants (their descriptions are
the attribute `variants`). Readers check `FORMAT_VERSION` and nothing else about the writer.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ARRAYS",
    "BASIS",
    "BASIS_ARRAYS",
    "B_SCALE",
    "DIAMETER",
    "FORMAT_VERSION",
    "INTENSITY",
    "INTENSITY_UNITS",
    "NEAR_DISTANCE",
    "NEAR_PAIRS",
    "N_ATOMS",
    "PARAMETERS",
    "PARTIAL",
    "Q_FINE",
    "SIGMA",
    "STRAIN",
    "VARIANT",
    "Field",
    "Q",
    "basis_group",
]

FORMAT_VERSION = 3

Q = "q"
INTENSITY = "intensity"
DIAMETER = "diameter"
SIGMA = "sigma"
STRAIN = "strain"
B_SCALE = "b_scale"
VARIANT = "variant"
BASIS = "basis"
PARTIAL = "partial"
N_ATOMS = "n_atoms"
Q_FINE = "q_fine"
NEAR_DISTANCE = "near_distance"
NEAR_PAIRS = "near_pairs"

#: Particle of the radiation -> unit of the intensity.
INTENSITY_UNITS = {"xray": "electron units per atom", "neutron": "fm^2 per atom"}

#: The grid's parameters, slowest axis of a cartesian grid first: neighbouring samples share bases and size tables.
PARAMETERS = (VARIANT, STRAIN, B_SCALE, DIAMETER, SIGMA)


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
        units=INTENSITY_UNITS["xray"],
        meaning="clean coherent intensity",
    ),
    VARIANT: Field(
        axes=("sample",), dtype="int64", units="1", meaning="index into the attribute `variants` of the store"
    ),
    DIAMETER: Field(axes=("sample",), dtype="float64", units="nm", meaning="number-mean diameter D"),
    SIGMA: Field(
        axes=("sample",), dtype="float64", units="1", meaning="relative standard deviation of the diameter"
    ),
    STRAIN: Field(axes=("sample",), dtype="float64", units="1", meaning="isotropic lattice strain"),
    B_SCALE: Field(axes=("sample",), dtype="float64", units="1", meaning="factor on every Debye-Waller B"),
}
"""At the root."""

BASIS_ARRAYS: dict[str, Field] = {
    DIAMETER: Field(
        axes=("k",),
        dtype="float64",
        units="nm",
        meaning="particle k exists from this diameter up to the next one",
    ),
    N_ATOMS: Field(
        axes=("k", "kind"), dtype="float64", units="1", meaning="sites of each kind in particle k"
    ),
    Q_FINE: Field(axes=("q_fine",), dtype="float64", units="1/angstrom", meaning="grid of the partial sums"),
    PARTIAL: Field(
        axes=("pair", "k", "q_fine"),
        dtype="float64",
        units="1",
        meaning="sum over ordered pairs of sin(Qr)/(Qr), without form factors, for each pair of kinds a <= b",
    ),
    NEAR_DISTANCE: Field(
        axes=("near",),
        dtype="float64",
        units="angstrom",
        meaning="distances of near pairs, below 20 angstrom",
    ),
    NEAR_PAIRS: Field(
        axes=("pair", "k", "near"),
        dtype="float64",
        units="1",
        meaning="ordered pairs of particle k at these distances (or weights of such nodes), for correlated motion",
    ),
}
"""In the basis of each variant."""


def basis_group(variant: int, n_variants: int) -> str:
    """The group that holds the basis of a variant."""
    return BASIS if n_variants == 1 else f"{BASIS}/{variant:04d}"
