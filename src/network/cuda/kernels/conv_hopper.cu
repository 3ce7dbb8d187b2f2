// Convolution as an implicit matrix product on Hopper's tensor cores (wgmma), NHWC.
//
// One block computes TILE_N x TILE_H x TILE_W output pixels for BLOCK_CHANNELS output channels. A 3x3 filter reads each input
// pixel nine times; here the tile with its rim of one pixel is copied to shared memory once per 128 bytes of channels, and the
// nine taps are nine shifted views of it: a view is a matrix descriptor whose start moves by whole pixels (128 bytes), which
// the swizzle allows because it depends on the address alone. Eight by eight pixels make the 64 rows of one wgmma.
//
// The sum over input channels runs over up to three segments, each with its own image: a join of two images, or a 3x3
// convolution plus the 1x1 convolution of a skip connection, cost no copy and no second pass. SPLIT blocks of a cluster share
// the sum and add up through distributed shared memory, in a fixed order.
//
// Two groups of four warps compute. Either they share one tile (GROUPS_M of them along the pixels, the others along the channels),
// or with ALTERNATE each has a tile of its own and one block per multiprocessor walks over the tiles: while one group stores, the
// other multiplies. One more warp copies.
//
// Macros: TILE_N, TILE_H, TILE_W, BLOCK_CHANNELS, GROUPS_M, ALTERNATE, SPLIT, STAGES_A, STAGES_B, BLOCKS_PER_SM, INTERLEAVED, MODE; STEPS
// of the sum, each over a quarter of a block of channels, and TAIL of a block with no more channels than that many quarters;
// `wgmma` (64 rows, GROUP_CHANNELS columns) is generated beside this file; `store.cuh` is what happens to the sums.

// Each number of steps has a fence and a group of its own, or the compiler would wait for every product.
#define MULTIPLY(steps)                                                                                            \
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");                                                        \
    _Pragma("unroll") for (int k = 0; k < steps; k++)                                                              \
        _Pragma("unroll") for (int i = 0; i < PATCHES_PER_GROUP; i++) wgmma(sums[i], a[i] + 2 * k, b + 2 * k);     \
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");

extern "C" __global__ void
#if SPLIT > 1
__cluster_dims__(1, 1, SPLIT)
#endif
__launch_bounds__(THREADS, BLOCKS_PER_SM) convolve(const __grid_constant__ Maps maps,
                                               const __grid_constant__ Convolution p) {
    extern __shared__ char unaligned[];
    char* shared = (char*)(((u64)unaligned + 1023) & ~(u64)1023);
    u32 images = shared_address(shared), weights = images + STAGES_A * STAGE_A;
    __shared__ u64 barriers[2 * (STAGES_A + STAGES_B)];
    u32 full_a = shared_address(barriers), empty_a = full_a + 8 * STAGES_A;
    u32 full_b = empty_a + 8 * STAGES_A, empty_b = full_b + 8 * STAGES_B;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES_A; i++) barrier_init(full_a + 8 * i, 1), barrier_init(empty_a + 8 * i, READERS);
        for (int i = 0; i < STAGES_B; i++) barrier_init(full_b + 8 * i, 1), barrier_init(empty_b + 8 * i, READERS);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    Place place;
    int across = (p.channels + BLOCK_CHANNELS - 1) / BLOCK_CHANNELS;
#if ALTERNATE
    int items = across * p.tiles_x * p.tiles_y * ((p.images + TILE_N - 1) / TILE_N);
#endif
    int total = p.segments[0].loads + p.segments[1].loads + p.segments[2].loads;
#if SPLIT > 1
    int rank = cluster_rank();
    int begin = total * rank / SPLIT, end = total * (rank + 1) / SPLIT;
#else
    const int rank = 0;
    int begin = 0, end = total;
#endif
    int warp = threadIdx.x / 32;

    // The blocks of weights from k0 to k1 are this block's share of the sum.
    int k0 = 0, k1 = 0;
    for (int s = 0, load = 0; s < 3; load += p.segments[s].loads, s++) {
        k0 += p.segments[s].taps * min(max(begin - load, 0), p.segments[s].loads);
        k1 += p.segments[s].taps * min(max(end - load, 0), p.segments[s].loads);
    }

    if (warp >= 8) {
#if ALTERNATE
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
#endif
        if (threadIdx.x == 256) {
            int stage_a = 0, phase_a = 1, stage_b = 0, phase_b = 1, ready = 0, used = 0;
#if ALTERNATE
            for (int item = blockIdx.x; item < items; item += gridDim.x) {
                place = place_of(p, item % across, item / across);
#else
            {
                place = place_of(p, blockIdx.x % across, blockIdx.x / across);
#endif
                if (used == 0) {
                    // Weights do not depend on what ran before.
                    for (ready = 0; ready < min(STAGES_B, k1 - k0); ready++) {
                        barrier_expect(full_b + 8 * ready, STAGE_B);
                        load_weights(weights + ready * STAGE_B, &maps.weights, full_b + 8 * ready, (k0 + ready) * CHANNELS_PER_ROW,
                                     place.channel);
                    }
                    after_predecessor();
                }
                for (int s = 0, load = 0, k = k0; s < 3; s++) {
                    Segment segment = p.segments[s];
                    bool rim = segment.taps == 9;
                    int side = segment.separate == 36 ? 6 : segment.separate == 9 ? 3 : 1;
                    u32 bytes =
                        rim ? TILE_N * (TILE_H + 2) * (TILE_W + 2) * ROW_BYTES : TILE_N * TILE_H * TILE_W * ROW_BYTES;
                    for (int l = 0; l < segment.loads; l++, load++) {
                        if (load < begin || load >= end) continue;
                        int tap = l % segment.separate;
                        int padding = rim || side > 1 ? p.padding : 0;
                        int x = p.stride * place.x + tap % side - padding;
                        int y = p.stride * place.y + tap / side - padding;
                        barrier_wait(empty_a + 8 * stage_a, phase_a);
                        barrier_expect(full_a + 8 * stage_a, bytes);
                        load_image(images + stage_a * STAGE_A, &maps.images[s], full_a + 8 * stage_a,
                                   l / segment.separate * CHANNELS_PER_ROW, x, y, place.image);
                        if (++stage_a == STAGES_A) stage_a = 0, phase_a ^= 1;
                        for (int t = 0; t < segment.taps; t++, k++, used++) {
                            if (used >= ready) {
                                barrier_wait(empty_b + 8 * stage_b, phase_b);
                                barrier_expect(full_b + 8 * stage_b, STAGE_B);
                                load_weights(weights + stage_b * STAGE_B, &maps.weights, full_b + 8 * stage_b,
                                             k * CHANNELS_PER_ROW, place.channel);
                            }
                            if (++stage_b == STAGES_B) stage_b = 0, phase_b ^= 1;
                        }
                    }
                }
            }
        }
        __syncwarp();
#if ALTERNATE
        return;
#endif
    }
    float sums[PATCHES_PER_GROUP][GROUP_CHANNELS / 2];
    int group = warp / 4;
    float2* room = (float2*)(shared + ROOM);
    if (warp < 8) wait_for_predecessor();
#if ALTERNATE
    const int group_m = 0, group_n = 0;
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    for (int turn = group, item = blockIdx.x + group * gridDim.x; item < items; turn += 2, item += 2 * gridDim.x) {
        place = place_of(p, item % across, item / across);
        // The stages go round through the items of both groups.
        int stage_a = turn * (end - begin) % STAGES_A, phase_a = turn * (end - begin) / STAGES_A % 2;
        int stage_b = turn * (k1 - k0) % STAGES_B, phase_b = turn * (k1 - k0) / STAGES_B % 2;
#else
    int group_m = group % GROUPS_M, group_n = group / GROUPS_M;
    {
        place = place_of(p, blockIdx.x % across, blockIdx.x / across);
        int stage_a = 0, phase_a = 0, stage_b = 0, phase_b = 0;
#endif
    if (warp < 8) {
#pragma unroll
        for (int i = 0; i < PATCHES_PER_GROUP; i++)
#pragma unroll
            for (int j = 0; j < GROUP_CHANNELS / 2; j++) sums[i][j] = 0.f;
        int load = 0, last_a = -1, last_b = -1;
        bool leader = threadIdx.x % 32 == 0;
#if ALTERNATE
        // A wait for a stage tells only odd from even rounds, so a group must not begin before the other is through with its stages.
        if (turn > 0) asm volatile("bar.sync %0, 256;" ::"r"(4 + turn % 2) : "memory");
#endif
        for (int s = 0; s < 3; s++) {
            int taps = p.segments[s].taps, loads = p.segments[s].loads, separate = p.segments[s].separate;
            int rim = taps == 9 ? 2 : 0;
            int pitch = TILE_W + rim;
            for (int l = 0; l < loads; l++, load++) {
                if (load < begin || load >= end) continue;
                barrier_wait(full_a + 8 * stage_a, phase_a);
                u32 image = images + stage_a * STAGE_A;
                // The rest of the last block of channels is zeros.
                bool narrow = TAIL < STEPS && p.segments[s].channels - l / separate * CHANNELS_PER_ROW <= TAIL * CHANNELS_PER_ROW / 4;
                for (int t = 0; t < taps; t++) {
                    barrier_wait(full_b + 8 * stage_b, phase_b);
                    u64 b = descriptor(weights + stage_b * STAGE_B + group_n * GROUP_CHANNELS * ROW_BYTES, 1024);
                    u32 tap = (t / 3 * pitch + t % 3) * ROW_BYTES;
                    u64 a[PATCHES_PER_GROUP];
#pragma unroll
                    for (int i = 0; i < PATCHES_PER_GROUP; i++) {
                        int patch = group_m * PATCHES_PER_GROUP + i;
                        int px = patch % (TILE_W / 8), py = patch / (TILE_W / 8) % (TILE_H / 8);
                        int pn = patch / ((TILE_W / 8) * (TILE_H / 8));
                        u32 pixel = (pn * (TILE_H + rim) + py * 8) * pitch + px * 8;
                        a[i] = descriptor(image + pixel * ROW_BYTES + tap, pitch * ROW_BYTES);
                    }
                    if (narrow) {
                        MULTIPLY(TAIL)
                    } else {
                        MULTIPLY(STEPS)
                    }
                    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                    if (leader) {
                        if (last_b >= 0) barrier_arrive(empty_b + 8 * last_b);
                        if (last_a >= 0) barrier_arrive(empty_a + 8 * last_a);
                    }
                    last_b = stage_b;
                    last_a = t == taps - 1 ? stage_a : -1;
                    if (++stage_b == STAGES_B) stage_b = 0, phase_b ^= 1;
                }
                if (++stage_a == STAGES_A) stage_a = 0, phase_a ^= 1;
            }
        }
#if ALTERNATE
        asm volatile("bar.arrive %0, 256;" ::"r"(4 + (turn + 1) % 2) : "memory");
#endif
#if ALTERNATE
        Mine mine = mine_of(p, place, group_m, group_n);
        Raw<VECTOR> reads[PIXELS];
        start_reads(p, mine, 0, reads, rank);
#endif
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#if ALTERNATE
        if (leader) {
            if (last_b >= 0) barrier_arrive(empty_b + 8 * last_b);
            if (last_a >= 0) barrier_arrive(empty_a + 8 * last_a);
        }
        store(p, mine, group, reads, room + group * 4 * GROUP_CHANNELS, rank, [&](int pixel, int block, float* v) {
            take(sums, pixel, block, v);
        });
#endif
    }
#if !ALTERNATE
    // All copies have arrived and, once all threads are here, all products are done: the stages become room for the sums, every
    // thread's in its own place. Registers would not hold them beside what finishing needs.
    __syncthreads();
    float* exchange = (float*)shared + threadIdx.x * VECTOR;
    Mine mine = mine_of(p, place, group_m, group_n);
    Raw<VECTOR> reads[PIXELS];
    if (warp < 8) {
#pragma unroll
        for (int block = 0; block < BLOCKS; block++)
#pragma unroll
            for (int pixel = 0; pixel < PIXELS; pixel++) {
                float v[VECTOR];
                take(sums, pixel, block, v);
                store_values<VECTOR>(exchange + (block * PIXELS + pixel) * 256 * VECTOR, v);
            }
        start_reads(p, mine, 0, reads, rank);
    }
#if SPLIT > 1
    cluster_sync();
#endif
    if (warp < 8)
        store(p, mine, group, reads, room + group * 4 * GROUP_CHANNELS, rank, [&](int pixel, int block, float* v) {
            float* from = exchange + (block * PIXELS + pixel) * 256 * VECTOR;
#if SPLIT > 1
#pragma unroll
            for (int k = 0; k < VECTOR; k++) v[k] = 0.f;
#pragma unroll
            for (int other = 0; other < SPLIT; other++) add_remote<VECTOR>(v, shared_address(from), other);
#else
#pragma unroll
            for (int k = 0; k < VECTOR; k += 2) *(float2*)(v + k) = *(float2*)(from + k);
#endif
        });
#if SPLIT > 1
    cluster_sync();
#endif
#endif
    }
}
