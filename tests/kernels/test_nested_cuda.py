"""Does the CUDA kernel count the same pairs as the references, integer for integer?"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cuda_on_cpu import KernelError

import hpc.cuda.nested
from hpc.cuda.nested import WorkList, count_pairs_cuda, kernel_source, plan_work, prepare_launch
from hpc.device import Device, select_device
from hpc.pairs.nested import count_pairs, count_pairs_reference
from hpc.structure.lattice_sites import NestedSites, cut_nested_sites
from hpc.structure.material import Kind, Material, load_material

SHARED_H100 = 227 * 1024


def _material(name: str) -> Material:
    """PbS, or a crystal that differs from it in symmetry and number of kinds."""
    if name == "pbs":
        return load_material("pbs")
    sites = {
        "zincblende": ("F -4 3 m", [(0, 0, 0), (0.25, 0.25, 0.25)]),  # 24 operations
        "perovskite": ("P m -3 m", [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]),  # three kinds
        "one kind": ("P 1", [(0.2, 0, 0)]),
    }
    space_group, positions = sites[name]
    kinds = tuple(
        Kind(label=f"X{i}", element="Pb", occupancy=1.0, b_iso=0.0) for i, position in enumerate(positions)
    )
    return Material(
        name=name,
        space_group=space_group,
        cell_angstrom=(4.0, 4.0, 4.0, 90.0, 90.0, 90.0),
        kinds=kinds,
        positions=tuple(positions),
    )


def _sites(material: str, centre: str | list[float], diameter: float) -> NestedSites:
    return cut_nested_sites(_material(material), shape="sphere", centre=centre, diameter_max=diameter)


CASES = {
    "Pb in the middle": ("pbs", "Pb", 30.0),
    "S in the middle": ("pbs", "S", 25.0),
    "a bond in the middle": ("pbs", [0.25, 0.0, 0.0], 22.0),
    "no symmetry at all": ("pbs", [0.1, 0.2, 0.45], 20.0),
    "zincblende": ("zincblende", "X1", 18.0),
    "three kinds": ("perovskite", "X2", 18.0),
    "one kind": ("one kind", "X0", 24.0),
    "a single site": ("pbs", "Pb", 1.0),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _count(sites: NestedSites, device: Device) -> np.ndarray:
    return device.to_host(count_pairs_cuda(sites, device))


def _evaluate(work: WorkList) -> np.ndarray:
    """What the header of nested.cu says that the kernel does with a work list."""
    counts = np.zeros(work.shape, dtype=np.int64)
    rows = counts.reshape(-1, work.shape[2])
    for item in work.items:
        representatives = work.representatives[item["rep_begin"] : item["rep_end"], None, :3].astype(np.int64)
        sites = work.sites[item["site_begin"] : item["site_end"], :3]
        n = ((sites - representatives) ** 2).sum(axis=2).ravel()
        n = n[(n > 0) & (n >= item["first_class"]) & (n < item["end_class"])]
        np.add.at(rows[item["row"]], n, item["multiplier"])
    return counts


@cases
@pytest.mark.parametrize(
    ("shared_limit", "visits_per_item"), [(SHARED_H100, None), (SHARED_H100, 100), (500, 1000), (128, 1)]
)
def test_work_list_covers_every_pair_once(
    case: tuple, shared_limit: int, visits_per_item: int | None
) -> None:
    sites = _sites(*case) if visits_per_item != 1 else _sites(case[0], case[1], min(case[2], 9.0))
    work = plan_work(sites, shared_limit=shared_limit, visits_per_item=visits_per_item)
    assert np.array_equal(_evaluate(work), count_pairs_reference(sites))
    assert work.shared_bytes <= shared_limit
    assert (work.items["end_class"] - work.items["first_class"] <= work.window).all()


def test_work_list_is_balanced() -> None:
    sites = _sites("pbs", "Pb", 100.0)
    work = plan_work(sites, shared_limit=SHARED_H100, visits_per_item=4096)
    reps, slices = (work.items[f"{of}_end"] - work.items[f"{of}_begin"] for of in ("rep", "site"))
    assert (np.diff(reps * slices) <= 0).all(), "the most expensive items start first"
    assert (reps * slices <= 4096 + reps).all(), (
        "none is larger than asked for, but for the rounding of slices"
    )
    assert (reps * slices).sum() == work.visits == plan_work(sites, shared_limit=SHARED_H100).visits


def test_particle_too_large_for_the_kernel() -> None:
    sites = _sites("pbs", "Pb", 10.0)
    stretched = replace(sites, position=sites.position * 30_000)
    with pytest.raises(ValueError, match=r"below 2\^31 grid units.* choose a smaller diameter or device=cpu"):
        plan_work(stretched, shared_limit=SHARED_H100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared_limit": 127}, "shared_limit must be at least 128 bytes, got 127"),
        ({"shared_limit": 128, "visits_per_item": 0}, r"visits_per_item must lie in \[1, 2\^31\], got 0"),
        ({"shared_limit": 128, "visits_per_item": 2**31 + 1}, "visits_per_item must lie in"),
    ],
)
def test_work_list_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_work(_sites("pbs", "Pb", 10.0), **arguments)


@cases
def test_kernel_on_the_cpu_equals_all_pairs(case: tuple, on_cpu: Callable[..., Device]) -> None:
    sites = _sites(*case)
    counts = _count(sites, on_cpu())
    assert counts.dtype == np.int64
    assert np.array_equal(counts, count_pairs_reference(sites))
    assert counts.sum() == len(sites.position) * (len(sites.position) - 1)


def test_kernel_on_the_cpu_equals_numba_at_8_nm(on_cpu: Callable[..., Device]) -> None:
    sites = _sites("pbs", "Pb", 80.0)
    assert np.array_equal(_count(sites, on_cpu()), count_pairs(sites, threads=1))


@pytest.mark.parametrize("opt_in_bytes", [4 * 32, 1000, 20 * 1024])
def test_rows_longer_than_shared_memory(opt_in_bytes: int, on_cpu: Callable[..., Device]) -> None:
    sites = _sites("pbs", "Pb", 26.0)
    counts = _count(sites, on_cpu(opt_in_bytes=opt_in_bytes))
    assert np.array_equal(counts, count_pairs_reference(sites))


def test_many_items_add_up_in_one_row(on_cpu: Callable[..., Device], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpc.cuda.nested, "_VISITS_PER_ITEM", 300)
    monkeypatch.setattr(hpc.cuda.nested, "_VISITS_PER_BIN", 0)
    sites = _sites("pbs", [0.1, 0.2, 0.45], 20.0)
    assert np.array_equal(_count(sites, on_cpu()), count_pairs_reference(sites))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("bins[k] = 0u;\n    __syncthreads();", "bins[k] = 0u;"),
        ("    }\n    __syncthreads();", "    }"),
        ("k < window_slots", "k < window"),
        ("bin < window", "bin <= window_slots"),
        ("atomicAdd(&bins[slot(bin)], 1u)", "bins[slot(bin)] += 1u"),
        ("counts[row + k]", "counts[row + k + n_class]"),
    ],
    ids=[
        "no barrier before",
        "no barrier after",
        "bins not cleared",
        "bin too far",
        "no atomic",
        "row too far",
    ],
)
def test_broken_kernel_is_detected(
    right: str, wrong: str, on_cpu: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kernel_source()
    assert source.count(right) == 1
    monkeypatch.setattr(hpc.cuda.nested, "kernel_source", lambda: source.replace(right, wrong))
    with pytest.raises(KernelError, match=r"race|before anything was written|outside its"):
        count_pairs_cuda(_sites("pbs", "Pb", 26.0), on_cpu(opt_in_bytes=256))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("!itself", "true"),
        ("bins[slot(k)]", "bins[k]"),
        ("real && bin", "bin"),
        ("item.first_class;\n    for", "0;\n    for"),
        ("(unsigned long long)item.multiplier * pairs", "pairs"),
    ],
    ids=[
        "a site with itself",
        "bins in another order",
        "last site repeated",
        "wrong window",
        "no multiplier",
    ],
)
def test_wrong_kernel_is_detected(
    right: str, wrong: str, on_cpu: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kernel_source()
    assert source.count(right) == 1
    monkeypatch.setattr(hpc.cuda.nested, "kernel_source", lambda: source.replace(right, wrong))
    sites = _sites("pbs", "Pb", 26.0)
    counts = _count(sites, on_cpu(opt_in_bytes=256))
    assert not np.array_equal(counts, count_pairs_reference(sites))


def test_needs_a_gpu() -> None:
    with pytest.raises(
        ValueError, match=r"count_pairs_cuda needs a GPU, got CPU .*hpc\.pairs\.nested\.count_pairs"
    ):
        count_pairs_cuda(_sites("pbs", "Pb", 10.0), select_device("cpu"))


def test_counts_larger_than_the_memory_of_the_gpu(on_cpu: Callable[..., Device]) -> None:
    device = on_cpu(free_bytes=2**20)
    with pytest.raises(
        MemoryError, match=r"need 0\.0\d GiB, CPU as GPU has 0\.00 GiB free; choose a smaller"
    ):
        count_pairs_cuda(_sites("pbs", "Pb", 100.0), device)


@pytest.mark.gpu
@cases
def test_gpu_equals_all_pairs(case: tuple) -> None:
    sites, device = _sites(*case), select_device("cuda")
    assert np.array_equal(_count(sites, device), count_pairs_reference(sites))


@pytest.mark.gpu
@pytest.mark.parametrize("diameter", [100.0, 160.0, 200.0])
def test_gpu_equals_numba_twice(diameter: float) -> None:
    sites, device = _sites("pbs", "Pb", diameter), select_device("cuda")
    expected = count_pairs(sites)
    for _ in range(2):
        assert np.array_equal(_count(sites, device), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [32, 1248, 24_992])
def test_gpu_any_window(window: int) -> None:
    """Rows in many windows, and one block that takes more than the 48 KiB it may have without asking."""
    sites, device = _sites("pbs", "Pb", 60.0), select_device("cuda")
    work = replace(plan_work(sites, shared_limit=4 * min(window, 1248)), window=window)
    counts = device.xp.zeros(work.shape, dtype=device.xp.uint64)
    prepare_launch(work, device)(counts)
    assert np.array_equal(device.to_host(counts), count_pairs(sites))
