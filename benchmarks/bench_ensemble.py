"""Data without end: patterns per second from the basis of a store, and how exact they are.

    python benchmarks/bench_ensemble.py --store runs/production/store.zarr --output results.jsonl

One record for each tolerance of the compression: modes, the error that the basis states, and the largest difference of
its patterns from those that qd-simulate wrote into the store, as fractions of the peak. Then patterns per second on one
CPU core or on one GPU: means over sizes (`qdml.basis`), clean patterns (`qdml.augmentation.clean`), and observations of
the recipe `instrument`, everything included. `flops_per_pattern` are those of the two products of the basis: with the
float32 rate of a device they give its ceiling. `cpu_us_per_pattern` is the least time that the core itself was busy: on
a machine that others use, too, it says more than the clock. Without --store, a small one is simulated first.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from bench_augmentation import busy_seconds, config_of, small_store
from common import emit, measure, read_arguments

from hpc.store import Store, open_store
from qdml.augmentation.clean import CleanPatterns
from qdml.augmentation.instrument import InstrumentRecipe
from qdml.basis_building import build_basis
from qdml.dataset import Rows, read_rows

BATCH = {"cpu": 256, "cuda": 16384}
TOLERANCES = (1e-4, 5e-5, 2e-5, 1e-5)
# How far the crystal's grid goes beyond the strained patterns [Å⁻¹], as for the recipe `instrument`.
MARGIN = 0.15
# Samples of the store that patterns are compared with.
COMPARED = 2048


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--batch": {"type": int, "help": "patterns at a time (default: 256, on a GPU 16384)"},
            "--store": {"type": Path, "help": "of qd-simulate (default: a small one is simulated)"},
        },
    )
    torch.set_num_threads(1)
    device = torch.device(arguments.device.kind)
    batch = arguments.batch or (64 if arguments.quick else BATCH[arguments.device.kind])
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(arguments.store) if arguments.store else small_store(Path(folder) / "store.zarr")
        about = {
            "dots": [one["title"] for one in store.attrs["variants"]],
            "q": len(store.q),
            "batch": batch,
            "threads": 1,
        }
        for tolerance in TOLERANCES[-2:] if arguments.quick else TOLERANCES:
            basis = build_basis(store, store.q, tolerance=tolerance, device=device, margin=MARGIN)
            off = differences(store, CleanPatterns(basis, device), device)
            emit(
                "ensemble: error",
                arguments,
                config={"dots": about["dots"], "q": about["q"], "tolerance": tolerance},
                result={
                    "nodes": basis.n_nodes,
                    "modes": basis.n_modes,
                    "stated": basis.error,
                    **{f"patterns_{name}": float(np.quantile(off, at)) for name, at in
                       (("median", 0.5), ("p99", 0.99), ("max", 1.0))},
                },
                timing=None,
            )  # fmt: skip

        config = config_of("instrument")
        recipe = InstrumentRecipe(config, store, device)
        basis, clean = recipe.basis, CleanPatterns(recipe.basis, device)
        rows = samples(store, batch, device)
        dots = rows.main()
        generator = torch.Generator(device).manual_seed(0)
        columns = 1 + len(basis.kinds) + len(basis.near_pair)
        products = [
            2 * basis.n_nodes * (columns + n) + 2 * n * len(basis.pairs) * len(basis.q) for n in basis.n_modes
        ]
        for name, work in {
            "means over sizes": lambda: basis.average(dots.variant, dots.log_volume_diameter, dots.sigma),
            "clean patterns": lambda: clean(dots),
            "observations of instruments": lambda: recipe.random(rows, generator),
        }.items():
            timing = measure(work, arguments)
            emit(
                "ensemble: speed",
                arguments,
                config={**about, "tolerance": config.basis_tolerance, "step": name},
                result={
                    "patterns_per_s": batch / timing["median_s"],
                    "flops_per_pattern": float(np.mean(products)),
                    "cpu_us_per_pattern": 1e6 * busy_seconds(work) / batch,
                },
                timing=timing,
            )


def samples(store: Store, n: int, device: torch.device, *, intensity: bool = False) -> Rows:
    """Random samples of a store; where it has fewer, the same ones again."""
    order = np.random.default_rng(0).permutation(store.n_samples)[:n]
    rows = read_rows(store, np.sort(order), device, intensity=intensity)
    return rows.take(torch.arange(n, device=device) % len(rows))


def differences(store: Store, clean: CleanPatterns, device: torch.device) -> np.ndarray:
    """(m,) largest difference of each pattern from that of the store, as a fraction of its peak."""
    rows = samples(store, min(COMPARED, store.n_samples), device, intensity=True)
    found = []
    for start in range(0, len(rows), BATCH["cpu"]):
        some = rows.take(slice(start, start + BATCH["cpu"]))
        off = (clean(some.main()) - some.intensity).abs().amax(dim=1) / some.intensity.amax(dim=1)
        found.append(off.cpu().numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
