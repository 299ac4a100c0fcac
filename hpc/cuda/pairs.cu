// Off-lattice pair moments: all pair distances of a particle into fine bins with power sums (hpc/pairs/moments.py).
//
// What it computes. For every pair (i, j) of a pair of kinds, each pair once, with x = |p_i - p_j| in units of the bin
// width, rounded to a multiple of 2^-FRACTION_BITS, bin = floor(x) and t = x - bin - 1/2 in [-1/2, 1/2):
//
//     sums[row][0][bin] += 1,    sums[row][m][bin] += round(t^m 2^FRACTION_BITS) + (m odd: 2^(FRACTION_BITS - m))
//
// t^m of odd m lies in [-2^-m, 2^-m): the addend makes it positive, and the host (hpc/cuda/pairs.py) takes it off again.
//
// Inputs
//   atoms    (tile, TILE) Atom: positions in units of the bin width. A tile holds neighbours of one kind. The last tile of
//            a kind is filled up with atoms so far away that no bin takes them, yet below 2^(51 - FRACTION_BITS) bins.
//   boxes    (tile,) Box: what the atoms of a tile lie in, but for those far away.
//   chunks   (chunk,) Chunk: consecutive pairs of tiles of a pair of kinds, and a window of bins. Pairs outside the window
//            are left to other chunks; pairs of tiles that cannot reach it are skipped by their boxes, and so are atoms of
//            the first tile that cannot reach it from the box of the second.
//   n_bins   bins of a row of `sums`.
//   sums     (row, MOMENTS, n_bins) unsigned 64-bit, zero before the launch (or the sums of earlier launches).
//
// Launch           grid (chunk), block THREADS. A warp takes one slice after another from the chunk's counter: 32 atoms of
//                  the first tile with all of the second. Its lanes hold TILE / 32 atoms of the second tile each, and all
//                  meet the same atom of the first.
// Macros           MOMENTS (4; 6 for wider bins), TILE, THREADS, FRACTION_BITS: see below for what they are if not set.
// Shared memory    4 bytes x ((MOMENTS + 1) x window + 1), where `window` >= end_bin - first_bin of every chunk: 20 bytes a
//                  bin, 11622 bins in the 227 KiB of compute capability 9.0 and 8345 in the 163 KiB of 8.0. Sums need more
//                  than 32 bits, but 64-bit atomics on shared memory are loops of compare-and-swap: a word that wraps
//                  around carries into its field of the bin's last word, which is as exact and independent of the order.
// Overflow         A chunk has < 2^(32 + CARRY_BITS - FRACTION_BITS) pairs, 2^24: what the fields of carries hold. Sums in
//                  `sums` may wrap around 2^64: without what was added to make them positive they are < 2^63 while a bin
//                  has < 2^43 pairs. Bins and distances stay < 2^20. The host checks all of it.
// Bad input        Coincident atoms have x = 0 and count in bin 0; a NaN is in no bin. Nothing is written outside `sums`.
// Reproducible     Only integer additions, so the result has the same bits for any order of blocks and threads, and any
//                  number of chunks.
//
// Ceiling. Of a multiprocessor's time for 32 pairs, whichever is longer: instructions, of which it issues 4 per clock (49
// of them on sm_90: 22 to visit, 27 to count; 10 are float64, 2 per clock), and passes through the banks of shared memory,
// one per clock: three additions, each as many as lanes meet in one bank, and one count, which merges lanes that meet in
// one bin. That is 12.3 clocks for the instructions and about 15 for the banks (32 lanes in 32 banks at random: 3.5 in the
// fullest), 5e11 pairs per second on 132 multiprocessors at 1.755 GHz. Where bins need several windows, a pair is visited
// in each that its atom reaches from the other's tile: 1.5 to 1.8 times at 20 000 to 300 000 atoms, 5.5 clocks more each.
// benchmarks/bench_pair_kernel.py states the shares. If shared memory turns out to be the limit: the count and the sum of
// t^3 would fit into one word with two fields.

#ifndef MOMENTS
#define MOMENTS 4
#endif
#ifndef TILE
#define TILE 128
#endif
#ifndef THREADS
#define THREADS 1024
#endif
#ifndef FRACTION_BITS
#define FRACTION_BITS 20
#endif

constexpr int SLICE = 32;  // atoms of the first tile that a warp takes at a time
constexpr int SLICES = TILE / SLICE;
constexpr int PER_LANE = TILE / 32;
// Words of a bin: its count, the low words of the sums, their carries; odd, so that 32 bins in a row lie in 32 banks.
constexpr int WORDS = MOMENTS + 1;
// Bits for the carries of the sum of t, in the last word; powers of t are smaller, and so are their sums.
constexpr int CARRY_BITS = MOMENTS == 4 ? 12 : 8;
__host__ __device__ constexpr int carry_bits(int m) { return CARRY_BITS - m / 2 * 2; }
__host__ __device__ constexpr int carry_shift(int m) { return m == 1 ? 0 : carry_shift(m - 1) + carry_bits(m - 1); }
static_assert((MOMENTS == 4 || MOMENTS == 6) && carry_shift(MOMENTS) <= 32, "carries of a bin fit into one word");
constexpr unsigned int FRACTION_MASK = (1u << FRACTION_BITS) - 1u;
// Added to x, it leaves x in fixed point in the mantissa: the last bit of numbers from 2^(52-k) on is worth 2^-k.
constexpr double FIXED_POINT = (double)(1ull << (52 - FRACTION_BITS));

struct alignas(16) Atom {
    double x, y, z, unused;
};

struct Box {
    float x, y, z;                  // of the centre
    float half_x, half_y, half_z;   // of the edges
};

struct alignas(16) Chunk {
    int tile_a, tiles_a;        // of the first kind: tiles tile_a ... tile_a + tiles_a - 1
    int tile_b;                 // where those of the second kind begin; tile_a for pairs within a kind
    int row;                    // of sums
    int first_bin, end_bin;     // the bins this chunk keeps
    unsigned int begin, end;    // the pairs of tiles, numbered as in tile_pair(); end * SLICES < 2^32
};

// Number k of the pairs of tiles. Two kinds: all of them. One kind: tile a with the d next ones, cyclically, for d up to
// half the tiles; if their number is even, half of the last d would repeat the other half.
__device__ __forceinline__ bool tile_pair(const Chunk& chunk, unsigned int k, int& a, int& b)
{
    a = k % chunk.tiles_a;
    b = k / chunk.tiles_a;
    if (chunk.tile_a != chunk.tile_b)
        return true;
    const bool repeated = 2 * b == chunk.tiles_a && a >= b;
    b += a;
    b -= b >= chunk.tiles_a ? chunk.tiles_a : 0;
    return !repeated;
}

// Whether boxes a and b hold atoms at a distance within the window. One bin more on either side outweighs the rounding
// of float32 for distances < 2^20 bins.
__device__ __forceinline__ bool reaches(const Box& a, const Box& b, int first_bin, int end_bin)
{
    const float x = fabsf(a.x - b.x), y = fabsf(a.y - b.y), z = fabsf(a.z - b.z);
    const float u = a.half_x + b.half_x, v = a.half_y + b.half_y, w = a.half_z + b.half_z;
    const float near_x = fmaxf(x - u, 0.0f), near_y = fmaxf(y - v, 0.0f), near_z = fmaxf(z - w, 0.0f);
    const float far_x = x + u, far_y = y + v, far_z = z + w;
    const float nearest = near_x * near_x + near_y * near_y + near_z * near_z;
    const float farthest = far_x * far_x + far_y * far_y + far_z * far_z;
    const float low = max(first_bin - 1, 0), high = end_bin + 1;
    return farthest >= low * low && nearest <= high * high;
}

// sqrt(square) + FIXED_POINT as bits. The float32 root is good to 2^-22, one Newton step makes that 2^-43. Numbers change
// between float64 and float32 by their bits: their exponents are 896 apart. 0 becomes 2, and its root 0.
__device__ __forceinline__ long long fixed_root(double square)
{
    const unsigned int high = __double2hiint(square), low = __double2loint(square);
    const float estimate = rsqrtf(__uint_as_float(__funnelshift_l(low, high - (896u << 20), 3)));
    const unsigned int bits = __float_as_uint(estimate);
    const double inverse = __hiloint2double((bits >> 3) + (896u << 20), bits << 29);
    const double root = square * inverse;
    const double correction = __fma_rn(root * inverse, -0.5, 1.5);
    return __double_as_longlong(__fma_rn(root, correction, FIXED_POINT));
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
add_pair_moments(const Atom* __restrict__ atoms, const Box* __restrict__ boxes, const Chunk* __restrict__ chunks,
                 int window, int n_bins, unsigned long long* __restrict__ sums)
{
    extern __shared__ unsigned int words[];  // (window, WORDS), and one more
    const unsigned int next = window * WORDS;  // where the number of the next slice is
    const Chunk chunk = chunks[blockIdx.x];
    const unsigned int kept = chunk.end_bin - chunk.first_bin;
    const unsigned int lane = threadIdx.x % 32;
    // What FIXED_POINT itself puts above the fraction, taken off together with the window's first bin.
    const unsigned int first_bin = chunk.first_bin + (unsigned int)(__double_as_longlong(FIXED_POINT) >> FRACTION_BITS);

    for (unsigned int k = threadIdx.x; k < next; k += blockDim.x)
        words[k] = 0u;
    if (threadIdx.x == 0)
        words[next] = chunk.begin * SLICES;
    __syncthreads();

    while (true) {
        unsigned int k = 0;
        if (lane == 0)
            k = atomicAdd(&words[next], 1u);
        k = __shfl_sync(0xffffffffu, k, 0);
        if (k >= chunk.end * SLICES)
            break;
        int a, b;
        if (!tile_pair(chunk, k / SLICES, a, b))
            continue;
        const int first = chunk.tile_a + a, second = chunk.tile_b + b;
        if (!reaches(boxes[first], boxes[second], chunk.first_bin, chunk.end_bin))
            continue;

        // Which atoms of the slice reach the window: each lane looks at one. Those that fill up a tile never do.
        const int begin = k % SLICES * SLICE;
        const Atom mine = atoms[first * TILE + begin + lane];
        const Box point = {(float)mine.x, (float)mine.y, (float)mine.z, 0.0f, 0.0f, 0.0f};
        unsigned int reaching =
            __ballot_sync(0xffffffffu, reaches(point, boxes[second], chunk.first_bin, chunk.end_bin));

        double x[PER_LANE], y[PER_LANE], z[PER_LANE];
        #pragma unroll
        for (int j = 0; j < PER_LANE; ++j) {
            const Atom atom = atoms[second * TILE + 32 * j + lane];
            x[j] = atom.x;
            y[j] = atom.y;
            z[j] = atom.z;
        }
        // Within a tile, an atom meets those before it.
        const int before = first == second ? (int)lane : TILE;
        while (reaching != 0u) {
            const int i = begin + __ffs(reaching) - 1;
            reaching &= reaching - 1u;
            const Atom atom = atoms[first * TILE + i];
            long long distance[PER_LANE];
            #pragma unroll
            for (int j = 0; j < PER_LANE; ++j) {
                const double dx = x[j] - atom.x, dy = y[j] - atom.y, dz = z[j] - atom.z;
                distance[j] = fixed_root(__fma_rn(dx, dx, __fma_rn(dy, dy, dz * dz)));
            }
            #pragma unroll
            for (int j = 0; j < PER_LANE; ++j) {
                // A distance below the window wraps around to a large number: one comparison serves both ends.
                const unsigned int bin = (unsigned int)(distance[j] >> FRACTION_BITS) - first_bin;
                if (bin >= kept || i - 32 * j >= before)
                    continue;
                const unsigned int fraction = (unsigned int)distance[j] & FRACTION_MASK;
                const int t = (int)((fraction << (32 - FRACTION_BITS)) ^ 0x80000000u);  // 2^32 t
                int power = t;
                unsigned int addend[MOMENTS], old[MOMENTS];
                addend[1] = fraction;
                #pragma unroll
                for (int m = 2; m < MOMENTS; ++m) {
                    power = __mulhi(power, t);  // 2^32 t^m
                    const int lift = (m % 2 ? 1 << (32 - m) : 0) + (1 << (31 - FRACTION_BITS));  // odd; rounding
                    addend[m] = (unsigned int)(power + lift) >> (32 - FRACTION_BITS);
                }
                atomicAdd(&words[bin * WORDS], 1u);
                bool carry = false;
                #pragma unroll
                for (int m = 1; m < MOMENTS; ++m) {
                    old[m] = atomicAdd(&words[bin * WORDS + m], addend[m]);
                    carry |= old[m] > ~addend[m];
                }
                if (carry) {  // once in some 8000 pairs
                    unsigned int carries = 0u;
                    #pragma unroll
                    for (int m = 1; m < MOMENTS; ++m)
                        carries += old[m] > ~addend[m] ? 1u << carry_shift(m) : 0u;
                    atomicAdd(&words[bin * WORDS + MOMENTS], carries);
                }
            }
        }
    }
    __syncthreads();

    const size_t row = (size_t)chunk.row * MOMENTS * n_bins + chunk.first_bin;
    for (unsigned int k = threadIdx.x; k < kept; k += blockDim.x) {
        const unsigned int pairs = words[k * WORDS];
        if (pairs == 0u)
            continue;
        atomicAdd(&sums[row + k], (unsigned long long)pairs);
        const unsigned int carries = words[k * WORDS + MOMENTS];
        #pragma unroll
        for (int m = 1; m < MOMENTS; ++m) {
            const unsigned long long low = words[k * WORDS + m];
            const unsigned long long high = carries >> carry_shift(m) & ((1u << carry_bits(m)) - 1u);
            atomicAdd(&sums[row + (size_t)m * n_bins + k], high << 32 | low);
        }
    }
}
