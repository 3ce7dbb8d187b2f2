// From a warp's registers to memory, without a detour through shared memory.
//
// Of a matrix product's 64 rows and GROUP_CHANNELS columns, a thread (lane 4r + q of warp w) holds rows 16w + r and 16w + r + 8 and
// columns 8j + 2q + e, e = 0 or 1. With INTERLEAVED weights, row 8j + 2q + e of every 32 belongs to output channel 8q + 2j + e: a
// thread then has eight neighbouring channels of every 32, and four lanes store 32 neighbouring channels of a pixel; of the last 32
// some may not exist. Where that would be many, the weights are not interleaved, and threads store two channels at a time.

#if INTERLEAVED
#define VECTOR 8
#else
#define VECTOR 2
#endif
// Blocks of channels that four lanes share, and the pixels of a thread.
#define BLOCKS (GROUP_CHANNELS / (4 * VECTOR))
#define PIXELS (2 * PATCHES_PER_GROUP)

// The sums of one of the thread's pixels and blocks of channels.
__device__ __forceinline__ void take(const float (&sums)[PATCHES_PER_GROUP][GROUP_CHANNELS / 2], int pixel, int block, float* v) {
#pragma unroll
    for (int k = 0; k < VECTOR; k++) v[k] = sums[pixel / 2][4 * (block * VECTOR / 2 + k / 2) + pixel % 2 * 2 + k % 2];
}

// Where the registers of a thread belong.
struct Mine {
    int image, y, x;  // of its first pixel
    int channel;      // of its first vector
    int blocks;       // of channels of which some exist
    int row;          // of the sums over pixels
};
__device__ __forceinline__ Mine mine_of(const Convolution& p, const Place& place, int group_m, int group_n) {
    // One group never has pixels of two images: sums over pixels are kept for one.
    static_assert(TILE_N == 1 || PATCHES_PER_GROUP == 1);
    Mine m;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, patch = group_m * PATCHES_PER_GROUP;
    m.image = place.image + patch / ((TILE_W / 8) * (TILE_H / 8));
    m.y = place.y + patch / (TILE_W / 8) % (TILE_H / 8) * 8 + warp * 2;
    m.x = place.x + patch % (TILE_W / 8) * 8 + lane / 4;
    int first = place.channel + group_n * GROUP_CHANNELS;
    m.channel = first + lane % 4 * VECTOR;
    m.blocks = m.image < p.images ? (p.channels - first + 4 * VECTOR - 1) / (4 * VECTOR) : 0;
    m.row = TILE_N > 1 ? place.tile : place.tile * GROUPS_M + group_m;
    return m;
}
// The thread's pixels: two rows of each patch. A group's patches begin at the left edge of the tile, or it has only one.
static_assert(PATCHES_PER_GROUP == 1 || PATCHES_PER_GROUP % (TILE_W / 8) == 0);
__device__ __forceinline__ int y_of(const Mine& m, int pixel) { return m.y + pixel / 2 / (TILE_W / 8) * 8 + pixel % 2; }
__device__ __forceinline__ int x_of(const Mine& m, int pixel) { return m.x + pixel / 2 % (TILE_W / 8) * 8; }
__device__ __forceinline__ bool inside(const Convolution& p, const Mine& m, int pixel) {
    return y_of(m, pixel) < p.height && x_of(m, pixel) < p.width;
}

// Starts the reads for the thread's pixels of one block of channels.
__device__ __forceinline__ void start_reads(const Convolution& p, const Mine& m, int block, Raw<VECTOR>* reads, int part) {
    int channel = m.channel + block * 4 * VECTOR;
    if (block < m.blocks && channel < p.channels)
#pragma unroll
        for (int i = 0; i < PIXELS; i++)
            if (inside(p, m, i) && (block * PIXELS + i) % SPLIT == part)
                reads[i] = read<VECTOR>(p.epilogue, m.image, y_of(m, i), x_of(m, i), p.height, p.width, channel);
}

// Adds up the eight lanes that have the same channels, in a fixed order; lane 4r + q returns the sums of channel r of its vector
// (with two channels: r / 4).
__device__ __forceinline__ float2 over_lanes(float* sum, float* sum2) {
    int lane = threadIdx.x % 32, left = VECTOR;
#pragma unroll
    for (int bit = 16; bit >= 4; bit /= 2) {
        if (left > 1) {
            bool upper = lane & bit;
            left /= 2;
#pragma unroll
            for (int k = 0; k < VECTOR / 2; k++)
                if (k < left) {
                    float keep = upper ? sum[k + left] : sum[k], give = upper ? sum[k] : sum[k + left];
                    float keep2 = upper ? sum2[k + left] : sum2[k], give2 = upper ? sum2[k] : sum2[k + left];
                    sum[k] = keep + __shfl_xor_sync(~0u, give, bit);
                    sum2[k] = keep2 + __shfl_xor_sync(~0u, give2, bit);
                }
        } else {
            sum[0] += __shfl_xor_sync(~0u, sum[0], bit);
            sum2[0] += __shfl_xor_sync(~0u, sum2[0], bit);
        }
    }
    return make_float2(sum[0], sum2[0]);
}

// Finishes and stores a group's tile; `sums_of(pixel, block, v)` gives the sums. `room`: 4 x GROUP_CHANNELS pairs of shared memory.
// The blocks of a cluster take turns over the pairs (block, pixel); `part` is this block's.
template <typename F>
__device__ __forceinline__ void store(const Convolution& p, const Mine& m, int group, Raw<VECTOR>* reads, float2* room, int part,
                                      F sums_of) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int block = 0; block < BLOCKS; block++) {
        if (block >= m.blocks) break;
        int channel = m.channel + block * 4 * VECTOR;
        Raw<VECTOR> next[PIXELS];
        if (block + 1 < BLOCKS) start_reads(p, m, block + 1, next, part);
        bool exist = channel < p.channels;
        Channels<VECTOR> fixed;
        if (exist) fixed = channels_of<VECTOR>(p.epilogue, m.image, channel, p.channels);
        float sum[VECTOR], sum2[VECTOR];
#pragma unroll
        for (int k = 0; k < VECTOR; k++) sum[k] = sum2[k] = 0.f;
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            if (!exist || !inside(p, m, i) || (block * PIXELS + i) % SPLIT != part) continue;
            float v[VECTOR];
            sums_of(i, block, v);
            u32 pixel = ((u32)m.image * p.height + y_of(m, i)) * p.width + x_of(m, i);
            finish<VECTOR>(p.epilogue, fixed, reads[i], pixel, channel, v, sum, sum2);
        }
        if (p.epilogue.partials) {
            float2 total = over_lanes(sum, sum2);
            float2* to = room + warp * GROUP_CHANNELS + block * 4 * VECTOR + lane % 4 * VECTOR;
            if (VECTOR == 8) to[lane / 4] = total;
            else if (lane % 16 < 4) to[lane / 16] = total;
        }
#pragma unroll
        for (int i = 0; i < PIXELS; i++) reads[i] = next[i];
    }
    if (!p.epilogue.partials) return;
    group_sync(group);
    int first = m.channel - lane % 4 * VECTOR, count = m.blocks > 0 ? min(GROUP_CHANNELS, p.channels - first) : 0;
    size_t row = ((size_t)m.image * p.epilogue.partial_rows + m.row * SPLIT + part) * p.channels + first;
    for (int c = threadIdx.x % 128; c < count; c += 128) {
        float2 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = room[i * GROUP_CHANNELS + c];
        ((float2*)p.epilogue.partials)[row + c] = make_float2(v[0].x + v[1].x + v[2].x + v[3].x, v[0].y + v[1].y + v[2].y + v[3].y);
    }
    group_sync(group);
}
