"""Shards -> lanes -> batches: the same rows for any number of processes, no pattern in two splits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qdml.config import ClassConfig, StoreDataConfig
from qdml.dataset import (
    check_classes,
    fingerprint,
    lane_generator,
    nearest_class,
    read_lanes,
    read_rows,
    split_samples,
)

CPU = torch.device("cpu")
DATA = StoreDataConfig(name="store", store="memory", lanes=4, train=0.6, validation=0.2)


def memory_store(n: int = 60, rows_per_shard: int = 5) -> SimpleNamespace:
    """A store whose pattern k is k + 1 everywhere, so that rows can be told apart."""
    values = np.repeat(np.arange(1, n + 1, dtype=np.float32)[:, None], 3, axis=1)
    return SimpleNamespace(
        path="memory",
        q=np.array([1.0, 1.1, 1.2]),
        parameters={
            "variant": np.zeros(n, dtype=np.int64),
            "strain": np.linspace(-0.001, 0.003, n),
            "b_scale": np.linspace(0.8, 2.0, n),
            "diameter": np.linspace(2, 4, n),
            "sigma": np.tile([0.05, 0.1], n // 2),
        },
        n_samples=n,
        shards=[(start, min(start + rows_per_shard, n)) for start in range(0, n, rows_per_shard)],
        attrs={"material": "PbS", "energy_kev": 22.0, "variants": [{"title": "sphere"}]},
        values=values,
        read=lambda start, stop: values[start:stop],
    )


def lanes_of(store: SimpleNamespace, world: int, config: StoreDataConfig = DATA) -> dict:
    """Lane number -> lane, over all processes."""
    lanes = [read_lanes(store, config, seed=3, rank=rank, world=world, device=CPU) for rank in range(world)]
    assert len({len(mine) for mine in lanes}) == 1
    return {lane.number: lane for mine in lanes for lane in mine}


def test_batches_do_not_depend_on_the_number_of_processes() -> None:
    store = memory_store()
    alone = lanes_of(store, 1)
    for world in (2, 4):
        shared = lanes_of(store, world)
        assert sorted(shared) == sorted(alone) == [0, 1, 2, 3]
        for step in (0, 1, 7):
            for number, lane in alone.items():
                assert torch.equal(lane.batch(step, 5).intensity, shared[number].batch(step, 5).intensity)


def test_an_epoch_of_a_lane_holds_every_training_row_once() -> None:
    lane = lanes_of(memory_store(), 1)[0]
    n = len(lane.train)
    seen = torch.cat([lane.batch(step, 1).intensity[:, 0] for step in range(2 * n)])
    first, second = seen[:n], seen[n:]
    assert torch.equal(first.sort().values, lane.train.intensity[:, 0].sort().values)
    assert torch.equal(second.sort().values, first.sort().values)
    assert not torch.equal(first, second), "each epoch has an order of its own"


def test_a_batch_across_epochs_joins_them() -> None:
    lane = lanes_of(memory_store(), 1)[0]
    n = len(lane.train)
    whole = lane.batch(0, 3 * n).intensity
    assert torch.equal(whole, torch.cat([lane.batch(step, n).intensity for step in range(3)]))


def test_splits_are_disjoint_and_cover_every_pattern() -> None:
    splits = split_samples(1292, 0.7, 0.1, seed=0)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 904,
        "validation": 130,
        "test": 258,
    }
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(1292))


def test_splits_do_not_depend_on_shards_or_lanes() -> None:
    expected = split_samples(60, DATA.train, DATA.validation, seed=3)["train"] + 1
    for rows_per_shard, lanes in ((5, 4), (20, 3), (10, 1)):
        config = StoreDataConfig(
            name="store", store="memory", lanes=lanes, train=DATA.train, validation=DATA.validation
        )
        read = lanes_of(memory_store(rows_per_shard=rows_per_shard), 1, config).values()
        rows = torch.cat([lane.train.intensity[:, 0] for lane in read]).sort().values
        assert rows.tolist() == expected.tolist()


def test_validation_rows_are_no_training_rows() -> None:
    for lane in lanes_of(memory_store(), 1).values():
        batches = torch.cat([rows.intensity[:, 0] for rows in lane.validation_batches(2)])
        assert torch.equal(batches, lane.validation.intensity[:, 0])
        assert not set(batches.tolist()) & set(lane.train.intensity[:, 0].tolist())


def test_rows_carry_their_parameters() -> None:
    store = memory_store()
    index = np.array([0, 4, 5, 33, 59])
    rows = read_rows(store, index, CPU)
    assert (rows.intensity[:, 0] - 1).int().tolist() == index.tolist()
    for name in ("variant", "diameter", "sigma", "strain", "b_scale"):
        assert getattr(rows, name).tolist() == store.parameters[name][index].tolist(), name
    taken = rows.take(torch.tensor([3, 1]))
    assert len(taken) == 2
    assert taken.strain.tolist() == store.parameters["strain"][index[[3, 1]]].tolist()
    assert torch.equal(taken.intensity, rows.intensity[[3, 1]])


def test_rows_without_patterns_read_no_shard() -> None:
    store = memory_store()
    store.read = None
    rows = read_rows(store, np.array([1, 2]), CPU, intensity=False)
    assert rows.intensity is None
    assert rows.take(slice(0, 1)).intensity is None


def test_targets_are_what_a_posterior_is_of() -> None:
    """A lognormal of D = 4 nm and σ = 0.1 has the volume mean 4 · 1.01³ nm."""
    store = memory_store()
    rows = read_rows(store, np.array([59]), CPU)
    assert rows.volume_diameter.tolist() == pytest.approx([4 * 1.01**3], rel=1e-12)
    assert rows.targets().tolist() == [pytest.approx([np.log(4 * 1.01**3), np.log(0.1), 0.003], rel=1e-6)]


def test_random_streams_differ_by_key_and_repeat() -> None:
    keys = [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 3)]
    draws = [torch.rand(4, generator=lane_generator(CPU, *key)) for key in keys]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])
    assert torch.equal(draws[0], torch.rand(4, generator=lane_generator(CPU, *keys[0])))


def test_fingerprint_is_of_the_patterns_not_of_the_shards() -> None:
    store = memory_store()
    assert fingerprint(store) == fingerprint(memory_store(rows_per_shard=20))
    store.parameters["sigma"] = store.parameters["sigma"] + 0.01
    assert fingerprint(store) != fingerprint(memory_store())


def test_neutrons_are_not_x_rays_without_an_energy() -> None:
    x_rays, cold, thermal = memory_store(), memory_store(), memory_store()
    x_rays.attrs |= {"energy_kev": None, "particle": "xray", "wavelength_angstrom": None}
    cold.attrs |= {"energy_kev": None, "particle": "neutron", "wavelength_angstrom": 5.0}
    thermal.attrs |= {"energy_kev": None, "particle": "neutron", "wavelength_angstrom": 1.8}
    assert len({fingerprint(store) for store in (x_rays, cold, thermal)}) == 3


def test_nearest_class() -> None:
    assert nearest_class(torch.tensor([1.0, 2.24, 2.26, 9.0]), (2.0, 2.5, 3.0)).tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("config", "world", "message"),
    [
        (DATA, 3, "data.lanes must be a multiple of the number of processes.*4 lanes for 3 processes"),
        (
            StoreDataConfig(name="store", store="", lanes=13, train=0.6, validation=0.2),
            1,
            "got 13 lanes, memory has 12 shards",
        ),
        (
            StoreDataConfig(name="store", store="", lanes=12, train=0.6, validation=0.02),
            1,
            "holds no pattern of the validation split",
        ),
        (
            StoreDataConfig(name="store", store="", lanes=1, train=0.995, validation=0.001),
            1,
            "validation split of 60 patterns would be",
        ),
    ],
)
def test_lanes_that_cannot_be_dealt(config: StoreDataConfig, world: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_lanes(memory_store(), config, seed=0, rank=0, world=world, device=CPU)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_store_with_impossible_intensities(value: float) -> None:
    store = memory_store()
    store.values[17, 1] = value
    with pytest.raises(
        ValueError, match="1 patterns with intensities that are not finite and positive.*sample 17"
    ):
        read_rows(store, np.arange(60), CPU)


def test_classes_without_patterns() -> None:
    store = memory_store()
    check_classes(store, ClassConfig(diameter_nm=(2.0, 3.0, 4.0), sigma=(0.05, 0.1)))
    with pytest.raises(ValueError, match=r"centres without any pattern.*\[6.0\]; the store spans 2 to 4"):
        check_classes(store, ClassConfig(diameter_nm=(2.0, 4.0, 6.0), sigma=(0.05, 0.1)))
