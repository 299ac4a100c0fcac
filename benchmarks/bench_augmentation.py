"""What a batch of augmented patterns costs, effect by effect, and the whole of each recipe.

    python benchmarks/bench_augmentation.py --device cpu --output results.jsonl
    python benchmarks/bench_augmentation.py --store runs/production/store.zarr --batch 256

Patterns per second on one CPU core or on one GPU, for batches as a process of training has them: the recipe
`instrument` makes its dots, too: of a store of five shapes with --store, else of a small one on the grid of
`experiment=quick` (874 points), simulated first, whose clean patterns are those of the published recipe. `cpu_ms` is
the least time that the core itself was busy, whatever else the machine does. `bytes_per_pattern` counts what an effect
has to read and write at least: with the bandwidth of a device it gives its ceiling.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, measure, read_arguments
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.config import SimulateConfig
from hpc.memory import keep_freed_memory
from hpc.mpi import join_world
from hpc.simulate import simulate
from hpc.store import Store, open_store
from qdml.augmentation.instrument import InstrumentRecipe
from qdml.augmentation.recipes import build_recipe
from qdml.config import TrainConfig, read_config
from qdml.dataset import Rows, read_rows

BATCH = {"cpu": 128, "cuda": 16384}


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--batch": {"type": int, "help": "patterns at a time (default: 128, on a GPU 16384)"},
            "--store": {"type": Path, "help": "of qd-simulate, for the recipe instrument alone"},
        },
    )
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    device = torch.device(arguments.device.kind)
    batch = arguments.batch or (64 if arguments.quick else BATCH[arguments.device.kind])
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(arguments.store) if arguments.store else small_store(Path(folder) / "store.zarr")
        for name in ("instrument",) if arguments.store else ("instrument", "allara2024"):
            recipe = build_recipe(config_of(name), store, device)
            some = np.sort(np.random.default_rng(0).permutation(store.n_samples)[:batch])
            rows = read_rows(store, some, device)
            many = rows.take(torch.arange(batch, device=device) % len(rows))
            generator = torch.Generator(device).manual_seed(0)
            for effect, (work, arrays) in effects_of(recipe, many, generator).items():
                timing = measure(work, arguments)
                emit(
                    "augmentation",
                    arguments,
                    config={
                        "recipe": name,
                        "effect": effect,
                        "batch": batch,
                        "q": len(store.q),
                        "threads": 1,
                    },
                    result={
                        "patterns_per_s": batch / timing["median_s"],
                        "cpu_ms": 1e3 * busy_seconds(work),
                        "bytes_per_pattern": 4 * len(store.q) * arrays,
                    },
                    timing=timing,
                )


def busy_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """The least CPU time of some repeats."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def small_store(path: Path) -> Store:
    """A few dots on the grid of `experiment=quick`."""
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("simulate", overrides=["experiment=quick", "grid.samples=64", "device=cpu",
                                                  "store.rows_per_shard=64", f"store.path={path}"])  # fmt: skip
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    simulate(
        SimulateConfig.from_mapping(plain), {k: v for k, v in plain.items() if k != "device"}, join_world()
    )
    return open_store(path)


def config_of(name: str) -> Any:
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=[f"augment={name}", "data.store=x"])
    return read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True)).augment  # type: ignore[arg-type]


def effects_of(
    recipe: Any, rows: Rows, generator: torch.Generator
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Name -> what to time, and how many (B, Q) float32 arrays it must at least read and write."""
    effects: dict[str, tuple[Callable[[], Any], int]] = {
        "whole recipe": (lambda: recipe.random(rows, generator), 3)
    }
    if not isinstance(recipe, InstrumentRecipe):
        return effects
    dots, optics, around, basis = recipe._dots, recipe._optics, recipe._surroundings, recipe.basis
    dot, strain = rows.main(), rows.main().strain[:, None]
    setting, z = recipe.draw(rows, generator)
    values = recipe.space.values(z)
    view = optics.view(setting, values)
    texture = torch.full_like(strain, 0.1)
    clean = dots(dot, setting.energy_kev, values, texture)
    expected = recipe.expected(dot, setting, z)
    shift = optics.strained(view.shift, {"strain": strain[:, 0]})
    widths = optics.widths(values, setting=setting)
    return effects | {
        "draws": (lambda: recipe.draw(rows, generator), 0),
        "expected pattern": (lambda: recipe.expected(dot, setting, z), 2),
        "dots: averages over sizes": (
            lambda: basis.average(dot.variant, dot.log_volume_diameter, dot.sigma),
            len(basis.pairs),
        ),
        "dots: all": (lambda: dots(dot, setting.energy_kev, values, texture), len(basis.pairs) + 1),
        "instrument: smooth functions": (lambda: optics.view(setting, values), 6),
        "instrument: strain, lines, shifts": (
            lambda: optics.lines(clean, shift, instrument_B=setting.instrument),
            3,
        ),
        "instrument: resolution": (lambda: optics.broad(clean, widths), 2),
        "surroundings": (
            lambda: around.parts(
                values, setting.mask, factor_BP=view.factor_smooth, unpolarised_BP=view.unpolarised_smooth,
                fluoresces_B1=texture,
            ),
            1,
        ),
        "photons": (lambda: recipe.observe(expected, generator), 5),
    }  # fmt: skip


if __name__ == "__main__":
    main()
