"""Near-neighbour terms of PbS."""

import numpy as np
import pytest

from hpc.form_factors import scattering_factor
from hpc.structure.material import load_material
from qdml.augmentation.neighbours import CORRELATION_NODES, neighbour_terms

Q = np.arange(1.0, 15.0, 0.05)
A = 5.936


@pytest.fixture(scope="module")
def terms():
    return neighbour_terms(load_material("pbs"), Q, energy_kev=22.0, anomalous=True, shells=4, halo_b=3.0)


def test_distances_are_those_of_rocksalt(terms) -> None:
    assert terms.distance == pytest.approx([A / 2, A / np.sqrt(2), A * np.sqrt(3) / 2, A], abs=1e-5)


def test_terms_count_the_neighbours_of_rocksalt(terms) -> None:
    pb, s = (scattering_factor(element, Q, energy_kev=22.0) for element in ("Pb", "S"))
    unlike, like = (pb * s.conj()).real, (np.abs(pb) ** 2 + np.abs(s) ** 2) / 2
    for shell, (n, f2) in enumerate(((6, unlike), (12, like), (8, unlike), (6, like))):
        r = terms.distance[shell]
        expected = n * f2 * np.sin(Q * r) / (Q * r) * np.exp(-3.0 * (Q / (4 * np.pi)) ** 2)
        assert terms.halo[shell] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_no_correlation_changes_nothing_and_full_correlation_undoes_the_debye_waller_factor(terms) -> None:
    assert not terms.correlated[:, 0].any()
    pb, s = (scattering_factor(element, Q, energy_kev=22.0) for element in ("Pb", "S"))
    r, damping = terms.distance[0], np.exp(-(1.28 + 1.25) * (Q / (4 * np.pi)) ** 2)
    expected = 6 * (pb * s.conj()).real * np.sin(Q * r) / (Q * r) * (1 - damping)
    assert CORRELATION_NODES[-1] == 1
    assert terms.correlated[0, -1] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_more_shells_than_there_are() -> None:
    with pytest.raises(ValueError, match="near_neighbours.shells must be <= "):
        neighbour_terms(load_material("pbs"), Q, energy_kev=22.0, anomalous=True, shells=99, halo_b=3.0)
