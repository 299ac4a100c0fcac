"""Steps and records of a benchmark run -> one Markdown file, with the records as JSON lines at its end.

    python3 benchmarks/write_results.py FOLDER > results.md

FOLDER holds steps.jsonl (step, outcome, seconds), records.jsonl (`common.emit`) and a log of each step. It needs only
Python, so that it reports a machine on which everything else failed, too.
"""

import json
import sys
from pathlib import Path
from typing import Any

LOG_LINES = 30


def main(folder: Path) -> None:
    steps, records = (_lines(folder / name) for name in ("steps.jsonl", "records.jsonl"))
    print(f"# Benchmarks and tests on {_hardware(records)}\n")
    print(f"{_provenance(records)}\n\n## Steps\n\n| step | outcome | seconds |\n|---|---|---|")
    for step in steps:
        print(f"| {step['step']} | {step['outcome']} | {step['seconds']} |")

    print("\n## Results\n\nTimes are medians after a warm-up, with quartiles.\n")
    print("| benchmark | device | of | result | time [ms] |\n|---|---|---|---|---|")
    for record in records:
        timing = record.get("timing")
        time = (
            ""
            if timing is None
            else f"{_ms(timing['median_s'])} ({', '.join(map(_ms, timing['quartiles_s']))})"
        )
        print(
            f"| {record['benchmark']} | {record.get('device', '')} | {_readable(record['config'])} "
            f"| {_readable(record['result'])} | {time} |"
        )

    for step in steps:
        if step["outcome"] == "failed":
            log = (folder / f"{step['step']}.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
            print(f"\n## End of the log of {step['step']}\n\n```text\n" + "\n".join(log) + "\n```")

    print("\n## Records\n\n```json")
    for line in (*steps, *records):
        print(json.dumps(line))
    print("```")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _hardware(records: list[dict[str, Any]]) -> str:
    machines = [record["machine"] for record in records if "machine" in record]
    gpus = {machine["gpu"]["name"] for machine in machines if "gpu" in machine}
    cpus = {f"{machine['cores']} cores of {machine['cpu']}" for machine in machines}
    return ", ".join(sorted(gpus) + sorted(cpus)) or "an unknown machine (no benchmark ran)"


def _provenance(records: list[dict[str, Any]]) -> str:
    for record in records:
        if "machine" in record:
            machine = record["machine"]
            packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
            return f"{machine['date']}, commit {machine['commit']}, Python {machine['python']}, {packages}."
    return "No benchmark ran."


def _readable(values: dict[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        if isinstance(value, dict) and "median_s" in value:
            parts.append(f"{name} {_ms(value['median_s'])} ms")
        elif isinstance(value, dict):
            parts.append(f"{name} ({_readable(value)})")
        else:
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
