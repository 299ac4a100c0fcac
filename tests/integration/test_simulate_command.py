"""`qd-simulate` from the shell: bad input ends with one message before anything exists, good input is reproducible."""

import os
import re

import pytest

SMOKE = ("experiment=smoke", "store.path=deep/store.zarr")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Hydra's own answers
        (["grid.diametre_nm=[3]"], r"Key 'diametre_nm' is not in struct"),
        (["material=unobtainium"], r"Could not find 'material/unobtainium'(.|\n)*pbs"),
        # keys that Hydra lets through
        (["+grid.diametre_nm=3"], r"grid has the keys \[.*'diameter_nm'.*\], got \['diametre_nm'\]"),
        # values
        (["grid.diameter_nm=[-3]"], r"grid\.diameter_nm must be > 0, got -3"),
        (["q.min=5", "q.max=2"], r"Q range is empty"),
        (
            ["q.step=0.2"],
            r"q\.step is too coarse for these dots: distances up to 3\.\d* nm need q\.step <= 0\.0[89]\d* 1/Å",
        ),
        (["energy_kev=null"], r"energy is missing.*there is no default"),
        (["energy_kev=5000"], r"energy_kev must lie in"),
        (["q.max=90"], r"q must lie in 0 to 75\.4"),
        (["variants={shape:[banana]}"], r"variants: \{'shape': 'banana'\} cannot be: shape must be one of"),
        (["variants={lattice:[{alpha:89}]}"], r"lattice has the keys \[.*\], got \['lattice\.alpha'\]"),
        (
            ["lattice=tetragonal", "surface=skin", "surface.neighbours=9"],
            r"surface\.neighbours: .* has 6 nearest",
        ),
        (["disorder=disordered", "disorder.core=1.5"], r"nearer than 0\.5 Å .*reduce disorder"),
        (["device.name=tpu"], r"device must be auto, cpu or cuda, got 'tpu'"),
        # 10⁹ patterns: more than the disk, and more than the memory if it came to that
        (
            ["grid.diameter_nm=2 to 3 in 1000000", "grid.sigma=0.05 to 0.1 in 1000"],
            r"the store needs .* GB, the disk of",
        ),
        (["q.step=1e-9"], r"the store needs .* GB, the disk of"),
    ],
)
def test_bad_input_is_one_message_and_no_store(tmp_path, run_command, overrides, message):
    answer = run_command(["qd-simulate", *SMOKE, *overrides], returncode=None, timeout=60)
    assert re.search(message, answer.stderr), answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_cuda_without_a_gpu_is_an_error(tmp_path, run_command):
    """No silent fallback; without GPUs in sight also where there are some."""
    answer = run_command(
        ["qd-simulate", *SMOKE, "device=cuda"], env={"CUDA_VISIBLE_DEVICES": ""}, returncode=None
    )
    assert re.search(
        r"device=cuda: .*(install debye-dots\[cuda12\]|run on a GPU node|choose device=cpu)", answer.stderr
    )
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_something_else_at_the_place_of_the_store_stays(tmp_path, run_command):
    (tmp_path / "deep/store.zarr").mkdir(parents=True)
    (tmp_path / "deep/store.zarr/thesis.tex").write_text("mine")
    answer = run_command(["qd-simulate", *SMOKE], returncode=None)
    assert re.search(r"deep/store\.zarr is not a zarr store", answer.stderr)
    assert [f.name for f in (tmp_path / "deep").rglob("*")] == ["store.zarr", "thesis.tex"]


def test_neither_cores_nor_threads_change_a_byte(tmp_path, run_command):
    """The same store from one core and from all, with BLAS left to choose its threads."""
    free = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")) | {
        "GIT_DIR": "/nowhere"
    }
    one_core = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    trees = []
    for name, launcher, env in (
        ("a", [], free),
        ("b", one_core, free),
        ("c", [], free | {"OPENBLAS_NUM_THREADS": "1"}),
    ):
        run_command(
            [*launcher, "qd-simulate", "experiment=smoke", f"store.path={name}.zarr", "device=cpu"], env=env
        )
        files = [
            f for f in (tmp_path / f"{name}.zarr").rglob("*") if f.is_file() and f.parent.name != ".shards"
        ]
        trees.append({str(f.relative_to(tmp_path / f"{name}.zarr")): f.read_bytes() for f in files})
    assert trees[0].keys() == trees[1].keys() == trees[2].keys()
    assert [name for name in trees[0] if trees[0][name] != trees[2][name]] == []
    assert [name for name in trees[0] if trees[0][name] != trees[1][name]] == []


def test_a_sobol_grid_runs(tmp_path, run_command):
    import numpy as np

    from hpc.store import open_store, verify_store

    overrides = [
        "grid=sobol",
        "grid.samples=32",
        "grid.diameter_nm=2 to 3",
        "grid.sigma=0.05 to 0.1",
        "grid.tail=1e-4",
    ]
    command = ["qd-simulate", "energy_kev=22", "q.max=12", "q.step=0.02", *overrides]
    run_command(
        [*command, "store.path=a.zarr", "store.rows_per_shard=16", "store.rows_per_chunk=16", "seed=4"]
    )
    store = open_store(tmp_path / "a.zarr")
    assert verify_store(tmp_path / "a.zarr") == []
    assert store.n_samples == 32
    assert len(np.unique(store.parameters["strain"])) == 32
    assert store.attrs["seed"] == store.attrs["config"]["seed"] == 4
