"""Endless data: uniform where asked, inside the basis, a function of step and lane, apart from held-out samples."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpc.ensemble import largest_diameter
from qdml.config import EnsembleDataConfig, VariantWeight
from qdml.dataset import split_samples
from qdml.ensemble import DotDraws, check_ranges, ensemble_lanes, variant_weights

CPU = torch.device("cpu")
DATA = EnsembleDataConfig(
    name="ensemble",
    store="memory",
    lanes=2,
    validation=0.25,
    mean="number",
    diameter_nm=(1.5, 12.0),
    sigma=(0.02, 0.35),
    strain=(-0.004, 0.008),
    b_scale=(0.8, 2.5),
    variants=None,
    tail=1e-4,
)
TITLES = ["sphere", "sphere, twin_plane", "cube"]


def memory_store(largest: tuple[float, ...] = (16.0, 16.0, 16.0)) -> SimpleNamespace:
    """Parameters and largest dots; nothing else is looked at."""
    n = 4096
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        path="memory",
        parameters={
            "variant": rng.integers(0, 3, n),
            "diameter": np.linspace(1.5, 12.0, n),
            "sigma": rng.permutation(np.linspace(0.02, 0.35, n)),
            "strain": rng.permutation(np.linspace(-0.004, 0.008, n)),
            "b_scale": rng.permutation(np.linspace(0.8, 2.5, n)),
        },
        n_samples=n,
        n_variants=3,
        shards=[(start, start + 256) for start in range(0, n, 256)],
        attrs={"variants": [{"title": title} for title in TITLES]},
        near=lambda v: {"diameter": np.array([0.0, 1.0, largest[v]])},
    )


def drawn(config: EnsembleDataConfig, n: int = 100_000, **of_store: object) -> dict[str, np.ndarray]:
    rows = DotDraws(config, memory_store(**of_store), CPU)(n, torch.Generator().manual_seed(0))
    return {
        name: getattr(rows, name).numpy()
        for name in ("variant", "diameter", "sigma", "strain", "b_scale", "volume_diameter")
    }


def is_uniform(values: np.ndarray, low: float, high: float) -> bool:
    """Kolmogorov-Smirnov: sqrt(n) times the largest difference of distribution functions is below 1.95 in 99.9 %."""
    at = np.sort((values - low) / (high - low))
    return bool(np.abs(at - (np.arange(len(at)) + 0.5) / len(at)).max() * np.sqrt(len(at)) < 1.95)


def test_what_is_uniform() -> None:
    values = drawn(DATA)
    assert is_uniform(values["diameter"], *DATA.diameter_nm)
    assert is_uniform(values["strain"], *DATA.strain)
    assert is_uniform(values["b_scale"], *DATA.b_scale)
    # Up to 3 nm the basis covers every σ: 3 e^{2.5 s² + 3.72 s} < 16 for s = ln(1 + 0.35²)^½.
    assert is_uniform(values["sigma"][values["diameter"] < 3], *DATA.sigma)
    assert np.bincount(values["variant"]) == pytest.approx(len(values["variant"]) / 3, rel=0.02)


def test_the_volume_mean_may_be_the_uniform_one() -> None:
    values = drawn(replace(DATA, mean="volume"))
    assert is_uniform(values["volume_diameter"], *DATA.diameter_nm)
    assert values["volume_diameter"] == pytest.approx(
        values["diameter"] * (1 + values["sigma"] ** 2) ** 3, rel=1e-12
    )


@pytest.mark.parametrize("mean", ["number", "volume"])
def test_no_more_than_the_tail_lies_beyond_the_basis(mean: str) -> None:
    """Against the rule by which a simulation chooses its largest particle; and what is allowed is used."""
    config = replace(DATA, mean=mean)
    values = drawn(config, n=2000)
    reach = np.array(
        [
            largest_diameter(d, s, tail=DATA.tail)
            for d, s in zip(values["diameter"], values["sigma"], strict=True)
        ]
    )
    assert reach.max() <= 16 * (1 + 1e-9)
    large = values["diameter"] > 8
    assert reach[large].max() > 15.9
    assert (values["sigma"] >= DATA.sigma[0]).all()
    assert (values["sigma"] <= DATA.sigma[1]).all()


def test_every_variant_has_its_own_largest_dot() -> None:
    values = drawn(DATA, n=20_000, largest=(16.0, 30.0, 13.2))
    at_most = [
        values["sigma"][(values["variant"] == v) & (values["diameter"] > 11.9)].max() for v in range(3)
    ]
    assert at_most[2] < 0.03 < at_most[0] < 0.1 < at_most[1]


def test_weights_by_name() -> None:
    weights = (VariantWeight(title="twin", weight=3.0), VariantWeight(title="sphere", weight=1.0))
    with pytest.raises(ValueError, match="no entry for the variant 'cube' of memory"):
        variant_weights(replace(DATA, variants=weights), memory_store())
    weights = (*weights, VariantWeight(title="cube", weight=0.0))
    counts = np.bincount(drawn(replace(DATA, variants=weights))["variant"], minlength=3)
    assert counts[2] == 0
    assert counts[1] == pytest.approx(3 * counts[0], rel=0.03)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([("sphere", 1.0), ("cube", 1.0), ("rod", 1.0)], "no variant of memory is described by 'rod' alone"),
        (
            [("sphere", 1.0), ("cube", 1.0), ("twin", 1.0)],
            "no variant of memory is described by 'twin' alone",
        ),
        ([("sphere", 0.0), ("cube", 0.0)], "leaves out every variant"),
    ],
)
def test_weights_that_cannot_be(weights: list[tuple[str, float]], message: str) -> None:
    entries = tuple(VariantWeight(title=title, weight=weight) for title, weight in weights)
    with pytest.raises(ValueError, match=message):
        variant_weights(replace(DATA, variants=entries), memory_store())


@pytest.mark.parametrize("mean", ["number", "volume"])
def test_a_basis_that_is_too_small(mean: str) -> None:
    with pytest.raises(
        ValueError, match=r"data.diameter_nm reaches 12 nm with σ = 0.02, .*\(cube\) has 12.5 nm: more than"
    ):
        DotDraws(replace(DATA, mean=mean), memory_store(largest=(16.0, 16.0, 12.5)), CPU)
    # The variant that is too small may be left out.
    weights = (VariantWeight(title="sphere", weight=1.0), VariantWeight(title="cube", weight=0.0))
    DotDraws(replace(DATA, mean=mean, variants=weights), memory_store(largest=(16.0, 16.0, 12.5)), CPU)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"diameter_nm": (1.5, 14.0)}, "diameter_nm"),
        ({"sigma": (0.002, 0.35)}, "sigma"),
        ({"strain": (-0.004, 0.02)}, "strain"),
        ({"b_scale": (0.1, 2.5)}, "b_scale"),
    ],
)
def test_ranges_beyond_those_of_the_store(change: dict, name: str) -> None:
    check_ranges(DATA, memory_store())
    with pytest.raises(ValueError, match=f"data.{name} is .*, but memory was simulated for .* to"):
        check_ranges(replace(DATA, **change), memory_store())


def lanes(world: int, rank: int = 0, **change: object) -> list:
    return ensemble_lanes(
        memory_store(),
        replace(DATA, **change),
        seed=3,
        rank=rank,
        world=world,
        device=CPU,
        intensity=False,
    )


def test_dots_depend_on_step_and_lane_alone() -> None:
    both = lanes(1)
    for rank in (0, 1):
        (mine,) = lanes(2, rank)
        assert torch.equal(mine.batch(5, 8).diameter, both[rank].batch(5, 8).diameter)
    steps = [both[0].batch(step, 8).diameter for step in (0, 1, 5)]
    assert not any(torch.equal(a, b) for i, a in enumerate(steps) for b in steps[:i])
    assert not torch.equal(both[0].batch(0, 8).diameter, both[1].batch(0, 8).diameter)


def test_the_samples_of_the_store_are_held_out() -> None:
    splits = split_samples(4096, DATA.train, DATA.validation, seed=3)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 0,
        "validation": 1024,
        "test": 3072,
    }
    held_out = torch.cat([lane.validation.diameter for lane in lanes(1)]).sort().values
    assert np.array_equal(held_out.numpy(), memory_store().parameters["diameter"][splits["validation"]])
