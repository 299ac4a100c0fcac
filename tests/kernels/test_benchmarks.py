"""Do the kernel benchmarks run, also the part that needs a GPU, and does a record say how to repeat it?"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from hpc.device import Device


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_kernel_benchmarks(
    kind: str,
    on_cpu: Callable[..., Device],
    repo_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    on_cpu()
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    import_module("bench_kernels").main(
        ["--device", kind, "--quick", "--output", str(tmp_path / "results.jsonl")]
    )
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    records = [json.loads(line) for line in lines]
    names = ["pair_histograms"] * 2 + ["matrix_product_f64", "basis_f64", "size_tables", "grid_patterns"]
    assert [record["benchmark"] for record in records] == names
    for record in records:
        assert record["device"] == kind
        assert record["timing"]["median_s"] > 0
        assert {"commit", "cpu", "cores", "python", "date"} <= record["machine"].keys()
        assert ("gpu" in record["machine"]) == (kind == "cuda")
    if kind == "cuda":
        assert records[0]["result"]["equals_cpu"] is True
        assert 0 < records[0]["result"]["share_of_ceiling"] < 1
    for name in ("common", "bench_kernels"):
        sys.modules.pop(name, None)
