"""Reflections of any cell, their groups, the Bragg part and gains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hpc.dots import dot_sums
from hpc.scattering import coefficients
from hpc.structure.material import load_material
from hpc.structure.variant import Motion, Variant
from hpc.texture import (
    bragg_part,
    diffuse_terms,
    group_labels,
    reflection_groups,
    reflections,
    texture_gain,
)

PBS = load_material("pbs")
WURTZITE = load_material("cdse_wurtzite")
Q = np.arange(0.02, 12, 0.02)


def test_reflections_of_a_face_centred_cube():
    found = reflections(PBS, 4.5)
    assert found.hkl.tolist() == [[1, 1, 1], [2, 0, 0], [2, 2, 0], [3, 1, 1], [2, 2, 2], [4, 0, 0]]
    assert found.multiplicity.tolist() == [8, 6, 12, 24, 8, 6]
    np.testing.assert_allclose(found.q, 2 * np.pi / 5.936 * np.sqrt([3, 4, 8, 11, 12, 16]))


def test_reflections_of_wurtzite():
    """P6₃mc: 00l with l even, hhl with l even; the multiplicities of 6mm with Friedel's law are those of 6/mmm."""
    found = reflections(WURTZITE, 4.0)
    table = {tuple(hkl): m for hkl, m in zip(found.hkl.tolist(), found.multiplicity, strict=True)}
    assert table[1, 0, 0] == 6 and table[0, 0, 2] == 2 and table[1, 0, 1] == 12 and table[1, 1, 0] == 6
    assert (0, 0, 1) not in table and (0, 0, 3) not in table and (1, 1, 1) not in table


def test_every_index_belongs_to_one_reflection():
    """Multiplicities add up to all indices of a primitive cell in a ball."""
    material = replace(PBS, name="P1", space_group="P 1", cell_angstrom=(4.0, 5.0, 6.1, 80, 95, 102))
    found = reflections(material, 5.0)
    assert np.all(found.multiplicity == 2)
    cell_volume = 4.0 * 5.0 * 6.1 * 0.95
    expected = 4 / 3 * np.pi * 5.0**3 / (8 * np.pi**3 / cell_volume)
    assert found.multiplicity.sum() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("material", [PBS, WURTZITE], ids=["cubic", "hexagonal"])
@pytest.mark.parametrize("by", ["direction", "reflection"])
def test_groups_share_q(material, by):
    groups = reflection_groups(material, Q, by=by)
    labels = group_labels(material, float(Q[-1]), by=by)
    assert groups.shape == (len(labels), len(Q))
    assert groups.min() >= 0
    total = groups.sum(axis=0)
    # What is missing is the direct beam's.
    assert np.all(total <= 1 + 1e-12)
    assert np.all(total[Q > 1.8] > 0.999)
    assert total[0] < 1e-4
    # Each reflection of its own has most of its position.
    found = reflections(material, 3.0)
    for hkl, q in zip(found.hkl[:2].tolist(), found.q[:2], strict=True):
        index = labels.index(tuple(hkl) if by == "reflection" else tuple(np.array(hkl) // np.gcd.reduce(hkl)))
        assert groups[index, np.argmin(np.abs(Q - q))] > 0.75


def test_directions_hold_their_orders():
    labels = group_labels(PBS, 12.0)
    groups = reflection_groups(PBS, Q)
    of_111 = groups[labels.index((1, 1, 1))]
    edge = 2 * np.pi / 5.936
    for order in (1, 2):
        assert of_111[np.argmin(np.abs(Q - edge * np.sqrt(3) * order))] > 0.7
    assert of_111[np.argmin(np.abs(Q - 2 * edge))] < 0.01


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"surface": "skin"},
        {"disorder": {"vacancies": {"S": 0.2}}},
        {"lattice": "rhombohedral"},
        {"motion": "neighbours"},
    ],
)
def test_the_bragg_part_is_never_negative(groups):
    variant = Variant.from_config({"material": PBS, "shape": "cube", **groups})
    sums = dot_sums(variant, q=Q, diameter_nm=2.5, sigma=0.1)
    bragg = sums.bragg(energy_kev=22.0, per_atom=True)
    total = sums.iq(energy_kev=22.0, per_atom=True)
    assert bragg.min() >= -1e-12 * total.max()
    if variant.motion == Motion():
        assert np.all(bragg <= total * (1 + 1e-12))


def test_the_bragg_part_is_the_average_of_the_mean_structure_over_orientations():
    """|Σ o f e^{-Bs²} e^{iQr}|² averaged over many directions of Q, for a particle with vacancies."""
    from hpc.structure.particles import build_particle

    variant = Variant.from_config(
        {
            "material": PBS,
            "shape": {"name": "sphere", "centres": ["Pb"]},
            "disorder": {"vacancies": {"S": 0.3}},
        }
    )
    kinds, positions = build_particle(variant, centre="Pb", diameter=15.0, seed=0)
    i = np.arange(20000) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / 20000), np.pi * (1 + 5**0.5) * i
    direction = np.stack(
        (np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)), axis=1
    )
    q = np.array([1.0, 2.1, 5.0])
    bragg = dot_sums(variant, q=q, diameter_nm=1.5).bragg(energy_kev=22.0)
    for index, x in enumerate(q):
        terms = coefficients(kinds, q[index : index + 1], energy_kev=22.0)
        amplitude = 0
        for kind, position, own in zip(kinds, positions, terms.self[:, 0], strict=True):
            f = np.sqrt(own / kind.occupancy)  # of like phases: f'' of Pb and S nearly vanish beside f
            damping = kind.occupancy * np.exp(-kind.b_iso * (x / (4 * np.pi)) ** 2)
            amplitude = amplitude + f * damping * np.exp(1j * x * direction @ position.T).sum(axis=1)
        assert np.mean(np.abs(amplitude) ** 2) == pytest.approx(bragg[index], rel=5e-3)


def test_gains_of_1_change_nothing_and_gains_multiply_the_bragg_part():
    sums = dot_sums(
        Variant.from_config({"material": PBS, "shape": "sphere", "motion": "neighbours"}),
        q=Q,
        diameter_nm=3.0,
    )
    total, bragg = sums.iq(energy_kev=22.0), sums.bragg(energy_kev=22.0)
    random = replace(sums, texture=texture_gain(PBS, Q, {(1, 1, 1): 1.0, (2, 0, 0): 1.0}))
    np.testing.assert_array_equal(random.iq(energy_kev=22.0), total)
    # All Bragg scattering gone: what is left is diffuse, and positive.
    assert (total - bragg)[Q > 1.0].min() > 0
    gain = texture_gain(PBS, Q, {(1, 1, 1): 2.0, (2, 0, 0): 0.5})
    textured = replace(sums, texture=gain).iq(energy_kev=22.0)
    at_111, at_200, at_220 = (np.argmin(np.abs(Q - 2 * np.pi / 5.936 * np.sqrt(n))) for n in (3, 4, 8))
    assert textured[at_111] / total[at_111] == pytest.approx(2, abs=0.1)
    assert textured[at_200] / total[at_200] == pytest.approx(0.5, abs=0.1)
    assert textured[at_220] / total[at_220] == pytest.approx(1, abs=0.02)


def test_a_strained_crystal_has_its_reflections_elsewhere():
    """At Q it is what the unstrained one is at Q(1+ε)."""
    strained = texture_gain(PBS, Q, {(1, 1, 1): 2.0}, strain=0.02)
    np.testing.assert_allclose(strained, texture_gain(PBS, 1.02 * Q, {(1, 1, 1): 2.0}), rtol=1e-12)
    assert Q[Q < 2.5][strained[Q < 2.5].argmax()] == pytest.approx(1.833 / 1.02, abs=0.03)


def test_batches_on_torch():
    terms = coefficients(PBS.kinds, Q, energy_kev=22.0)
    exponent = terms.exponent[[0, 2]]
    occupancy, shares = np.ones(2), np.array([[0.5, 0.5], [0.52, 0.48]])
    total = 100 + np.random.default_rng(0).random((2, len(Q)))
    b_scale = np.array([1.0, 1.5])[:, None, None]
    expected = bragg_part(total, shares, diffuse_terms(terms.self, occupancy, exponent, b_scale))
    arrays = [torch.from_numpy(x) for x in (terms.self, occupancy, exponent, b_scale)]
    found = bragg_part(torch.from_numpy(total), torch.from_numpy(shares), diffuse_terms(*arrays))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="blend of reflections must be > 0"):
        reflection_groups(PBS, Q, blend=0.0)
    with pytest.raises(ValueError, match="grouped by 'direction' or 'reflection', got 'size'"):
        reflection_groups(PBS, Q, by="size")
    with pytest.raises(ValueError, match="110 is no reflection of PbS .* there are 111, 200, 220"):
        texture_gain(PBS, Q, {(1, 1, 0): 2.0}, by="reflection")
    with pytest.raises(ValueError, match="the gain of 111 must be >= 0, got -1"):
        texture_gain(PBS, Q, {(1, 1, 1): -1.0})
    with pytest.raises(ValueError, match="111 and 222 are one direction"):
        texture_gain(PBS, Q, {(1, 1, 1): 2.0, (2, 2, 2): 3.0})
    with pytest.raises(ValueError, match="100,0,0 is no reflection"):
        texture_gain(PBS, Q, {(100, 0, 0): 2.0}, by="reflection")
