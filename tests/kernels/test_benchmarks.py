"""Do the kernel benchmarks run, also the part that needs a GPU, and does a record say how to repeat it?"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hpc.device import Device


@pytest.fixture(autouse=True)
def benchmarks(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benchmarks can be imported by name, and no other test meets them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    yield
    for name in set(sys.modules) - before:
        if (repo_root / "benchmarks" / f"{name}.py").is_file():
            del sys.modules[name]


def records_of(name: str, folder: Path, device: str = "cpu") -> list[dict]:
    """What a benchmark writes."""
    output = folder / "results.jsonl"
    import_module(name).main(["--device", device, "--quick", "--output", str(output)])
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_kernel_benchmarks(
    kind: str, on_cpu: Callable[..., Device], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    on_cpu()
    records = records_of("bench_kernels", tmp_path, kind)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records
    names = (
        ["pair_histograms"] * 2 + ["matrix_product_f64", "basis_f64", "size_tables"] + ["grid_patterns"] * 3
    )
    assert [record["benchmark"] for record in records] == names
    for record in records:
        assert record["device"] == kind
        assert record["timing"]["median_s"] > 0
        assert {"commit", "cpu", "cores", "python", "date"} <= record["machine"].keys()
        assert ("gpu" in record["machine"]) == (kind == "cuda")
    if kind == "cuda":
        assert records[0]["result"]["equals_cpu"] is True
        assert 0 < records[0]["result"]["share_of_ceiling"] < 1


def test_augmentation_benchmark(tmp_path: Path) -> None:
    records = records_of("bench_augmentation", tmp_path)
    effects = {(one["config"]["recipe"], one["config"]["effect"]) for one in records}
    assert {
        ("instrument", "whole recipe"),
        ("allara2024", "whole recipe"),
        ("instrument", "photons"),
    } <= effects
    assert len(effects) == len(records) == 11
    assert all(one["result"]["patterns_per_s"] > 0 for one in records)


def test_ensemble_benchmark(tmp_path: Path) -> None:
    records = records_of("bench_ensemble", tmp_path)
    errors, speeds = (
        [one for one in records if one["benchmark"] == f"ensemble: {name}"] for name in ("error", "speed")
    )
    assert (len(errors), len(speeds)) == (2, 3)
    for one in errors:
        assert 0 < one["result"]["stated"] <= one["config"]["tolerance"]
        # Patterns of up to 9 nm with 20 % are read between points 0.015 Å⁻¹ apart.
        assert one["result"]["patterns_median"] < one["config"]["tolerance"]
        assert one["result"]["patterns_max"] < 1e-4
    assert all(one["result"]["patterns_per_s"] > 0 for one in speeds)


def test_training_benchmark(tmp_path: Path) -> None:
    records = records_of("bench_training", tmp_path)
    assert [one["config"]["precision"] for one in records] == ["float32", "bfloat16"]
    for one in records:
        result = one["result"]
        parts = sum(result[f"{part}_ms"] for part in ("draw", "world", "network", "optimiser"))
        assert result["step_ms"] == pytest.approx(parts)
        assert 1 <= result["with_rows_over_fixed_rows"] < result["with_data_over_fixed_batch"]
    first, second = (one["result"]["loss_after_16"] for one in records)
    assert first == pytest.approx(second, abs=0.05)


def test_ablations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import_module("bench_augmentation").small_store(tmp_path / "store.zarr")
    small = ("network.components=50", "network.width=16", "network.blocks=1")
    inside = ("data.diameter_nm=[2.5,5]", "data.sigma=[0.05,0.1]", "data.strain=[-0.001,0.004]")
    words = [
        "--quick",
        "--device",
        "cpu",
        "--store",
        str(tmp_path / "store.zarr"),
        "--variants",
        "0",
        "8",
        "13",
        "17",
    ]
    words += ["--markdown", str(tmp_path / "table.md"), "--overrides", "data.variants=null", *small, *inside]
    import_module("ablations").main(words)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["config"]["variant"] for one in records] == [
        "as it is",
        "not told the resolution",
        "spline flow",
        "learned without background, container, fluorescence",
    ]
    for one in records:
        assert one["result"]["step_ms"] > 0
        # Better than an answer that knows nothing but the range, whose standard deviation is 0.2.
        assert 0 < one["result"]["size_rmse"] < 0.2
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[-4].startswith("| as it is | ") and lines[-2].startswith("| spline flow | ")
    # What is not told, or has not been learned from, changes the answer.
    assert len({one["result"]["nll"] for one in records}) == 4


def test_pair_kernel_benchmark(on_cpu: Callable[..., Device], tmp_path: Path) -> None:
    on_cpu()
    benchmark, records = import_module("bench_pair_kernel"), records_of("bench_pair_kernel", tmp_path, "cuda")
    assert len(records) == 2 + len(benchmark.VARIANTS[::4])
    for record in records:
        result = record["result"]
        assert 0 < result["share_of_instructions"] < 1
        assert 0 < result["share_of_banks"] < 1
        assert result["visits_per_pair"] >= 1
    assert records[0]["result"]["equals_cpu"] is True
    with pytest.raises(SystemExit, match="this benchmark needs a GPU"):
        benchmark.main(["--device", "cpu"])


def test_clocks_of_a_pair() -> None:
    """All lanes of a warp in one bin: three additions of 32 passes each, and one count for all."""
    benchmark = import_module("bench_pair_kernel")
    bins = benchmark.choose_bins(20.0, q_max=20.0)
    positions = [np.zeros((128, 3)), np.full((128, 3), 2.0)]
    plan = benchmark.plan_pairs(positions, bins, shared_limit=227 * 1024, multiprocessors=1)
    assert plan.chunks["row"].tolist() == [0, 1, 2]
    clocks, visits = benchmark.clocks_per_pair(replace(plan, chunks=plan.chunks[1:2]), samples=5)
    assert visits == 1
    instructions = (benchmark.VISIT + benchmark.COUNT[4]) / benchmark.ISSUED_PER_CLOCK
    assert clocks == {"instructions": instructions / 32, "banks": (3 * 32 + 1) / 32}
