"""Does the benchmark of the pair engine run, and does it say what it could not compare with?"""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest


def test_bench_pairs(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    # A Python without the other programs, nor anything else.
    empty = tmp_path / "python"
    empty.write_text(
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'debyecalculator'\" >&2\nexit 1\n"
    )
    empty.chmod(0o755)
    output = tmp_path / "results.jsonl"
    words = ["--device", "cpu", "--quick", "--peers", str(empty), "--output", str(output)]
    import_module("bench_pairs").main(words)
    for name in ("common", "bench_pairs", "pattern_of"):
        sys.modules.pop(name, None)

    records = [json.loads(line) for line in output.read_text().splitlines()]
    programs = {
        record["config"]["program"]: record
        for record in records
        if record["benchmark"] == "pattern_by_program"
    }
    assert list(programs) == ["debye-dots", "debye-dots to 1e-9", "debyecalculator", "pyausaxs", "debyer"]
    for name in ("debyecalculator", "pyausaxs", "debyer"):
        assert programs[name]["result"].keys() == {"missing"}
        assert programs[name]["timing"] is None
    for name, tolerance in (("debye-dots", 1e-6), ("debye-dots to 1e-9", 1e-9)):
        result = programs[name]["result"]
        assert 0 < result["max_relative_error"] < tolerance
        assert result["reference_error"] < 1e-10
        assert programs[name]["timing"]["median_s"] > 0
    by_number = [record for record in records if record["benchmark"] == "pattern_by_number_of_atoms"]
    assert [record["config"]["atoms"] for record in by_number] == [1021]
    assert by_number[0]["result"]["added_mb"] < by_number[0]["result"]["announced_mb"]


def test_family_benchmark(repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repo_root / "benchmarks")
    benchmark = import_module("bench_families")
    benchmark.main(["--device", "cpu", "--quick", "--output", str(tmp_path / "results.jsonl")])
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    families = [record for record in records if record["benchmark"] == "pairs_of_family"]
    assert [record["config"]["engine"] for record in families] == ["lattice", "cut", "cut", "ladder"]
    assert all(record["result"]["sizes"] > 5 for record in families)
    assert [record["config"]["ranks"] for record in records[len(families) :]] == [1, 2]
    for name in ("common", "bench_pairs", "bench_families", "pattern_of"):
        sys.modules.pop(name, None)
