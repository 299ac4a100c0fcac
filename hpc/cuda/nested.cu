// Nested one-pass pair histogram: the pairs that enter a family of nested particles with each shell (hpc/pairs/nested.py).
//
// What it computes. A work item is a rectangle of pairs, [representatives] x [sites], that all belong to one row
// (pair of kinds, shell) of the result and all count `multiplier` times:
//
//     counts[row][n] += multiplier * #{(i, j) in item : |h_i - h_j|^2 = n},     first_class <= n < end_class, n > 0
//
// The host (hpc/cuda/nested.py) cuts the work into items; the kernel knows nothing of shells, kinds or symmetry.
//
// Inputs
//   sites            (site,) short4: x, y, z relative to the cut centre, in grid units; w unused. 8 bytes, so that a
//                    warp reads 256 contiguous bytes.
//   representatives  (rep,) short4, the same.
//   items            (item,) Item, most expensive first: the hardware hands out blocks in order, so the last ones
//                    to start are the short ones and all multiprocessors finish together.
//   n_class          classes of a row of `counts`.
//   counts           (row, n_class) unsigned 64-bit, zero before the launch (or the sum of earlier launches).
//
// Launch           grid (item), block (any multiple of 32 up to 1024), one block per item; no macros to set.
// Shared memory    4 bytes x window, where `window` >= end_class - first_class of every item, rounded up to a multiple
//                  of 32. Above 48 KiB the host opts in (227 KiB on compute capability 9.0, 163 KiB on 8.0). A row
//                  that is longer than this is counted in several items, one per window of classes: each visits all
//                  pairs of its rectangle and keeps its own window.
// Overflow         A bin counts at most the pairs of its item, < 2^32 (the host cuts items at 2^31). Products and sums
//                  in `counts` are 64-bit. n is exact in int32 while n_class < 2^31, which also keeps |x|, |y|, |z|
//                  below 23171, inside int16. The host checks both.
// Reproducible     Only integer additions, so the result has the same bits for any order of blocks and threads.
//
// Ceiling. Two things take a warp's time, whichever is longer: 20 instructions for 32 visits (sm_90), of which a
// multiprocessor issues 4 per clock; and passes through the 32 banks of shared memory, one per clock, as many as the
// fullest bank has different bins. On PbS up to 16 nm (8.2e7 visits) that is 5 clocks for the instructions and 2.9 for the
// banks (5.8 without `slot` below): 55 us on 132 multiprocessors at 1.755 GHz. benchmarks/bench_kernels.py measures the
// share of it.

struct alignas(16) Item {
    int rep_begin, rep_end;        // representatives[rep_begin : rep_end]
    int site_begin, site_end;      // sites[site_begin : site_end]
    int row;                       // of counts
    int multiplier;                // orbit size of the representatives, twice that where the pair counts in both orders
    int first_class, end_class;    // the classes this item keeps
};

// Sites that a thread holds at a time: independent loads in flight, then used by every representative of the item.
constexpr int BATCH = 4;

// Where the bin of a class lives: a permutation within each 32 bins. On face-centred lattices n is even for all pairs
// of one kind, so that bins in their natural order would use half of the 32 banks.
__device__ __forceinline__ unsigned int slot(unsigned int bin)
{
    return bin ^ ((bin >> 5) & 31u);
}

extern "C" __global__ void __launch_bounds__(1024, 2)
count_nested_pairs(const short4* __restrict__ sites, const short4* __restrict__ representatives,
                   const Item* __restrict__ items, int n_class, unsigned long long* __restrict__ counts)
{
    extern __shared__ unsigned int bins[];
    const Item item = items[blockIdx.x];
    const unsigned int window = item.end_class - item.first_class;
    const unsigned int window_slots = (window + 31u) & ~31u;  // slot() permutes whole groups of 32

    for (unsigned int k = threadIdx.x; k < window_slots; k += blockDim.x)
        bins[k] = 0u;
    __syncthreads();

    for (int first = item.site_begin + threadIdx.x; first < item.site_end; first += BATCH * blockDim.x) {
        short4 batch[BATCH];
        #pragma unroll
        for (int b = 0; b < BATCH; ++b) {
            const int site = first + b * blockDim.x;
            batch[b] = sites[min(site, item.site_end - 1)];
        }
        #pragma unroll 1  // 32 registers, so that a multiprocessor holds 2048 threads
        for (int rep = item.rep_begin; rep < item.rep_end; ++rep) {
            const short4 centre = representatives[rep];
            #pragma unroll
            for (int b = 0; b < BATCH; ++b) {
                const int x = batch[b].x - centre.x;
                const int y = batch[b].y - centre.y;
                const int z = batch[b].z - centre.z;
                // A class below the window wraps around to a large number: one comparison serves both ends.
                const unsigned int bin = x * x + y * y + z * z - item.first_class;
                const bool real = first + b * blockDim.x < item.site_end;
                // Adding the constant 1 compiles to ATOMS.POPC.INC, which merges lanes that meet in one bin.
                if (real && bin < window)
                    atomicAdd(&bins[slot(bin)], 1u);
            }
        }
    }
    __syncthreads();

    const size_t row = (size_t)item.row * n_class + item.first_class;
    for (unsigned int k = threadIdx.x; k < window; k += blockDim.x) {
        const unsigned int pairs = bins[slot(k)];
        const bool itself = item.first_class + k == 0u;  // n = 0 is a site with itself, not a pair
        if (pairs != 0u && !itself)
            atomicAdd(&counts[row + k], (unsigned long long)item.multiplier * pairs);
    }
}
