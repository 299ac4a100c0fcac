"""What a run will make: known, and refused, before anything is counted."""

from types import SimpleNamespace

import numpy as np
import pytest
from runs import simulate_config

from hpc import simulation_plan
from hpc.device import select_device
from hpc.ensemble import OVERHANG
from hpc.simulation_plan import Plan

ALONE, FOUR = SimpleNamespace(local_size=1), SimpleNamespace(local_size=4)


@pytest.fixture(scope="module")
def plan_of():
    def make(*overrides, device=None):
        return Plan(simulate_config("experiment=smoke", *overrides), device or select_device("cpu"))

    return make


VARIANTS = "variants={shape:[sphere,cube],disorder:[none,{relaxation:0.1}]}"


def test_every_variant_has_axes_of_its_own(plan_of):
    plan = plan_of(VARIANTS, "grid.sigma=[0.0,0.1]")
    layout = plan.layout({"seed": 0}, ALONE)
    assert layout.n_samples == 4 * 16 * 3 * 2
    assert [variant["title"] for variant in layout.attributes["variants"]] == [
        "sphere",
        "sphere disorder.relaxation=0.1",
        "cube",
        "cube disorder.relaxation=0.1",
    ]
    for variant, basis in enumerate(layout.bases):
        counting = plan.counting(variant)
        np.testing.assert_allclose(basis.diameter_nm, counting.diameter / 10)
        assert basis.n_kind == len(plan.kinds(variant)) == 2
        # The fine grid reaches 0.2/Å beyond the last q, strained, and resolves the largest particle.
        step = basis.q_fine[1]
        assert basis.q_fine[-OVERHANG - 1] <= plan.q[-1] * 1.004 + 0.2 <= basis.q_fine[-OVERHANG]
        assert step * counting.extent == pytest.approx(np.pi / 2.5)
    # A cube reaches farther than the ball of its volume.
    assert layout.bases[2].q_fine[1] < layout.bases[0].q_fine[1]


def test_what_will_be_counted_is_said(plan_of):
    plan = plan_of(VARIANTS)
    assert plan.describe(0).startswith("sphere: lattice, 49 sizes, ")
    assert plan.describe(1).startswith("sphere disorder.relaxation=0.1: ladder, ")
    assert "pairs to visit" in plan.describe(1)
    cuda = SimpleNamespace(kind="cuda", name="GPU")
    assert "cut on CPU cores" in plan_of("lattice=rhombohedral", device=cuda).describe(0)


def test_tables_that_do_not_fit_are_refused_beforehand(plan_of, monkeypatch):
    plan = plan_of("lattice=rhombohedral")
    needed = max(plan.counting(0).memory, 2 * plan.layout({}, ALONE).bases[0].bytes_needed)
    monkeypatch.setattr(simulation_plan, "available_memory", lambda: needed)
    plan.layout({}, ALONE)
    with pytest.raises(
        ValueError, match=r"sphere lattice\.alpha_deg=89\.6 up to 4\.\d* nm need 0\.\d* GB on a node with 4"
    ):
        plan.layout({}, FOUR)
    monkeypatch.setattr(simulation_plan, "available_memory", lambda: needed - 1)
    with pytest.raises(
        ValueError, match=r"it has .* GB; start fewer ranks on each node, or choose smaller sizes"
    ):
        plan.layout({}, ALONE)


def test_the_tables_take_what_was_said(plan_of):
    """The refusal is worth as much as the estimate."""
    for overrides in ((), ("lattice=rhombohedral",), ("lattice=size_strain",), ("disorder=relaxed_surface",)):
        counting = plan_of(*overrides).counting(0)
        tables = counting.tables()
        family = counting.family(tables)
        held = sum(table.nbytes for table in tables) + sum(table.entering.nbytes for table in family.pairs)
        assert 0.3 * counting.memory <= held <= counting.memory


def test_a_step_of_q_that_no_variant_of_this_size_allows_is_refused(plan_of):
    """The diagonal of a cube is the longest distance: 40 % more than the diameter of the ball."""
    plan_of("shape=sphere", "q.step=0.075").layout({}, ALONE)
    with pytest.raises(
        ValueError, match=r"q\.step is too coarse for these dots: distances up to 4\.\d* nm need"
    ):
        plan_of("shape=cube", "q.step=0.075").layout({}, ALONE)
