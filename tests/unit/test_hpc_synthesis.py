"""The bits of the basis and of the patterns depend on the configuration alone."""

import numpy as np
import pytest
from runs import simulate_config
from threadpoolctl import threadpool_limits

from hpc.device import select_device
from hpc.ensemble import OVERHANG, fine_step
from hpc.grid import grid_samples, q_values
from hpc.pairs.families import Sizes, count_family, plan_counting
from hpc.structure.material import load_material
from hpc.structure.variant import Shape, Variant
from hpc.synthesis import Basis, Synthesis, basis_partial


@pytest.fixture(scope="module")
def counting():
    sphere = Variant(material=load_material("pbs"), shape=Shape(name="sphere"))
    sizes = Sizes(diameter=np.array([120.0]), sigma=np.array([0.0]), tail=1e-6)
    return plan_counting(sphere, sizes, q_max=12.0, device=select_device("cpu"))


@pytest.fixture(scope="module")
def family(counting):
    return count_family(counting)


@pytest.fixture(scope="module", params=["independent", "neighbours"])
def config(request):
    grid = ("grid.diameter_nm=2 to 7 step 0.05", "grid.sigma=[0.05, 0.1]", "grid.strain=[0.0, 0.004]")
    return simulate_config(
        *grid, "energy_kev=22", "q={min: 1, max: 3, step: 0.02}", f"motion={request.param}"
    )


@pytest.fixture(scope="module")
def basis(counting, family, config):
    step = fine_step(family.diameter[-1])
    fine = step * np.arange(int(np.ceil(config.q.max * 1.004 / step)) + OVERHANG)
    return Basis(
        kinds=config.material.kinds,
        diameter=family.diameter,
        n_atoms=np.cumsum(family.atoms, axis=0),
        partial=basis_partial(family, fine),
        step=step,
        near_distance=counting.near_distance,
        near_pairs=np.cumsum(family.near(counting.near_distance), axis=1),
    )


@pytest.mark.parametrize(("blas", "threads"), [(1, 3), (2, 1), (4, 2)])
def test_the_basis_is_the_same_on_any_number_of_cores(family, blas, threads):
    """BLAS with two threads adds in another order than with one: ranks pinned to one core would differ."""
    q = np.linspace(0, 12, 128)
    with threadpool_limits(1):
        expected = basis_partial(family, q)
    with threadpool_limits(blas):
        found = basis_partial(family, q, threads=threads)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("blas", "threads"), [(1, 3), (2, 1), (4, 2)])
def test_patterns_are_the_same_on_any_number_of_cores(config, basis, blas, threads):
    q, samples = q_values(config.q), grid_samples(config.grid, 0)
    patterns = []
    for limit, cores in ((1, 1), (blas, threads)):
        with threadpool_limits(limit):
            synthesis = Synthesis(basis, config, q, threads=cores)
            synthesis.keep_tables_of(samples)
            patterns.append(synthesis.patterns(samples))
    assert patterns[0].shape == (404, 101)
    assert patterns[0].tobytes() == patterns[1].tobytes()


def test_a_resumed_run_computes_the_same_bits(config, basis):
    """A shard on its own, after others, or with tables of its own: for given tables the bits are the same."""
    q, samples = q_values(config.q), grid_samples(config.grid, 0)
    shard = {name: values[100:250] for name, values in samples.items()}
    first, second = Synthesis(basis, config, q), Synthesis(basis, config, q)
    for synthesis in (first, second):
        synthesis.keep_tables_of(samples)
    first.patterns({name: values[:100] for name, values in samples.items()})
    assert first.patterns(shard).tobytes() == second.patterns(shard).tobytes()
    alone = Synthesis(basis, config, q).patterns(shard)
    np.testing.assert_allclose(alone, first.patterns(shard), rtol=2e-7)
