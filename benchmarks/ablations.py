"""What each part of the posterior network is worth: variants trained for the same steps on the same patterns.

    python benchmarks/ablations.py --store runs/production/store.zarr --markdown benchmarks/results/ablations.md

Dots and measurements are drawn once, as `experiment=production_cpu` draws them, and every variant is trained on them
in the same order. The learning rate falls to zero within `--steps`. The other patterns, as many as 32 batches, are for
the figures of the table. Variants that learn from another world are tried on that of `production_cpu` all the same:
what they lose is what a measured pattern loses where the world has forgotten something.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import emit, machine, read_arguments
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from hpc.store import open_store
from qdml.augmentation.recipes import build_recipe
from qdml.basis import DotBasis
from qdml.config import TrainConfig, read_config
from qdml.dataset import Rows, lane_generator
from qdml.ensemble import DotDraws
from qdml.losses import pattern_loss, scores
from qdml.models import build_model
from qdml.models.whitening import InputMoments
from qdml.observation import CONDITIONS, Observation
from qdml.optimizers import build_optimizers, set_progress
from qdml.preprocess import network_input


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How it differs from `experiment=production_cpu`."""

    name: str
    network: tuple[str, ...] = ()
    """Overrides of network and training."""
    world: tuple[str, ...] = ()
    """Overrides of what it learns from, and not of what it is tried on."""
    hidden: tuple[str, ...] = ()
    """Conditions that it is not told."""


VARIANTS = (
    Variant(name="as it is"),
    Variant(name="another seed", network=("seed=1",)),
    Variant(name="components compressed beyond 1", network=("network.compress_beyond=1",)),
    Variant(name="components compressed beyond 30", network=("network.compress_beyond=30",)),
    Variant(name="components not scaled by the noise", network=("network.declared_noise=false",)),
    Variant(name="200 components", network=("network.components=200",)),
    Variant(name="intensity over its mean as input", network=("network.input=area_mask",)),
    Variant(name="not told what was not measured", network=("network.mask=false",)),
    Variant(name="not told the resolution", hidden=("log_width_2", "log_width_5", "log_width_10")),
    Variant(name="not told the counts", hidden=("log_counts",)),
    Variant(name="not told anything of the measurement", network=("network.conditions=false",)),
    Variant(name="AdamW for all weights", network=("optim=adamw",)),
    Variant(name="one normal density", network=("network.mixture=1",)),
    Variant(name="spline flow", network=("network=posterior_flow",)),
    Variant(name="convolutions beside the whitening", network=("network=posterior_convolutions",)),
    Variant(
        name="learned from exponential backgrounds alone", world=("augment.surroundings.background_spread=0",)
    ),
    Variant(
        name="learned without smooth background",
        world=("augment.surroundings.background_share=[0,0]",),
    ),
    Variant(
        name="learned without background, container, fluorescence",
        world=(
            "augment.surroundings.background_share=[0,0]",
            "augment.surroundings.container_share=[0,0]",
            "augment.surroundings.fluorescence_share=[0,0]",
        ),
    ),
)
# Steps that load libraries and caches are not timed.
_FIRST = 5
_VALIDATION_BATCHES = 32
# Patterns of the whitening, as in training.
_WHITENING = 8192


def main(words: Sequence[str] | None = None) -> None:
    """Train and try every variant; write the table."""
    arguments = read_arguments(
        __doc__.splitlines()[0],
        words,
        {
            "--store": {"required": True, "help": "of qd-simulate experiment=production (or another)"},
            "--steps": {"type": int, "default": 600, "help": "of training for each variant"},
            "--patterns": {"type": int, "default": 98304, "help": "to learn from, again and again"},
            "--variants": {"nargs": "*", "help": "numbers of some of the variants; all by default"},
            "--overrides": {"nargs": "*", "default": [], "help": "of every variant, as of qd-train"},
            "--markdown": {"type": Path, "help": "file of the table"},
        },
    )
    torch.set_num_threads(1)
    device = torch.device(arguments.device.kind)
    chosen = [VARIANTS[int(number)] for number in arguments.variants or range(len(VARIANTS))]
    steps, patterns = (20, 2048) if arguments.quick else (arguments.steps, arguments.patterns)
    reference = config_of(arguments.store, arguments.overrides)
    store = open_store(arguments.store)
    q, basis = torch.as_tensor(store.q), build_recipe(reference.augment, store, device).basis
    held_out = draw(reference, basis, _VALIDATION_BATCHES, device, seed=reference.seed + 1)
    drawn: dict[tuple[str, ...], tuple[Rows, Observation]] = {}
    lines: list[dict[str, Any]] = []
    for variant in chosen:
        config = config_of(arguments.store, [*variant.network, *variant.world, *arguments.overrides])
        if variant.world not in drawn:
            # Two worlds do not fit side by side into the memory of a laptop.
            drawn.clear()
            batches = math.ceil(patterns / reference.trainer.batch)
            drawn[variant.world] = draw(config, basis, batches, device, seed=reference.seed)
        result = train(config, variant, drawn[variant.world], held_out, q, steps)
        lines.append({"variant": variant.name, **result})
        settings = {"variant": variant.name, "steps": steps, "patterns": patterns}
        timing = {"median_s": result["step_ms"] / 1e3, "repeats": steps}
        emit("ablation", arguments, config=settings, result=result, timing=timing)
        if arguments.markdown:
            arguments.markdown.write_text(table(lines, machine(arguments.device), steps, patterns))


def config_of(store: str, changes: Sequence[str]) -> TrainConfig:
    """`experiment=production_cpu` with changes."""
    with initialize_config_module("conf", version_base="1.3"):
        composed = compose("train", overrides=["training=production_cpu", f"data.store={store}", *changes])
    return read_config(TrainConfig, OmegaConf.to_container(composed, resolve=True))


def draw(
    config: TrainConfig, basis: DotBasis, batches: int, device: torch.device, *, seed: int
) -> tuple[Rows, Observation]:
    """Endless data, for once not endless: dots, and what is seen of them."""
    store = open_store(config.data.store)
    recipe, dots = build_recipe(config.augment, basis, device), DotDraws(config.data, store, device)
    rows, seen = [], []
    with torch.no_grad():
        for batch in range(batches):
            generator = lane_generator(device, seed, batch)
            rows.append(dots(config.trainer.batch, generator))
            seen.append(recipe.random(rows[-1], generator))
    return Rows.cat(rows), Observation.cat(seen)


def told(seen: Observation, variant: Variant) -> Observation:
    """What a variant is told of the measurements."""
    conditions = seen.conditions.clone()
    conditions[:, [CONDITIONS.index(name) for name in variant.hidden]] = 0.0
    return replace(seen, conditions=conditions)


def train(
    config: TrainConfig,
    variant: Variant,
    learned_from: tuple[Rows, Observation],
    held_out: tuple[Rows, Observation],
    q: torch.Tensor,
    steps: int,
) -> dict[str, float]:
    """Train one variant, and try it on what was held out."""
    torch.manual_seed(config.seed)
    rows, seen = learned_from[0], told(learned_from[1], variant)
    device, size, kind = seen.intensity.device, config.trainer.batch, config.network.input
    model = build_model(config.network, None, len(q), seen.conditions.shape[1])
    moments = InputMoments(len(q), seen.conditions.shape[1], rows.targets().shape[1])
    for start in range(0, min(_WHITENING, len(rows)), size):
        part = slice(start, start + size)
        moments.add(network_input(seen.take(part), q, kind), rows.take(part).targets())
    model.fit(moments)
    model.to(device)
    optimizers = build_optimizers(config.optim, model)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    half = config.trainer.precision in ("bfloat16", "auto")
    clock, began = _clock(device), 0.0

    def forward(one: Observation) -> Any:
        inputs = network_input(one, q, kind)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return model(inputs)

    for step in range(steps):
        if step == _FIRST:
            began = clock()
        start = step * size % (len(rows) - size + 1) // size * size
        part = slice(start, start + size)
        loss = pattern_loss(forward(seen.take(part)), rows.take(part), config).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(learned, config.optim.clip)
        set_progress(optimizers, config.optim, step, steps)
        for optimizer in optimizers:
            optimizer.step()
    spent = clock() - began
    values: dict[str, list[torch.Tensor]] = {}
    errors = []
    with torch.no_grad():
        for start in range(0, len(held_out[0]), size):
            part = slice(start, start + size)
            density, truth = forward(told(held_out[1].take(part), variant)), held_out[0].take(part)
            for name, one in scores(density, truth, config).items():
                values.setdefault(name, []).append(one)
            errors.append(density.moments()[0] - truth.targets())
    named = {name: float(torch.cat(parts).double().mean()) for name, parts in values.items()}
    rmse = torch.cat(errors).double().square().mean(dim=0).sqrt().tolist()
    return {
        **named,
        **{f"{name}_rmse": one for name, one in zip(("size", "dispersion", "strain"), rmse, strict=True)},
        "step_ms": 1e3 * spent / (steps - _FIRST),
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


def table(lines: Sequence[dict[str, Any]], where: dict[str, Any], steps: int, patterns: int) -> str:
    """Markdown."""
    device = where["gpu"]["name"] if "gpu" in where else f"one core of {where['cpu']}"
    text = (
        f"Variants of `experiment=production_cpu` were trained for {steps} steps each on the same {patterns} patterns, "
        f"and tried on others. RMSE of posterior means. Milliseconds are of {device} (input, network, optimiser; not "
        f"the drawing of patterns), other programs beside it. torch {where['packages']['torch']}, "
        f"{where['date'][:10]}, commit {where['commit'][:8]}."
    )
    head = [
        "# Ablations of the posterior network",
        "",
        text,
        "",
        "| variant | loss [nats] | RMSE ln D_v | RMSE ln σ | RMSE ε [10⁻⁴] | ms per step | weights [10⁶] |",
        "|---|---|---|---|---|---|---|",
    ]
    body = [
        f"| {one['variant']} | {one['nll']:.2f} | {one['size_rmse']:.4f} | {one['dispersion_rmse']:.3f} | "
        f"{1e4 * one['strain_rmse']:.2f} | {one['step_ms']:.0f} | {one['weights'] / 1e6:.2f} |"
        for one in lines
    ]
    return "\n".join([*head, *body, ""])


if __name__ == "__main__":
    main()
