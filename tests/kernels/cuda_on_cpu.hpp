// Executes CUDA C on the CPU, one thread at a time, and reports what a GPU would leave undefined.
//
// Every CUDA thread of a block is a fiber (ucontext) that runs until it meets a barrier, a shuffle or its end; the
// blocks of the grid run one after another. So a run is deterministic, and a missing barrier shows itself:
// thread 0 is through with the code after it before thread 1 has begun the code before it.
//
// Reported, with thread, block and name, as the text that launch() returns:
//   - a barrier that part of the block does not reach: some threads ended, or wait at another one;
//   - an index outside a kernel argument or outside shared memory;
//   - shared memory that is read before anything was written to it;
//   - races on shared memory: two threads touch an element with no barrier between, and not both read or both use atomics.
// Not seen: races on global memory, pointers that a kernel derives from its arguments with a declared pointer type
// (`T* p = argument + n`), shared arrays of two dimensions. Not there: half, textures, cooperative groups, CUB.
//
// The source is used unmodified but for declarations, which cuda_on_cpu.py rewrites:
//   kernel parameters        const T* __restrict__ name     ->  simt::Global<const T> name
//   dynamic shared memory    extern __shared__ T name[];    ->  auto name = simt::dynamic_shared<T>("name");
//   static shared memory     __shared__ T name[N];          ->  static simt::Shared<T> name("name", N);
#pragma once
#include "simt.hpp"

// ---------------------------------------------------------------------------------------------- built-in types
#define SIMT_VECTOR(T, name, align2, align4)                                                          \
    struct alignas(align2) name##2 { T x, y; };                                                       \
    struct name##3 { T x, y, z; };                                                                    \
    struct alignas(align4) name##4 { T x, y, z, w; };                                                 \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                        \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR(short, short, 4, 8)
SIMT_VECTOR(unsigned short, ushort, 4, 8)
SIMT_VECTOR(int, int, 8, 16)
SIMT_VECTOR(unsigned, uint, 8, 16)
SIMT_VECTOR(long long, longlong, 16, 16)
SIMT_VECTOR(unsigned long long, ulonglong, 16, 16)
SIMT_VECTOR(float, float, 8, 16)
SIMT_VECTOR(double, double, 16, 16)

// ---------------------------------------------------------------------------------------------- the CUDA language
#define threadIdx simt::thread_index
#define blockIdx simt::block_index
#define blockDim simt::block_dim
#define gridDim simt::grid_dim
#define warpSize 32
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __shared__ static
#define __constant__ static
#define __syncthreads() simt::sync_block(__LINE__)
#define __syncwarp(...) simt::sync_warp(__LINE__, ##__VA_ARGS__)
#define __shfl_sync(mask, value, lane) simt::shuffle(__LINE__, mask, value, (lane) % simt::WARP)
#define __shfl_xor_sync(mask, value, bits) simt::shuffle(__LINE__, mask, value, (simt::current ^ (bits)) % simt::WARP)
#define __shfl_down_sync(mask, value, distance) simt::shuffle_down(__LINE__, mask, value, distance)
#define __ballot_sync(mask, predicate) simt::ballot(__LINE__, mask, predicate)
#define __any_sync(mask, predicate) (simt::ballot(__LINE__, mask, predicate) != 0)
#define __all_sync(mask, predicate) (simt::ballot(__LINE__, mask, !(predicate)) == 0)

#define SIMT_ATOMIC(name, expression)                                                                 \
    template <class P>                                                                                \
    simt::Value<P> name(P address, simt::Value<P> operand)                                            \
    {                                                                                                 \
        using T = simt::Value<P>;                                                                     \
        return simt::atomic(address, [=](T old) -> T { return expression; });                         \
    }
SIMT_ATOMIC(atomicAdd, old + operand)
SIMT_ATOMIC(atomicSub, old - operand)
SIMT_ATOMIC(atomicMin, operand < old ? operand : old)
SIMT_ATOMIC(atomicMax, operand > old ? operand : old)
SIMT_ATOMIC(atomicAnd, old & operand)
SIMT_ATOMIC(atomicOr, old | operand)
SIMT_ATOMIC(atomicXor, old ^ operand)
SIMT_ATOMIC(atomicExch, operand)
template <class P>
simt::Value<P> atomicCAS(P address, simt::Value<P> expected, simt::Value<P> operand)
{
    using T = simt::Value<P>;
    return simt::atomic(address, [=](T old) -> T { return old == expected ? operand : old; });
}

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <class T>
T __ldg(const T* address) { return *address; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline long long __double_as_longlong(double x) { long long bits; memcpy(&bits, &x, sizeof bits); return bits; }
inline double __longlong_as_double(long long bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; memcpy(&bits, &x, sizeof bits); return bits; }
inline float __uint_as_float(unsigned bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
inline int __double2hiint(double x) { return static_cast<int>(__double_as_longlong(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(__double_as_longlong(x)); }
inline double __hiloint2double(int high, int low)
{
    return __longlong_as_double(static_cast<long long>(static_cast<uint64_t>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low)));
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32 | low) << shift % 32) >> 32);
}
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline int __double2int_rd(double x) { return static_cast<int>(std::floor(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
