"""Many ensembles at once are the same numbers as one after the other."""

from dataclasses import replace

import numpy as np
import pytest

from hpc.dots import dot_pattern
from hpc.structure.material import load_material
from hpc.structure.variant import Motion, Shape, Variant

Q = np.arange(0.9, 8.0, 0.013)
PBS = load_material("pbs")
ROWS = {
    "diameter_nm": np.array([2.0, 3.1, 2.6, 2.0]),
    "sigma": np.array([0.05, 0.1, 0.0, 0.1]),
    "strain": np.array([0.004, 0.0, 0.004, -0.002]),
}


@pytest.mark.parametrize(
    "dot",
    [
        Variant(material=PBS, shape=Shape(name="sphere")),
        Variant(material=PBS, shape=Shape(name="octahedron")),
        replace(Variant(material=PBS, shape=Shape(name="sphere")), motion=Motion(correlation=(0.4, 0.2))),
    ],
    ids=["sphere", "octahedron", "correlated motion"],
)
def test_rows_are_single_patterns(dot: Variant) -> None:
    many = dot_pattern(dot, q=Q, **ROWS, energy_kev=22.0, tail=1e-9)
    for row, pattern in enumerate(many):
        one = {name: float(values[row]) for name, values in ROWS.items()}
        single = dot_pattern(dot, q=Q, **one, energy_kev=22.0, tail=1e-9)
        # The largest particle is that of all rows: what differs is the tail of 1e-9.
        np.testing.assert_allclose(pattern, single, rtol=0, atol=1e-7 * single.max())


def test_a_number_is_that_of_every_row() -> None:
    sizes = {"diameter_nm": np.array([2.0, 3.1]), "energy_kev": 22.0, "b_scale": 1.4, "compton": True}
    given = dot_pattern(PBS, q=Q, **sizes, sigma=np.full(2, 0.1), strain=np.full(2, 0.002))
    np.testing.assert_array_equal(dot_pattern(PBS, q=Q, **sizes, sigma=0.1, strain=0.002), given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": np.array([0.1, -0.1, 0.0, 0.0])}, "sigma must be >= 0, got -0.1"),
        ({"diameter_nm": np.array([2.0, np.nan, 2.0, 2.0])}, "diameter_nm must be > 0, got nan"),
        ({"strain": np.array([0.0, 0.0, -1.0, 0.0])}, "strain must be > -1, got -1.0"),
        ({"strain": np.zeros(3)}, "as long as each other, got 4, 4, 3 numbers"),
        ({"sigma": np.zeros(0)}, "as long as each other, got 4, 0, 4 numbers"),
    ],
)
def test_bad_rows(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dot_pattern(PBS, q=Q, **(ROWS | change), energy_kev=22.0)
