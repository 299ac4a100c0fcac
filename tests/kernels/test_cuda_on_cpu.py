"""Does the executor run CUDA C as a GPU would, and does it report what a GPU leaves undefined?"""

from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import CpuModule, KernelError

REDUCTION = """
struct alignas(16) Range { int begin, end, sign, unused; };

__device__ __forceinline__ float of_warp(float value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_down_sync(0xffffffffu, value, distance);
    return value;
}

// Sums of squares of ranges, and the position of the largest value of the last range.
extern "C" __global__ void __launch_bounds__(256)
sum_ranges(const float2* __restrict__ values, const Range *ranges,
           double* sums, unsigned long long* largest, int n)
{
    __shared__ float partial[32];
    const Range range = ranges[blockIdx.x];
    float sum = 0.0f;
    for (int i = range.begin + threadIdx.x; i < min(range.end, n); i += blockDim.x) {
        const float2 v = values[i];
        sum += v.x * v.x + v.y * v.y;
        atomicMax(&largest[0], ((unsigned long long)(1000.0f * v.x) << 32) | (unsigned)i);
    }
    sum = of_warp(sum);
    if (threadIdx.x % warpSize == 0)
        partial[threadIdx.x / warpSize] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        const float other = threadIdx.x < blockDim.x / 32 ? float(partial[threadIdx.x]) : 0.0f;
        const float total = of_warp(other);
        if (threadIdx.x == 0)
            atomicAdd(&sums[blockIdx.x % 2], (double)(range.sign * total));
    }
}
"""


def test_reduction(cpu_kernels: Path) -> None:
    values = np.random.default_rng(0).random((1000, 2), dtype=np.float32)
    ranges = np.array([[0, 500, 1, 0], [500, 2000, 1, 0], [100, 101, -1, 0]], dtype=np.int32)
    sums, largest = np.zeros(2), np.zeros(1, dtype=np.uint64)
    CpuModule(REDUCTION, cpu_kernels).launch(
        "sum_ranges", (3,), (256,), [values, ranges, sums, largest, np.int32(1000)]
    )
    squares = (values.astype(float) ** 2).sum(axis=1)
    # float32 sums of a few hundred terms
    assert sums == pytest.approx([squares[:500].sum() - squares[100], squares[500:].sum()], rel=1e-6)
    winner = np.lexsort((np.arange(1000), np.floor(np.float32(1000) * values[:, 0])))[-1]
    assert int(largest[0]) & 0xFFFFFFFF == winner


INDICES = """
extern "C" __global__ void indices(int* out)
{
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
        blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z
        + 1000 * threadIdx.x + 10000 * threadIdx.y + 100000 * threadIdx.z;
}
"""


def test_grid_and_block_of_three_dimensions(cpu_kernels: Path) -> None:
    out = np.zeros((2, 3, 2, 4, 2, 5), dtype=np.int32)  # block z, y, x, thread z, y, x
    CpuModule(INDICES, cpu_kernels).launch("indices", (2, 3, 2), (5, 2, 4), [out])
    bz, by, bx, tz, ty, tx = np.indices(out.shape)
    assert np.array_equal(out, bx + 10 * by + 100 * bz + 1000 * tx + 10000 * ty + 100000 * tz)


ATOMICS = """
extern "C" __global__ void atomics(int* out)
{
    const int i = threadIdx.x;
    atomicAdd(&out[0], i);
    atomicSub(&out[1], i);
    atomicMin(&out[2], i - 5);
    atomicMax(&out[3], i);
    atomicAnd(&out[4], ~(1 << i % 31));
    atomicOr(&out[5], 1 << i % 31);
    atomicXor(&out[6], i);
    for (int seen = out[7]; atomicCAS(&out[7], seen, seen + 2) != seen;) seen = out[7];
    if (__any_sync(0xffffffffu, i == 40)) atomicAdd(&out[8], __popc(__ballot_sync(0xffffffffu, i % 3 == 0)));
    atomicAdd(&out[9], __shfl_xor_sync(0xffffffffu, i, 1) * (i == 6) + __shfl_sync(0xffffffffu, i, 3) * (i == 70));
    if (__all_sync(0xffffffffu, i >= 32)) atomicExch(&out[10], 7);
}
"""


def test_atomic_and_warp_functions(cpu_kernels: Path) -> None:
    out = np.zeros(11, dtype=np.int32)
    out[4] = -1
    CpuModule(ATOMICS, cpu_kernels).launch("atomics", (1,), (96,), [out])
    i = np.arange(96)
    second_warp = 32 * np.count_nonzero(i[32:64] % 3 == 0)
    expected = [i.sum(), -i.sum(), -5, 95, -(2**31), 2**31 - 1, 0, 192, second_warp, 7 + 67, 7]
    assert out.tolist() == expected


BITS = """
__global__ void bits(const double* values, const int* integers, int* out, double* same)
{
    const int i = threadIdx.x;
    const double x = values[i];
    same[i] = __hiloint2double(__double2hiint(x), __double2loint(x));
    out[4 * i] = (int)(__double_as_longlong(x) >> 40);
    out[4 * i + 1] = __mulhi(integers[i], integers[i]);
    out[4 * i + 2] = __funnelshift_l(__double2loint(x), __double2hiint(x), 3);
    out[4 * i + 3] = __float_as_uint(2.0f * __uint_as_float(0x3f800000u + i));
}
"""


def test_functions_of_bits(cpu_kernels: Path) -> None:
    values = np.array([0.0, 1.0, -2.5, 1e300, 3.1])
    integers = np.array([0, 1, -1, 2**31 - 1, -(2**31)], dtype=np.int32)
    out, same = np.zeros((5, 4), dtype=np.int32), np.zeros(5)
    CpuModule(BITS, cpu_kernels).launch("bits", (1,), (5,), [values, integers, out, same])
    assert np.array_equal(same, values)
    words = values.view(np.uint64)
    assert np.array_equal(out[:, 0], (values.view(np.int64) >> 40).astype(np.int32))
    assert np.array_equal(out[:, 1], (integers.astype(np.int64) ** 2 >> 32).astype(np.int32))
    assert np.array_equal(
        out[:, 2], (words << np.uint64(3) >> np.uint64(32)).astype(np.uint32).view(np.int32)
    )
    assert np.array_equal(out[:, 3], 0x40000000 + np.arange(5))


def test_macros(cpu_kernels: Path) -> None:
    source = "__global__ void fill(int* out)\n{\n    out[threadIdx.x] = VALUE;\n}\n"
    for value in (3, 4):
        out = np.zeros(2, dtype=np.int32)
        CpuModule(source, cpu_kernels, [f"-DVALUE={value}"]).launch("fill", (1,), (2,), [out])
        assert out.tolist() == [value, value]


BROKEN = {
    "missing barrier": (
        "shared[i] = i; out[i] = shared[(i + 1) % blockDim.x];",
        r"before anything was written",
    ),
    "race of two writers": ("shared[0] = i;", r"race: writes shared shared\[0\], which thread 0 wrote"),
    "race of reader and writer": (
        "shared[i] = i; __syncthreads(); out[i] = shared[(i + 33) % 64]; shared[i] = 2;",
        r"thread 31: race: reads shared shared\[0\], which thread 0 wrote",
    ),
    "race of a reader and a later writer": (
        "if (i == 0) shared[1] = 1; __syncthreads(); int mine = shared[1]; if (i == 63) shared[1] = mine;",
        r"thread 63: race: writes shared shared\[1\], which thread 62 read",
    ),
    "atomic and plain": (
        "if (i == 0) shared[0] = 0; __syncthreads(); atomicAdd(&shared[0], 1); out[i] = shared[0];",
        r"thread 1: race: updates shared shared\[0\], which thread 0 read",
    ),
    "race within a warp": (
        "shared[i] = i; __syncthreads(); shared[i] = shared[i ^ 1];",
        r"thread 1: race: reads shared shared\[0\], which thread 0 wrote",
    ),
    "barrier in a branch": (
        "if (i < 32) __syncthreads();",
        r"barrier not reached by the whole block, thread 0 waits .* line 1, thread 32 has ended",
    ),
    "two barriers": (
        "if (i < 32) __syncthreads();\n    else\n        __syncthreads();",
        r"thread 0 waits at the __syncthreads\(\) of line 1, thread 32 waits at the __syncthreads\(\) of line 3",
    ),
    "a thread leaves early": ("if (i == 5) return; __syncthreads();", r"thread 0 waits .*thread 5 has ended"),
    "deadlock in a warp": (
        "if (i == 0) __syncwarp(3u); else if (i == 1) __syncwarp();",
        r"deadlock, thread 0 waits at the warp barrier of line 1",
    ),
    "warp and block barrier": (
        "if (i == 0) __syncwarp(); else __syncthreads();",
        r"thread 1 waits at the __syncthreads\(\) of line 1, thread 0 waits at the warp barrier of line 1",
    ),
    "lane outside its mask": ("__syncwarp(1u);", r"thread 1: line 1: the warp mask 0x1 does not name"),
    "shuffle from a lane outside the mask": (
        "if (i < 2) out[i] = __shfl_sync(3u, i, 9);",
        r"shuffle from lane 9, which does not take part",
    ),
    "argument out of bounds": ("out[i + 1] = i;", r"thread 63: out\[64\] is outside its 64 elements"),
    "argument before its start": ("int x = out[i - 1]; out[i] = x;", r"thread 0: out\[-1\] is outside"),
    "shared out of bounds": (
        "shared[n * i] = 1;",
        r"thread 1: shared shared\[64\] is outside its 64 elements",
    ),
    "static shared out of bounds": (
        "__shared__ int few[60]; few[i] = 1;",
        r"thread 60: shared few\[60\] is outside its 60 elements",
    ),
    "stale shared memory": (
        "if (blockIdx.x == 0) shared[i] = 1; else out[i] = shared[i];",
        r"block \(1, 0, 0\)",
    ),
}


CORRECT = {
    "barrier": ("shared[i] = i; __syncthreads(); out[i] = shared[(i + 1) % 64];", lambda i: (i + 1) % 64),
    "warp barrier": (
        "shared[i] = i; __syncwarp(); int x = shared[i ^ 1]; __syncwarp(); shared[i] = x; out[i] = shared[i];",
        lambda i: i ^ 1,
    ),
    "atomics": (
        "shared[i] = 0; __syncthreads(); atomicAdd(&shared[i % 4], 1); __syncthreads(); out[i] = shared[i % 4];",
        lambda i: 0 * i + 16,
    ),
    "leave after the last barrier": (
        "__syncthreads(); if (i > 5) return; shared[i] = 1; out[i] = shared[i];",
        lambda i: np.where(i > 5, 0, 1),
    ),
    "half a warp": (
        "if (i < 16) { __syncwarp(0xffffu); out[i] = __shfl_sync(0xffffu, i, 15); }",
        lambda i: np.where(i < 16, 15, 0),
    ),
}


@pytest.fixture(scope="module")
def snippets(cpu_kernels: Path) -> CpuModule:
    """A kernel for each of the bodies above, in which a body begins on line 1."""
    bodies = {name: body for name, (body, _) in (BROKEN | CORRECT).items()}
    source = "".join(
        f'extern "C" __global__ void {name.replace(" ", "_")}(int* out, int n)\n{{\n'
        f"extern __shared__ int shared[]; int i = threadIdx.x;\n#line 1\n{body}\n}}\n"
        for name, body in bodies.items()
    )
    return CpuModule(source, cpu_kernels)


@pytest.mark.parametrize("name", BROKEN)
def test_undefined_behaviour_is_reported(name: str, snippets: CpuModule) -> None:
    arguments = [np.zeros(64, dtype=np.int32), np.int32(64)]
    with pytest.raises(KernelError, match=BROKEN[name][1]):
        snippets.launch(name.replace(" ", "_"), (2,), (64,), arguments, shared_bytes=4 * 64)


@pytest.mark.parametrize("name", CORRECT)
def test_correct_use_is_not_reported(name: str, snippets: CpuModule) -> None:
    out = np.zeros(64, dtype=np.int32)
    snippets.launch(name.replace(" ", "_"), (2,), (64,), [out, np.int32(64)], shared_bytes=4 * 64)
    assert np.array_equal(out, CORRECT[name][1](np.arange(64)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([np.zeros(64, dtype=np.int32)], "barrier takes 2 arguments, got 1"),
        ([np.zeros(64, dtype=np.int32), 64], "argument n has 4 bytes, got 8"),
        ([np.int32(1), np.int32(64)], "argument out is an array, got int32"),
        ([np.zeros((64, 2), dtype=np.int32)[:, 0], np.int32(64)], "argument out must be contiguous"),
    ],
)
def test_launch_refuses_wrong_arguments(arguments: list, message: str, snippets: CpuModule) -> None:
    with pytest.raises(KernelError, match=message):
        snippets.launch("barrier", (1,), (64,), arguments)


def test_launch_refuses_a_block_that_is_too_large(snippets: CpuModule) -> None:
    with pytest.raises(KernelError, match="a block has 1 to 1024 threads, got 2048"):
        snippets.launch("barrier", (1,), (64, 32), [np.zeros(64, dtype=np.int32), np.int32(64)])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("undeclared_name = 1;", r"(?s)g\+\+ does not compile the CUDA source.*undeclared_name"),
        ("long long sum = 0; atomicAdd(&sum, 1);", "CUDA has atomic functions for int, unsigned"),
    ],
)
def test_source_that_does_not_compile(body: str, message: str, cpu_kernels: Path) -> None:
    with pytest.raises(KernelError, match=message):
        CpuModule(f"__global__ void kernel(int n)\n{{\n    {body}\n}}\n", cpu_kernels)
