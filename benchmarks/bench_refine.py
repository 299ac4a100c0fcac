"""What `qdml.refine` costs, and what it spends its time in.

    python benchmarks/bench_refine.py --device cpu --store runs/production/store.zarr --output results.jsonl

Milliseconds a pattern, on one CPU core or one GPU, for some numbers of patterns at a time: the expected pattern, its
derivatives and each stage of them, the information matrix, a search that ends after one step, and a whole search of one
shape that starts 10 % off in size. Without `--store` a small one is simulated first.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bench_augmentation import config_of, small_store
from common import emit, measure, read_arguments

from hpc.store import open_store
from qdml.augmentation.recipe import Recipe
from qdml.augmentation.recipes import build_recipe
from qdml.dataset import Rows, read_rows
from qdml.limits import jacobian
from qdml.limits.cramer_rao import information
from qdml.limits.slopes import Slopes
from qdml.refine import refine

BATCHES = (1, 8, 64)


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--store": {"type": Path, "help": "of qd-simulate, with dispersions (default: a small one)"},
            "--batch": {"type": int, "nargs": "+", "help": "patterns at a time (default: 1 8 64)"},
        },
    )
    torch.set_num_threads(1)
    device = torch.device(arguments.device.kind)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(arguments.store) if arguments.store else small_store(Path(folder) / "store.zarr")
        recipe = build_recipe(config_of("instrument"), store, device)
        for batch in arguments.batch or ((1, 4) if arguments.quick else BATCHES):
            chosen = np.sort(np.random.default_rng(0).integers(store.n_samples, size=batch))
            rows = read_rows(store, chosen, device, intensity=False)
            for part, work in parts_of(recipe, rows).items():
                report(arguments, recipe, batch, part, measure(work, arguments))
            for part, seconds in stages_of(recipe, rows).items():
                report(arguments, recipe, batch, f"stage: {part}", {"median_s": seconds})


def report(arguments: Any, recipe: Recipe, batch: int, part: str, timing: dict[str, Any]) -> None:
    emit(
        "refine",
        arguments,
        config={"part": part, "batch": batch, "latents": len(recipe.space), "threads": 1},
        result={"ms_per_pattern": 1e3 * timing["median_s"] / batch},
        timing=timing,
    )


@torch.no_grad()
def parts_of(recipe: Recipe, rows: Rows) -> dict[str, Callable[[], Any]]:
    """Name -> what to time."""
    generator = torch.Generator(rows.sigma.device).manual_seed(0)
    setting, z = recipe.draw(rows, generator)
    main = rows.main()
    expected, slopes_BQU = jacobian.recipe_jacobian(recipe, main, setting, z)
    weight_BQ = expected.mask * expected.rate / expected.intensity
    prior_U = torch.ones(slopes_BQU.shape[2], dtype=torch.float64, device=z.device)
    observation = recipe.observe(expected, generator)
    start_BT = torch.stack([main.log_volume_diameter + 0.1, main.sigma.log(), main.strain], dim=1)

    def search(steps: int) -> Any:
        return refine(recipe, observation, setting, start_BT, steps=steps)

    return {
        "expected pattern": lambda: without_gradients(recipe.expected, main, setting, z),
        "derivatives": lambda: without_gradients(jacobian.recipe_jacobian, recipe, main, setting, z),
        "information": lambda: information(slopes_BQU, weight_BQ, prior_U),
        "search of one step": lambda: search(1),
        "search": lambda: search(12),
    }


def without_gradients(work: Callable[..., Any], *arguments: Any) -> Any:
    with torch.no_grad():
        return work(*arguments)


@torch.no_grad()
def stages_of(recipe: Recipe, rows: Rows) -> dict[str, float]:
    """Name of each stage -> seconds in it, of the fastest of three derivatives of a batch."""
    setting, z = recipe.draw(rows, torch.Generator(rows.sigma.device).manual_seed(0))
    spent: dict[str, list[float]] = defaultdict(list)

    def now() -> float:
        if z.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    class Timed(Slopes):
        def __call__(self, function: Callable[..., Any], *inputs: Any, **known: Any) -> Any:
            start = now()
            result = super().__call__(function, *inputs, **known)
            spent[function.__name__].append(now() - start)
            return result

        def linear(self, function: Callable[..., Any], x: Any, *inputs: Any, **known: Any) -> Any:
            start = now()
            result = super().linear(function, x, *inputs, **known)
            spent[function.__name__].append(now() - start)
            return result

    with patch.object(jacobian, "Slopes", Timed):
        for _ in range(3):
            jacobian.recipe_jacobian(recipe, rows.main(), setting, z)
    return {name: min(times) for name, times in spent.items()}


if __name__ == "__main__":
    main()
