// The gradient of filters on Hopper's tensor cores (wgmma), NHWC in bfloat16: dW[co, ci, tap] = sum over pixels p of
// d[p, co] x[p + tap - padding, ci]; with a stride of 2, d has zeros between its pixels.
//
// A matrix product whose sum runs over pixels: 64 output channels are its rows, COLUMNS input channels its columns. A pixel's
// channels are a row of 128 bytes of shared memory, so both operands lie transposed, which wgmma takes. As in `conv_hopper.cu` a tile
// of x has a rim of one pixel and the nine taps are nine shifted views of it, and the swizzle depends on the address alone. One instruction sums
// over 16 neighbouring pixels.
//
// One block walks over its share of the tiles of all images. Each of three groups of four warps has the three taps of one row of the
// filter: with JOINED as one product of 192 columns, whose blocks of 64 lie one pixel apart. For a 1x1 filter two groups share the
// pixels, and each leaves sums of its own. One more warp copies.
//
// Macros: TAPS (9 or 1), COLUMNS, JOINED, STAGES; `wgmma` (64 rows, COLUMNS columns, or 192) is generated beside this file.

#define TILE_H 8
#define TILE_W 16
#if TAPS == 9
#define RIM 2
#define GROUPS 3
#define VIEWS 3
#else
#define RIM 0
#define GROUPS 2
#define VIEWS 1
#endif
#define PITCH (TILE_W + RIM)
#define X_BYTES ((TILE_H + RIM) * PITCH * ROW_BYTES)
#define D_BYTES (TILE_H * TILE_W * ROW_BYTES)
#define STAGE ((X_BYTES + 1023) / 1024 * 1024 + D_BYTES)
#define THREADS (GROUPS * 128 + 32)

struct Maps {
    TensorMap x, d;
};
struct Gradient {
    int inputs, outputs;  // channels that exist
    int images, tiles_x, tiles_y;
    int padding;
    int share;        // tiles of a block
    float* partials;  // [share][tap][output][input]; with a 1x1 filter a block has two shares
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_gradient(const __grid_constant__ Maps maps,
                                                                       const __grid_constant__ Gradient p) {
    extern __shared__ char unaligned[];
    u32 shared = (shared_address(unaligned) + 1023) & ~1023u;
    __shared__ u64 barriers[2 * STAGES];
    u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) barrier_init(full + 8 * i, 1), barrier_init(empty + 8 * i, GROUPS * 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    int across = (p.inputs + 63) / 64, input0 = blockIdx.x % across * 64, output0 = blockIdx.x / across * 64;
    int tiles = p.images * p.tiles_x * p.tiles_y;
    int begin = blockIdx.y * p.share, end = min(begin + p.share, tiles);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = warp / 4;
    if (group == GROUPS) {
        if (lane == 0) {
            after_predecessor();
            int stage = 0, phase = 1;
            for (int tile = begin; tile < end; tile++) {
                int x = tile % p.tiles_x * TILE_W, y = tile / p.tiles_x % p.tiles_y * TILE_H;
                int image = tile / p.tiles_x / p.tiles_y;
                barrier_wait(empty + 8 * stage, phase);
                barrier_expect(full + 8 * stage, X_BYTES + D_BYTES);
                u32 to = shared + stage * STAGE;
                load_image(to, &maps.x, full + 8 * stage, input0, x - p.padding, y - p.padding, image);
                load_image(to + STAGE - D_BYTES, &maps.d, full + 8 * stage, output0, x, y, image);
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        }
        return;
    }
    wait_for_predecessor();
    float sums[VIEWS][COLUMNS / 2];
#pragma unroll
    for (int v = 0; v < VIEWS; v++)
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++) sums[v][i] = 0.f;
    int stage = 0, phase = 0, last = -1;
    for (int tile = begin; tile < end; tile++) {
        barrier_wait(full + 8 * stage, phase);
        u32 x = shared + stage * STAGE, d = x + STAGE - D_BYTES;
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#if TAPS == 9
#pragma unroll
        for (int row = 0; row < TILE_H; row++) {
            u64 a = descriptor(d + row * TILE_W * ROW_BYTES, 1024, 1024);
            u32 from = x + (row + group) * PITCH * ROW_BYTES;
#if JOINED
            wgmma(sums[0], a, descriptor(from, 1024, ROW_BYTES));
#else
#pragma unroll
            for (int v = 0; v < VIEWS; v++) wgmma(sums[v], a, descriptor(from + v * ROW_BYTES, 1024, 1024));
#endif
        }
#else
#pragma unroll
        for (int i = 0; i < TILE_H / GROUPS; i++) {
            u32 row = (i * GROUPS + group) * TILE_W * ROW_BYTES;
            wgmma(sums[0], descriptor(d + row, 1024, 1024), descriptor(x + row, 1024, 1024));
        }
#endif
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (lane == 0 && last >= 0) barrier_arrive(empty + 8 * last);
        last = stage;
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    // A thread (lane 4r + q of warp w) holds rows 16w + r and 16w + r + 8 and columns 8j + 2q + e, e = 0 or 1.
    size_t share = TAPS == 9 ? blockIdx.y : blockIdx.y * GROUPS + group;
#pragma unroll
    for (int v = 0; v < VIEWS; v++) {
        int tap = TAPS == 9 ? group * VIEWS + v : 0;
        float* to = p.partials + (share * TAPS + tap) * p.outputs * p.inputs;
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++) {
            int output = output0 + warp % 4 * 16 + lane / 4 + i / 2 % 2 * 8, input = input0 + i / 4 * 8 + lane % 4 * 2 + i % 2;
            if (output < p.outputs && input < p.inputs) to[(size_t)output * p.inputs + input] = sums[v][i];
        }
    }
}
