"""Does `qd-simulate device=cuda` make the store of the CPU, on the stand-in for CuPy and on a GPU?"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import simulate_config

from hpc.device import Device
from hpc.mpi import World
from hpc.simulate import simulate
from hpc.store import Store, open_store

# Sums of some thousand terms in another order, in float64, of values that all lie within a factor 10^4.
RELATIVE = 1e-9


def _simulate(path: Path, device: str, *overrides: str) -> Store:
    config = simulate_config("experiment=smoke", *overrides, f"device={device}", f"store.path={path}")
    simulate(config, {}, World())
    return open_store(path)


def _assert_same(got: Store, expected: Store, relative: float = RELATIVE) -> None:
    for variant in range(expected.n_variants):
        found = got.basis(variant)
        for name, values in expected.basis(variant).items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(
                found[name], values, rtol=relative, atol=relative * scale, err_msg=name
            )
    intensity = expected.read(0, expected.n_samples)
    # The store keeps float32: neighbours may differ where the float64 values round to either side.
    np.testing.assert_allclose(got.read(0, got.n_samples), intensity, rtol=max(2e-7, relative), atol=0)
    assert np.isfinite(intensity).all()


SMALL = ("grid.diameter_nm=[2.0,2.5]", "grid.sigma=[0.0,0.1]", "grid.strain=[0.0,0.002]", "q.step=0.05")


def test_stand_in(on_cpu: Callable[..., Device], tmp_path: Path) -> None:
    on_cpu(gpus=2)
    got = _simulate(tmp_path / "cuda", "cuda", *SMALL)
    assert got.attrs["device"] == "CPU as GPU"
    _assert_same(got, _simulate(tmp_path / "cpu", "cpu", *SMALL))


#: Particles one by one, and real positions in one pass, which is counted on CPU cores.
VARIANTS = (
    "grid.diameter_nm=[1.2,1.5]",
    "grid.strain=[0.0]",
    "particles.size_step_nm=0.5",
    "variants=[{disorder:{relaxation:0.1}},{lattice:{alpha_deg:89.5}}]",
)


def test_stand_in_variants(on_cpu: Callable[..., Device], tmp_path: Path) -> None:
    on_cpu()
    got = _simulate(tmp_path / "cuda", "cuda", *SMALL, *VARIANTS)
    # The kernel's moments are integers of 2^-k: as exact as the bins.
    _assert_same(got, _simulate(tmp_path / "cpu", "cpu", *SMALL, *VARIANTS), relative=1e-6)


@pytest.mark.gpu
def test_gpu(tmp_path: Path) -> None:
    _assert_same(_simulate(tmp_path / "cuda", "cuda"), _simulate(tmp_path / "cpu", "cpu"))


@pytest.mark.gpu
def test_gpu_makes_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (_simulate(tmp_path / name, "cuda", *SMALL) for name in ("first", "second"))
    assert np.array_equal(first.read(0, first.n_samples), second.read(0, second.n_samples))
    for name, values in first.basis().items():
        assert np.array_equal(values, second.basis()[name]), name
