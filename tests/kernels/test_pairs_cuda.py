"""Does the CUDA kernel find the moments of all pair distances, with the same bits in any order?"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from cuda_on_cpu import KernelError
from numba import njit

import hpc.cuda.pairs
from hpc.cuda.pairs import (
    MACROS,
    PairPlan,
    kernel_source,
    moments_of_sums,
    pair_moments_cuda,
    plan_pairs,
    prepare_launch,
    require_every_pair,
)
from hpc.device import Device, select_device
from hpc.pairs.families import Sampling, Sizes, plan_counting
from hpc.pairs.moments import Bins
from hpc.pairs.single import partial_sums_of_positions
from hpc.structure.material import kind_pairs, load_material
from hpc.structure.variant import Disorder, Shape, Variant

WIDTH = 0.0125  # Å
SHARED_H100 = 227 * 1024
# Of t and its powers: two atoms move by up to 4 units of the kernel's fixed point along each axis.
ROUNDING = 16 * 2.0**-20


def _particle(n_atoms: int, *, kinds: int = 2, displacement: float = 0.0) -> list[np.ndarray]:
    """A ball of `n_atoms` of a rocksalt lattice (of three kinds in turns), displaced at random."""
    reach = np.arange(-18, 19) if n_atoms > 1000 else np.arange(-8, 9)
    index = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), axis=-1).reshape(-1, 3)
    index = index[np.argsort((index**2).sum(axis=1), kind="stable")][:n_atoms]
    rng = np.random.default_rng(n_atoms)
    position = 2.968 * index + displacement * rng.standard_normal(index.shape)
    kind = index.sum(axis=1) % kinds
    return [position[kind == k] for k in range(kinds)]


def _make_bins(count: int, width: float = WIDTH) -> Bins:
    return Bins(width=width, fine=8, count=count)


def _bins(positions: Sequence[np.ndarray], width: float = WIDTH) -> Bins:
    reach = 2 * np.sqrt((np.concatenate(positions) ** 2).sum(axis=1)).max()
    return _make_bins(8 * (int(reach / width) // 8 + 1), width)


def _reference(positions: Sequence[np.ndarray], bins: Bins, n_moments: int = 4) -> np.ndarray:
    """(pair, bin, moment) by NumPy, from all distances at once."""
    rows = []
    for a, b in kind_pairs(len(positions)):
        distance = np.sqrt(((positions[a][:, None] - positions[b]) ** 2).sum(axis=-1))
        ordered = distance[~np.eye(len(distance), dtype=bool)] if a == b else np.tile(distance.ravel(), 2)
        bin_, t = np.divmod(ordered / bins.width, 1.0)
        powers = [(t - 0.5) ** m for m in range(n_moments)]
        rows.append(np.stack([np.bincount(bin_.astype(int), power, bins.count) for power in powers], axis=-1))
    return np.stack(rows)


@njit
def _add_pairs(first, second, same, width, moments):  # type: ignore[no-untyped-def]
    for i in range(len(first)):
        for j in range(i + 1 if same else 0, len(second)):
            dx, dy, dz = first[i] - second[j]
            x = np.sqrt(dx * dx + dy * dy + dz * dz) / width
            t = x - int(x) - 0.5
            for m in range(4):
                moments[int(x), m] += 2 * t**m


def _large_reference(positions: Sequence[np.ndarray], bins: Bins) -> np.ndarray:
    """The same for particles whose distances do not fit into memory."""
    moments = np.zeros((len(kind_pairs(len(positions))), bins.count, 4))
    for row, (a, b) in enumerate(kind_pairs(len(positions))):
        _add_pairs(positions[a], positions[b], a == b, bins.width, moments[row])
    return moments


def _assert_same(moments: np.ndarray, expected: np.ndarray, rounding: float = ROUNDING) -> None:
    assert moments.dtype == np.float64
    assert np.array_equal(moments[..., 0].sum(axis=-1), expected[..., 0].sum(axis=-1))
    # A distance within the rounding of the edge of a bin may be in either of two.
    same = moments[..., 0] == expected[..., 0]
    assert (~same).mean() < 1e-3
    difference = np.abs(moments - expected)[same]
    assert (difference <= rounding * expected[same][:, :1]).all()


def _plan(positions: Sequence[np.ndarray], bins: Bins, **options: object) -> PairPlan:
    macros = {**MACROS, "THREADS": 64, **options.pop("macros", {})}
    defaults = {"shared_limit": SHARED_H100, "multiprocessors": 4}
    return plan_pairs(positions, bins, **{**defaults, **options}, macros=macros)


def _sums(plan: PairPlan, device: Device) -> np.ndarray:
    sums = device.xp.zeros(plan.shape, dtype=np.uint64)
    prepare_launch(plan, device)(sums)
    return device.to_host(sums)


# ------------------------------------------------------------------------------------------------------------ planning
@pytest.mark.parametrize("sizes", [(1,), (32,), (33, 64), (65,), (100, 0, 31), (170, 129), (0, 40)])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_pair_of_tiles_is_in_one_chunk(sizes: tuple[int, ...], parts: int) -> None:
    positions = [np.random.default_rng(n).random((n, 3)) for n in sizes]
    bins = _make_bins(256)
    tiles = [-(-n // 32) for n in sizes]
    options = {"shared_limit": 100 * 20 + 4, "multiprocessors": 1, "macros": {"TILE": 32}}
    seen: dict[tuple, int] = {}
    for part in range(parts):
        for chunk in _plan(positions, bins, part=(part, parts), **options).chunks:
            for k in range(chunk["begin"], chunk["end"]):  # as tile_pair() of pairs.cu
                d, a = divmod(k, int(chunk["tiles_a"]))
                if chunk["tile_a"] == chunk["tile_b"]:
                    if 2 * d == chunk["tiles_a"] and a >= d:
                        continue
                    d = (a + d) % chunk["tiles_a"]
                pair = tuple(sorted((int(chunk["tile_a"]) + a, int(chunk["tile_b"]) + int(d))))
                key = (int(chunk["row"]), int(chunk["first_bin"]), *pair)
                seen[key] = seen.get(key, 0) + 1
    assert set(seen.values()) == {1}
    per_window = sum(t * (t + 1) // 2 for t in tiles) + sum(
        tiles[a] * tiles[b] for a, b in kind_pairs(len(tiles)) if a != b
    )
    assert len(seen) == 3 * per_window  # 256 bins in windows of up to 100


def test_tiles_hold_every_atom_and_boxes_hold_their_tiles() -> None:
    positions = _particle(700, displacement=0.1)
    plan = _plan(positions, _bins(positions), macros={"TILE": 32})
    tiles = plan.atoms.reshape(-1, 32, 4)[:, :, :3]
    real = tiles[:, :, 0] < 2**20
    centre, half = plan.boxes[:, None, :3], plan.boxes[:, None, 3:]
    outside = np.abs(tiles - centre) - half
    assert outside[real].max() < 0.01  # of a bin: float32
    assert (~real).sum() == sum(-len(of_kind) % 32 for of_kind in positions)
    atoms = np.sort(tiles[real] * WIDTH, axis=0)
    everything = np.concatenate(positions)
    shift = (
        everything.min(axis=0) + everything.max(axis=0)
    ) / 2  # atoms are displaced by up to 4 units of 2^-20
    np.testing.assert_allclose(atoms, np.sort(everything - shift, axis=0), rtol=0, atol=4.1 * 2**-20 * WIDTH)
    # A tile of 32 atoms of one kind fills a cube of 12 Å; a random choice of atoms would fill the particle, 28 Å wide.
    assert 2 * half.max() * WIDTH < 20


def test_chunks_are_balanced_and_worth_their_bins() -> None:
    positions = _particle(20_000)
    plan = _plan(positions, _bins(positions), multiprocessors=132, macros=MACROS)
    pairs = (plan.chunks["end"] - plan.chunks["begin"]).astype(np.int64)
    rows = [plan.chunks["row"] == row for row in range(3)]
    assert all(np.ptp(pairs[row]) <= 1 for row in rows)
    assert (pairs * 128**2 >= 32 * plan.window).all()
    assert 132 <= len(plan.chunks) <= 16 * 132 + len(rows)
    assert plan.shared_bytes <= SHARED_H100


@pytest.mark.parametrize(("n_moments", "most"), [(4, 2**24), (6, 2**20)])
def test_carries_of_a_chunk_fit(n_moments: int, most: int) -> None:
    positions = [np.random.default_rng(0).random((50_000, 3))]
    plan = _plan(positions, _make_bins(8), multiprocessors=1, macros={"MOMENTS": n_moments})
    pairs = (plan.chunks["end"] - plan.chunks["begin"]).astype(np.int64) * MACROS["TILE"] ** 2
    assert most / 4 < pairs.max() < most
    with pytest.raises(ValueError, match="tiles of 128 atoms are too large for 4095 pairs in a chunk"):
        _plan(positions, _make_bins(8), macros={"MOMENTS": 6, "FRACTION_BITS": 28})


@pytest.mark.parametrize(
    ("positions", "options", "message"),
    [
        ([], {}, "positions must be one .n, 3. array for each kind, got shapes .."),
        ([np.zeros((4, 2))], {}, r"got shapes \[\(4, 2\)\]"),
        ([np.zeros((2, 3)), np.full((1, 3), np.nan)], {}, "positions must be finite"),
        (
            [np.array([[0.0, 0, 0], [2e4, 0, 0]])],
            {},
            r"below 2\^20 bins, got 800 bins and .* measures 1.6e\+06",
        ),
        ([np.zeros((2_100_000, 3))], {}, r"up to 2\^41 pairs \(2 million atoms\), got 2100000 atoms"),
        ([np.eye(3)], {"part": (2, 2)}, r"part must be \(i, n\) with 0 <= i < n, got \(2, 2\)"),
        ([np.eye(3)], {"part": (-1, 2)}, "part must be"),
        ([np.eye(3)], {"shared_limit": 23}, "shared_limit must be at least 24 bytes, got 23"),
        ([np.eye(3)], {"bins": _make_bins(2**20)}, r"got 1048576 bins"),
    ],
)
def test_plan_refuses(positions: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _plan(positions, options.pop("bins", _make_bins(800)), **options)


# ----------------------------------------------------------------------------------------- the kernel, run on the CPU
@pytest.mark.parametrize("displacement", [0.0, 0.003, 0.3])
@pytest.mark.parametrize("kinds", [1, 2, 3])
@pytest.mark.parametrize("n_atoms", [1, 2, 33, 700])
def test_kernel_on_the_cpu_equals_numpy(
    n_atoms: int, kinds: int, displacement: float, on_cpu: Callable[..., Device]
) -> None:
    positions = _particle(n_atoms, kinds=kinds, displacement=displacement)
    bins = _bins(positions)
    moments = pair_moments_cuda(positions, bins, on_cpu())
    assert moments.shape == (kinds * (kinds + 1) // 2, bins.count, 4)
    _assert_same(moments, _reference(positions, bins))
    assert moments[..., 0].sum() == n_atoms * (n_atoms - 1)


@pytest.mark.parametrize("displacement", [0.0, 0.1])
def test_scattering_equals_the_direct_sum(displacement: float, on_cpu: Callable[..., Device]) -> None:
    (position,) = positions = _particle(700, kinds=1, displacement=displacement)
    bins, q = _bins(positions), np.linspace(0.5, 20.0, 79)
    weights = bins.node_weights(pair_moments_cuda(positions, bins, on_cpu()))[0]
    distance = np.sqrt(((position[:, None] - position) ** 2).sum(axis=-1))[np.triu_indices(700, 1)]
    expected = 700 + 2 * np.array([np.sinc(at * distance / np.pi).sum() for at in q])
    intensity = 700 + np.sinc(np.outer(q, bins.nodes) / np.pi) @ weights
    assert np.abs(intensity / expected - 1).max() < 1e-6
    # What the kernel's integers add to the error of the moments themselves.
    exact = bins.node_weights(_reference(positions, bins))[0]
    assert np.abs(np.sinc(np.outer(q, bins.nodes) / np.pi) @ (weights - exact) / expected).max() < 2e-8


@pytest.mark.parametrize("opt_in_bytes", [20 * 8 + 4, 20 * 700 + 4, 20 * 1500 + 20])
def test_more_bins_than_shared_memory(
    opt_in_bytes: int, on_cpu: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpc.cuda.pairs, "MACROS", {**MACROS, "TILE": 32, "THREADS": 32})
    positions = _particle(60 if opt_in_bytes < 1000 else 300, displacement=0.1)
    bins = _bins(positions)
    plan = _plan(positions, bins, shared_limit=opt_in_bytes, macros={"TILE": 32})
    assert plan.shared_bytes <= opt_in_bytes
    assert len(np.unique(plan.chunks["first_bin"])) > 1
    device = on_cpu(opt_in_bytes=opt_in_bytes)
    _assert_same(moments_of_sums(_sums(plan, device)), _reference(positions, bins))


def test_boxes_spare_windows_out_of_reach(on_cpu: Callable[..., Device]) -> None:
    """Two clusters far apart: with boxes that lie, pairs are lost, so boxes do decide."""
    cluster = np.random.default_rng(0).random((32, 3))
    positions = [np.concatenate((cluster, cluster + np.array([60.0, 0.0, 0.0])))]
    bins = _make_bins(8 * 640)
    plan = _plan(positions, bins, shared_limit=20 * 1024, macros={"TILE": 32})
    expected = _reference(positions, bins)
    _assert_same(moments_of_sums(_sums(plan, on_cpu())), expected)
    boxes = plan.boxes.copy()
    boxes[1, 0] += 1e4
    lost = moments_of_sums(_sums(replace(plan, boxes=boxes), on_cpu()))[..., 0].sum()
    assert 0 < lost < expected[..., 0].sum()


@pytest.mark.parametrize("n_moments", [4, 6])
@pytest.mark.parametrize(("tile", "fraction_bits"), [(128, 20), (64, 24), (32, 28)])
def test_macros(n_moments: int, tile: int, fraction_bits: int, on_cpu: Callable[..., Device]) -> None:
    """With 28 bits of a fraction, most sums of a bin exceed a word: 2^32 / 2^28 = 16 pairs of one distance suffice."""
    positions = _particle(250, displacement=0.0)
    bins = _bins(positions, width=0.05)
    macros = {"MOMENTS": n_moments, "TILE": tile, "FRACTION_BITS": fraction_bits}
    moments = moments_of_sums(
        _sums(_plan(positions, bins, macros=macros), on_cpu()), fraction_bits=fraction_bits
    )
    _assert_same(moments, _reference(positions, bins, n_moments), 16 * 2.0**-fraction_bits)


def test_many_equal_distances_carry(on_cpu: Callable[..., Device]) -> None:
    """6084 pairs of a cube of 2197 atoms at one distance, at the upper end of a bin: 2^20 each, in one chunk."""
    index = np.stack(np.meshgrid(*[np.arange(13.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = [index * WIDTH * 299.999]
    bins = _make_bins(8 * 780)
    plan = _plan(positions, bins, multiprocessors=1, chunks_per_multiprocessor=1)
    assert len(plan.chunks) == 1
    sums = _sums(plan, on_cpu())
    assert sums[0, 1].max() > 2**32
    _assert_same(moments_of_sums(sums), _reference(positions, bins))


def test_bits_do_not_depend_on_the_order(on_cpu: Callable[..., Device]) -> None:
    positions = _particle(400, displacement=0.1)
    bins, device = _bins(positions), on_cpu()
    plan = _plan(positions, bins, macros={"TILE": 32}, chunks_per_multiprocessor=100)
    expected = _sums(plan, device)
    rng = np.random.default_rng(0)
    assert np.array_equal(_sums(replace(plan, chunks=plan.chunks[::-1].copy()), device), expected)
    assert np.array_equal(_sums(replace(plan, chunks=rng.permutation(plan.chunks)), device), expected)
    for changes in (
        {"macros": {"TILE": 64, "THREADS": 96}},
        {"shared_limit": 20 * 512, "multiprocessors": 7},
    ):
        assert np.array_equal(_sums(_plan(positions, bins, **changes), device), expected)
    assert np.array_equal(pair_moments_cuda(positions, bins, device), moments_of_sums(expected))


@pytest.mark.parametrize("n_parts", [2, 3, 7])
def test_parts_add_up_to_the_whole(n_parts: int, on_cpu: Callable[..., Device]) -> None:
    """Also where each part has another GPU, and in any order of the parts."""
    positions = _particle(500, displacement=0.1)
    bins = _bins(positions)
    whole = pair_moments_cuda(positions, bins, on_cpu())
    limits = [SHARED_H100, 20 * 1024, 48 * 1024]
    parts = []
    for index in range(n_parts):
        device = on_cpu(opt_in_bytes=limits[index % 3])
        parts.append(pair_moments_cuda(positions, bins, device, part=(index, n_parts)))
    assert np.array_equal(sum(parts), whole)
    assert np.array_equal(sum(parts[::-1]), whole)
    require_every_pair(sum(parts), [len(of_kind) for of_kind in positions], bins)
    if n_parts == 2:
        share = parts[0][..., 0].sum() / whole[..., 0].sum()
        assert 0.3 < share < 0.7


def test_atoms_on_top_of_each_other_count_in_the_first_bin(on_cpu: Callable[..., Device]) -> None:
    position = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 0.0, 1e-17]])
    moments = pair_moments_cuda([position], _make_bins(800), on_cpu())
    assert moments[0, 0].tolist() == pytest.approx([4, -2, 1, -0.5], abs=4 * ROUNDING)  # t = -1/2
    assert np.isfinite(moments).all()


def test_distances_beyond_the_bins(on_cpu: Callable[..., Device]) -> None:
    positions, bins = [np.diag([1.0, 2.0, 9.0])], _make_bins(400)
    with pytest.raises(
        ValueError, match="4 of 6 pairs are not in the bins, which end at 5 Å; choose bins for"
    ):
        pair_moments_cuda(positions, bins, on_cpu())
    assert pair_moments_cuda(positions, bins, on_cpu(), part=(1, 2)).any()  # the caller checks the sum


def test_more_than_the_memory_of_the_gpu(on_cpu: Callable[..., Device]) -> None:
    positions = _particle(700)
    with pytest.raises(
        MemoryError,
        match=r"700 atoms in \d+ bins need 0\.3 MiB, CPU as GPU has 0\.1 MiB free; free memory of the GPU or",
    ):
        pair_moments_cuda(positions, _bins(positions), on_cpu(free_bytes=2**17))


def test_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match=r"pair_moments_cuda needs a GPU, got CPU .*hpc\.pairs"):
        pair_moments_cuda([np.eye(3)], _make_bins(800), select_device("cpu"))


def test_a_tolerance_that_fixed_point_cannot_keep(on_cpu: Callable[..., Device]) -> None:
    q = np.linspace(1.0, 20.0, 40)
    with pytest.raises(ValueError, match=r"tolerance must be >= 1e-07 on a GPU.*got 1e-08; .* device=cpu"):
        partial_sums_of_positions([np.eye(3)], q, tolerance=1e-8, device=on_cpu())
    variant = Variant(
        material=load_material("pbs"), shape=Shape(name="sphere"), disorder=Disorder(relaxation=0.1)
    )
    sizes = Sizes(diameter=np.array([15.0]), sigma=np.array([0.0]), tail=1e-4)
    with pytest.raises(ValueError, match=r"tolerance must be >= 1e-07 on a GPU"):
        plan_counting(variant, sizes, q_max=20.0, device=on_cpu(), sampling=Sampling(tolerance=1e-8))


def _broken(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = kernel_source()
    assert source.count(right) == 1
    monkeypatch.setattr(hpc.cuda.pairs, "kernel_source", lambda: source.replace(right, wrong))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("begin * SLICES;\n    __syncthreads();", "begin * SLICES;"),
        ("        }\n    }\n    __syncthreads();", "        }\n    }"),
        ("k < next; k", "k < next - 7; k"),
        ("bin >= kept", "bin > kept + 1"),
        ("atomicAdd(&words[bin * WORDS], 1u)", "words[bin * WORDS] += 1u"),
        ("sums[row + k]", "sums[row + k + 4 * n_bins]"),
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
    _broken(right, wrong, monkeypatch)
    positions = [np.arange(64)[:, None] * np.array([[WIDTH, 0.0, 0.0]])]
    with pytest.raises(KernelError, match=r"race|before anything was written|outside its"):
        _sums(_plan(positions, _make_bins(32)), on_cpu())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("|| i - 32 * j >= before", ""),
        ("? (int)lane : TILE", "? (int)lane - 1 : TILE"),
        ("return !repeated", "return true"),
        ("begin + lane]", "begin + (lane + 1) % 32]"),
        ("atomicAdd(&words[bin * WORDS + MOMENTS], carries)", "(void)0"),
        ("? 1 << (32 - m) : 0)", "? 0 : 0)"),
        ("high << 32 | low", "low"),
        ("__fma_rn(root * inverse, -0.5, 1.5)", "1.0"),
        ("high = end_bin + 1", "high = end_bin - 700"),
        ("max(first_bin - 1, 0)", "max(first_bin + 700, 0)"),
    ],
    ids=lambda text: text.strip()[:30],
)
def test_wrong_kernel_is_detected(
    right: str, wrong: str, on_cpu: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    (position,) = _particle(120, kinds=1)
    # Two balls: some tiles do not reach the first window.
    positions = [np.concatenate((position, position + np.array([20.0, 0.0, 0.0])))]
    bins = _bins(positions)
    options = {"shared_limit": 20 * 1024, "macros": {"TILE": 32, "FRACTION_BITS": 28}}
    expected = _sums(_plan(positions, bins, **options), on_cpu())
    _broken(right, wrong, monkeypatch)
    hpc.cuda.pairs._kernel.cache_clear()
    assert not np.array_equal(_sums(_plan(positions, bins, **options), on_cpu()), expected)


# --------------------------------------------------------------------------------------------------------- on a device
@pytest.mark.gpu
@pytest.mark.parametrize("displacement", [0.0, 0.1])
@pytest.mark.parametrize(("n_atoms", "kinds"), [(1, 1), (2, 2), (33, 3), (700, 2), (5000, 3), (20_000, 2)])
def test_gpu_equals_the_reference_twice(n_atoms: int, kinds: int, displacement: float) -> None:
    positions, device = _particle(n_atoms, kinds=kinds, displacement=displacement), select_device("cuda")
    bins = _bins(positions)
    moments = pair_moments_cuda(positions, bins, device)
    assert np.array_equal(moments, pair_moments_cuda(positions, bins, device))
    expected = _large_reference(positions, bins)
    # Some 1e-5 of the distances round to the other side of an edge of a bin: moments differ, but not what they mean.
    assert np.array_equal(moments[..., 0].sum(axis=1), expected[..., 0].sum(axis=1))
    assert np.abs(moments[..., 0] - expected[..., 0]).sum() <= 1e-4 * expected[..., 0].sum()
    q = np.linspace(0.5, 20.0, 40)
    table = np.sinc(np.outer(bins.nodes, q) / np.pi)
    difference = np.abs(bins.node_weights(moments - expected) @ table).max()
    assert difference <= 1e-7 * n_atoms


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"shared_limit": 20 * 1024},
        {"macros": {"TILE": 32, "THREADS": 512}},
        {"macros": {"TILE": 64}, "chunks_per_multiprocessor": 1},
    ],
)
def test_gpu_bits_do_not_depend_on_the_plan(changes: dict) -> None:
    positions, device = _particle(3000, displacement=0.1), select_device("cuda")
    bins = _bins(positions)
    expected = _sums(_plan(positions, bins, macros=MACROS), device)
    assert np.array_equal(_sums(_plan(positions, bins, **changes), device), expected)


@pytest.mark.gpu
def test_gpu_parts_add_up_to_the_whole() -> None:
    positions, device = _particle(3000, displacement=0.1), select_device("cuda")
    bins = _bins(positions)
    parts = [pair_moments_cuda(positions, bins, device, part=(index, 3)) for index in range(3)]
    assert np.array_equal(sum(parts), pair_moments_cuda(positions, bins, device))


@pytest.mark.gpu
@pytest.mark.parametrize("n_moments", [4, 6])
def test_gpu_carries(n_moments: int) -> None:
    positions, device = _particle(700), select_device("cuda")
    bins = _bins(positions, width=0.05)
    macros = {"MOMENTS": n_moments, "TILE": 32, "FRACTION_BITS": 28}
    moments = moments_of_sums(_sums(_plan(positions, bins, macros=macros), device), fraction_bits=28)
    _assert_same(moments, _reference(positions, bins, n_moments), 16 * 2.0**-28)
