"""What each part of the posterior network is worth: variants trained for the same time on the same patterns.

    python benchmarks/ablations.py --store runs/production/store.zarr --markdown benchmarks/results/ablations.md

Dots and measurements are drawn once, as `experiment=production_cpu` draws them, and every variant is trained on them
in the same order, for the number of steps that it does in `--seconds`: of one core's time, whatever else runs on the
machine, or of a GPU. The time counts what a step costs after the drawing: input, network, optimiser. The learning rate
falls to zero within it. The other patterns, as many as 32 batches, are for the figures of the table.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import emit, machine, read_arguments
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.store import open_store
from qdml.augmentation.recipes import build_recipe
from qdml.config import TrainConfig, read_config
from qdml.dataset import Rows, lane_generator
from qdml.ensemble import DotDraws
from qdml.losses import pattern_loss, scores
from qdml.models import build_model
from qdml.models.whitening import InputMoments
from qdml.observation import Observation
from qdml.optimizers import build_optimizers, set_progress
from qdml.preprocess import network_input

#: What is asked of each variant -> how it differs from `experiment=production_cpu`.
VARIANTS = {
    "as it is": [],
    "another seed": ["seed=1"],
    "AdamW for all weights": ["optim=adamw"],
    "components not scaled by the noise": ["network.declared_noise=false"],
    "not told the instrument and the counts": ["network.conditions=false"],
    "not told what was not measured": ["network.mask=false"],
    "intensity over its mean as input": ["network.input=area_mask"],
    "spline flow": ["network=posterior_flow"],
    "convolutions beside the whitening": ["network=posterior_convolutions"],
    "one normal density": ["network.mixture=1"],
    "200 components": ["network.components=200"],
    "half the width": ["network.width=192"],
    "batches of 512": ["trainer.batch=512"],
    "five Newton-Schulz steps": ["optim.iterations=5"],
    "float32": ["trainer.precision=float32"],
}
# Steps after which the time of one is known: those before it load libraries and caches.
_FIRST, _TIMED = 5, 40
_VALIDATION_BATCHES = 32
# Patterns of the whitening, as in training.
_WHITENING = 8192


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--store": {"required": True, "help": "of qd-simulate experiment=production (or another)"},
            "--seconds": {"type": float, "default": 40.0, "help": "of training for each variant"},
            "--patterns": {"type": int, "default": 98304, "help": "to learn from, again and again"},
            "--variants": {"nargs": "*", "help": "numbers of some of the variants; all by default"},
            "--overrides": {"nargs": "*", "default": [], "help": "of every variant, as of qd-train"},
            "--markdown": {"type": Path, "help": "file of the table"},
        },
    )
    torch.set_num_threads(1)
    device = torch.device(arguments.device.kind)
    chosen = [list(VARIANTS)[int(number)] for number in arguments.variants or range(len(VARIANTS))]
    reference = config_of(arguments.store, arguments.overrides)
    patterns = 2048 if arguments.quick else arguments.patterns
    rows, seen, q = draw(reference, patterns + _VALIDATION_BATCHES * reference.trainer.batch, device)
    lines: list[dict[str, Any]] = []
    for name in chosen:
        config = config_of(arguments.store, [*VARIANTS[name], *arguments.overrides])
        seconds = 1.0 if arguments.quick else arguments.seconds
        result = train(config, rows, seen, q, patterns, seconds)
        lines.append({"variant": name, **result})
        settings = {"variant": name, "seconds": seconds, "patterns": patterns}
        timing = {"median_s": result["step_ms"] / 1e3, "repeats": result["steps"]}
        emit("ablation", arguments, config=settings, result=result, timing=timing)
        if arguments.markdown:
            arguments.markdown.write_text(table(lines, machine(arguments.device), seconds, patterns))


def config_of(store: str, changes: Sequence[str]) -> TrainConfig:
    """`experiment=production_cpu` with changes."""
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=["training=production_cpu", f"data.store={store}", *changes])
    return read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))


def draw(config: TrainConfig, n: int, device: torch.device) -> tuple[Rows, Observation, torch.Tensor]:
    """Endless data, for once not endless: n dots, what is seen of them, and the grid."""
    store = open_store(config.data.store)
    recipe, dots = build_recipe(config.augment, store, device), DotDraws(config.data, store, device)
    rows, seen = [], []
    with torch.no_grad():
        for batch in range(math.ceil(n / config.trainer.batch)):
            generator = lane_generator(device, config.seed, batch)
            rows.append(dots(config.trainer.batch, generator))
            seen.append(recipe.random(rows[-1], generator))
    return Rows.cat(rows), Observation.cat(seen), torch.as_tensor(store.q)


def train(
    config: TrainConfig, rows: Rows, seen: Observation, q: torch.Tensor, patterns: int, seconds: float
) -> dict[str, float]:
    """Train one variant on the first `patterns`, and try it on the rest."""
    torch.manual_seed(config.seed)
    device, size, kind = seen.intensity.device, config.trainer.batch, config.network.input
    model = build_model(config.network, None, len(q), seen.conditions.shape[1])
    moments = InputMoments(len(q), seen.conditions.shape[1], rows.targets().shape[1])
    for start in range(0, min(_WHITENING, patterns), size):
        part = slice(start, start + size)
        moments.add(network_input(seen.take(part), q, kind), rows.take(part).targets())
    model.fit(moments)
    model.to(device)
    optimizers = build_optimizers(config.optim, model)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    half = config.trainer.precision in ("bfloat16", "auto")
    clock = _clock(device)

    def forward(part: slice) -> Any:
        inputs = network_input(seen.take(part), q, kind)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return model(inputs)

    steps, step, began = math.inf, 0, clock()
    while step < steps:
        start = step * size % (patterns - size + 1) // size * size
        part = slice(start, start + size)
        loss = pattern_loss(forward(part), rows.take(part), config).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(learned, config.optim.clip)
        # Until the number of steps is known the rate is that of the warm-up, which does not depend on it.
        set_progress(optimizers, config.optim, step, int(min(steps, 10**9)))
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step == _FIRST:
            began = clock()
        if step == _FIRST + _TIMED:
            steps = max(step + 1, round(seconds * _TIMED / (clock() - began)))
    spent = clock() - began
    values: dict[str, list[torch.Tensor]] = {}
    errors = []
    with torch.no_grad():
        for start in range(patterns, len(rows), size):
            part = slice(start, start + size)
            density, truth = forward(part), rows.take(part)
            for name, one in scores(density, truth, config).items():
                values.setdefault(name, []).append(one)
            errors.append(density.moments()[0] - truth.targets())
    named = {name: float(torch.cat(parts).double().mean()) for name, parts in values.items()}
    rmse = torch.cat(errors).double().square().mean(dim=0).sqrt().tolist()
    return {
        **named,
        **{f"{name}_rmse": one for name, one in zip(("size", "dispersion", "strain"), rmse, strict=True)},
        "steps": step,
        "step_ms": 1e3 * spent / (step - _FIRST),
        "weights": sum(weight.numel() for weight in learned),
    }


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds of this process on one core, or of a GPU."""
    if device.type == "cpu":
        return time.process_time

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def table(lines: Sequence[dict[str, Any]], where: dict[str, Any], seconds: float, patterns: int) -> str:
    """Markdown."""
    device = where["gpu"]["name"] if "gpu" in where else f"one core of {where['cpu']}"
    text = (
        f"Variants of `experiment=production_cpu` were trained for {seconds:g} s each of {device} (input, network, "
        f"optimiser; not the drawing of patterns) on the same {patterns} patterns, and tried on others. RMSE of "
        f"posterior means. torch {where['packages']['torch']}, {where['date'][:10]}, commit {where['commit'][:8]}."
    )
    head = [
        "# Ablations of the posterior network",
        "",
        text,
        "",
        "| variant | loss [nats] | RMSE ln D_v | RMSE ln σ | RMSE ε [10⁻⁴] | steps | ms per step | weights [10⁶] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    body = [
        f"| {one['variant']} | {one['nll']:.2f} | {one['size_rmse']:.4f} | {one['dispersion_rmse']:.3f} | "
        f"{1e4 * one['strain_rmse']:.2f} | {one['steps']} | {one['step_ms']:.0f} | {one['weights'] / 1e6:.2f} |"
        for one in lines
    ]
    return "\n".join([*head, *body, ""])


if __name__ == "__main__":
    main()
