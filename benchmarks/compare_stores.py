"""Are two stores the same grid with the same numbers? For a store that a GPU made beside that of a CPU.

    python benchmarks/compare_stores.py runs/cuda/store.zarr runs/cpu/store.zarr

Intensities are float32, so they may differ in the last bit (1.2e-7) where the float64 values before rounding lie on
either side; everything else is compared as float64.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from hpc.store import open_store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument(
        "--intensity", type=float, default=2e-7, help="largest relative difference (default: 2e-7)"
    )
    parser.add_argument(
        "--basis", type=float, default=1e-9, help="the same, relative to the largest value (1e-9)"
    )
    parser.add_argument("--output", type=Path, help="append the JSON line to this file too")
    arguments = parser.parse_args()

    first, second = open_store(arguments.first), open_store(arguments.second)
    if not np.array_equal(first.q, second.q) or any(
        not np.array_equal(values, second.parameters[name]) for name, values in first.parameters.items()
    ):
        print("error: the stores hold different grids", file=sys.stderr)
        return 1
    difference = {"intensity": 0.0, "basis": 0.0}
    equal_bits = 0
    for start, stop in first.shards:
        a, b = (store.read(start, stop).astype(np.float64) for store in (first, second))
        difference["intensity"] = max(difference["intensity"], float((np.abs(a - b) / np.abs(b)).max()))
        equal_bits += int((a == b).sum())
    basis = second.basis()
    for name, values in first.basis().items():
        scale = np.abs(basis[name]).max()
        difference["basis"] = max(difference["basis"], float(np.abs(values - basis[name]).max() / scale))
    result = {
        "largest_relative_difference": difference,
        "share_of_equal_intensities": equal_bits / (first.n_samples * first.q.size),
        "devices": [first.attrs["device"], second.attrs["device"]],
    }
    config = {"patterns": first.n_samples, "q": first.q.size}
    line = json.dumps({"benchmark": "store_difference", "config": config, "result": result})
    print(line)
    if arguments.output is not None:
        with arguments.output.open("a") as file:
            file.write(line + "\n")
    for name, limit in (("intensity", arguments.intensity), ("basis", arguments.basis)):
        # Not "greater": NaN must fail too.
        if not difference[name] <= limit:
            print(f"error: {name} differs by {difference[name]:.2g}, allowed {limit:g}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
