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
// Macros: TILE_N, TILE_H, TILE_W, BLOCK_CHANNELS, GROUPS_M, ALTERNATE, SPLIT, STAGES_A, STAGES_B, BLOCKS_PER_SM; `wgmma` (64 rows,
// GROUP_CHANNELS columns) is generated beside this file.

#define ROW_BYTES 128
#define CHANNELS_PER_ROW (ROW_BYTES * 8 / ELEMENT_BITS)
#define PATCHES (TILE_N * (TILE_H / 8) * (TILE_W / 8))
#if ALTERNATE
#define GROUPS_M 1
#define GROUPS_N 1
#else
#define GROUPS_N (2 / GROUPS_M)
#endif
#define PATCHES_PER_GROUP (PATCHES / GROUPS_M)
// Warps that say when a stage may be overwritten.
#define READERS (ALTERNATE ? 4 : 8)
// With ALTERNATE the copying warp has a group to itself, because registers move between groups.
#define THREADS (ALTERNATE ? 384 : 288)
#define STAGE_A (((TILE_N * (TILE_H + 2) * (TILE_W + 2) * ROW_BYTES) + 1023) / 1024 * 1024)
#define STAGE_B (BLOCK_CHANNELS * ROW_BYTES)
#define STAGED_PITCH (GROUP_CHANNELS + 8)
#define VECTORS (GROUP_CHANNELS / 8)
#define ROWS_PER_PASS (128 / VECTORS)
// Rows of a patch that a block of the cluster stores, and how many of them a thread reads for at once.
#define SHARE (64 / SPLIT)
#define TOGETHER (SHARE / ROWS_PER_PASS >= 4 && ELEMENT_BITS == 16 ? 4 : SHARE / ROWS_PER_PASS >= 2 ? 2 : 1)

struct alignas(64) TensorMap {
    char opaque[128];
};
struct Maps {
    TensorMap images[3];
    TensorMap weights;
};
struct Segment {
    int loads;     // channel blocks times `separate`
    int taps;      // per load: 9 for a 3x3 filter on a shared rim, else 1
    int separate;  // 9 or 36 where every tap of a 3x3 or 6x6 filter is a load of its own, else 1
};
struct Convolution {
    Segment segments[3];
    int stride, padding;
    int images, height, width;  // of the output
    int channels;               // of the output
    int tiles_x, tiles_y;
    Epilogue epilogue;
};

// The pixels and output channels of a tile.
struct Place {
    int tile, image, x, y, channel;
};
__device__ __forceinline__ Place place_of(const Convolution& p, int across, int down) {
    int tiles = p.tiles_x * p.tiles_y, tile = down % tiles;
    return {tile, down / tiles * TILE_N, tile % p.tiles_x * TILE_W, tile / p.tiles_x * TILE_H, across * BLOCK_CHANNELS};
}

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void barrier_init(u32 b, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_expect(u32 b, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(u32 b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory");
}
__device__ __forceinline__ void barrier_wait(u32 b, u32 phase) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra "
        "again;\nover:\n}" ::"r"(b),
        "r"(phase)
        : "memory");
}
__device__ __forceinline__ void load_image(u32 to, const TensorMap* map, u32 barrier, int c, int x, int y, int n) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
        "[%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(c), "r"(x), "r"(y), "r"(n)
        : "memory");
}
__device__ __forceinline__ void load_weights(u32 to, const TensorMap* map, u32 barrier, int k, int n) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
            "r"(to),
        "l"(map), "r"(barrier), "r"(k), "r"(n)
        : "memory");
}
// Rows of 128 bytes with the 128-byte swizzle; groups of eight rows are `stride` bytes apart.
__device__ __forceinline__ u64 descriptor(u32 address, u32 stride) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(stride >> 4) << 32 | (u64)1 << 62;
}
__device__ __forceinline__ void group_sync(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 2) : "memory"); }
#if SPLIT > 1
__device__ __forceinline__ u32 cluster_rank() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ float4 load_remote(u32 address, u32 rank) {
    float4 v;
    u32 there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(there));
    return v;
}
#endif

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
#if ALTERNATE
    int across = (p.channels + BLOCK_CHANNELS - 1) / BLOCK_CHANNELS;
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
                place = place_of(p, blockIdx.x, blockIdx.y);
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
#if ALTERNATE
    const int group_m = 0, group_n = 0;
    float* room = (float*)(shared + STAGES_A * STAGE_A + STAGES_B * STAGE_B);
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    for (int turn = group, item = blockIdx.x + group * gridDim.x; item < items; turn += 2, item += 2 * gridDim.x) {
        place = place_of(p, item % across, item / across);
        // The stages go round through the items of both groups.
        int stage_a = turn * (end - begin) % STAGES_A, phase_a = turn * (end - begin) / STAGES_A % 2;
        int stage_b = turn * (k1 - k0) % STAGES_B, phase_b = turn * (k1 - k0) / STAGES_B % 2;
#else
    int group_m = group % GROUPS_M, group_n = group / GROUPS_M;
    float* room = (float*)shared;
    {
        place = place_of(p, blockIdx.x, blockIdx.y);
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
            int taps = p.segments[s].taps, loads = p.segments[s].loads;
            int rim = taps == 9 ? 2 : 0;
            int pitch = TILE_W + rim;
            for (int l = 0; l < loads; l++, load++) {
                if (load < begin || load >= end) continue;
                barrier_wait(full_a + 8 * stage_a, phase_a);
                u32 image = images + stage_a * STAGE_A;
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
                    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
                    for (int k = 0; k < 4; k++)
#pragma unroll
                        for (int i = 0; i < PATCHES_PER_GROUP; i++) wgmma(sums[i], a[i] + 2 * k, b + 2 * k);
                    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
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
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#if ALTERNATE
        if (leader) {
            if (last_b >= 0) barrier_arrive(empty_b + 8 * last_b);
            if (last_a >= 0) barrier_arrive(empty_a + 8 * last_a);
        }
#endif
    }

    wait_for_predecessor();
#if !ALTERNATE
    // All copies have arrived and all products are done: the stages become room for the sums, in float.
    __syncthreads();
#endif
    float* staged = room + (size_t)group * 64 * STAGED_PITCH;
    float* reduced = room + (size_t)2 * 64 * STAGED_PITCH + group * 128 * 16;
    int thread = threadIdx.x % 128, lane = threadIdx.x % 32;
    int vector = thread % VECTORS, row = thread / VECTORS;
    int channel = place.channel + group_n * GROUP_CHANNELS + vector * 8;
    float sum[8], sum2[8];
#pragma unroll
    for (int k = 0; k < 8; k++) sum[k] = sum2[k] = 0.f;
#pragma unroll
    for (int i = 0; i < PATCHES_PER_GROUP; i++) {
        int patch = group_m * PATCHES_PER_GROUP + i;
        int px = patch % (TILE_W / 8), py = patch / (TILE_W / 8) % (TILE_H / 8);
        int image = place.image + patch / ((TILE_W / 8) * (TILE_H / 8));
        if (warp < 8) {
            int r = warp % 4 * 16 + lane / 4;
#pragma unroll
            for (int j = 0; j < VECTORS; j++) {
                float* to = staged + r * STAGED_PITCH + j * 8 + lane % 4 * 2;
                *(float2*)to = make_float2(sums[i][4 * j], sums[i][4 * j + 1]);
                *(float2*)(to + 8 * STAGED_PITCH) = make_float2(sums[i][4 * j + 2], sums[i][4 * j + 3]);
            }
        }
#if SPLIT > 1
        cluster_sync();
#else
        if (warp < 8) group_sync(group);
#endif
        if (warp < 8 && row < ROWS_PER_PASS && channel < p.channels && image < p.images) {
            Channels fixed = channels_of(p.epilogue, image, channel, p.channels);
            for (int first = row; first < SHARE; first += TOGETHER * ROWS_PER_PASS) {
                Raw8 reads[TOGETHER];
#pragma unroll
                for (int i = 0; i < TOGETHER; i++) {
                    int r = rank * SHARE + first + i * ROWS_PER_PASS;
                    int y = place.y + py * 8 + r / 8, x = place.x + px * 8 + r % 8;
                    if (first + i * ROWS_PER_PASS < SHARE && y < p.height && x < p.width)
                        reads[i] = read8(p.epilogue, image, y, x, p.height, p.width, channel);
                }
#pragma unroll
                for (int i = 0; i < TOGETHER; i++) {
                    int r = rank * SHARE + first + i * ROWS_PER_PASS;
                    int y = place.y + py * 8 + r / 8, x = place.x + px * 8 + r % 8;
                    if (first + i * ROWS_PER_PASS >= SHARE || y >= p.height || x >= p.width) continue;
                    float v[8];
#if SPLIT > 1
                    u32 from = shared_address(staged + r * STAGED_PITCH + vector * 8);
#pragma unroll
                    for (int k = 0; k < 8; k++) v[k] = 0.f;
#pragma unroll
                    for (int other = 0; other < SPLIT; other++) {
                        float4 a = load_remote(from, other), b = load_remote(from + 16, other);
                        v[0] += a.x, v[1] += a.y, v[2] += a.z, v[3] += a.w, v[4] += b.x, v[5] += b.y, v[6] += b.z, v[7] += b.w;
                    }
#else
                    load8(staged + r * STAGED_PITCH + vector * 8, v);
#endif
                    finish8(p.epilogue, fixed, reads[i], image, y, x, p.height, p.width, channel, v, sum, sum2);
                }
            }
        }
        bool flush = TILE_N > 1 || i == PATCHES_PER_GROUP - 1;
        if (p.epilogue.partials && flush) {
            if (warp < 8) {
                if (row < ROWS_PER_PASS) {
#pragma unroll
                    for (int k = 0; k < 8; k++) {
                        float2* to = (float2*)reduced + row * GROUP_CHANNELS + vector * 8 + k;
                        *to = make_float2(sum[k], sum2[k]);
                        sum[k] = sum2[k] = 0.f;
                    }
                }
                group_sync(group);
                int rows = TILE_N > 1 ? place.tile * SPLIT + rank : (place.tile * GROUPS_M + group_m) * SPLIT + rank;
                for (int c = thread; c < GROUP_CHANNELS; c += 128) {
                    int to = place.channel + group_n * GROUP_CHANNELS + c;
                    if (to >= p.channels || image >= p.images) continue;
                    float a = 0.f, b = 0.f;
                    for (int r = 0; r < ROWS_PER_PASS; r++) {
                        float2 v = ((float2*)reduced)[r * GROUP_CHANNELS + c];
                        a += v.x, b += v.y;
                    }
                    size_t index = ((size_t)image * p.epilogue.partial_rows + rows) * p.channels + to;
                    ((float2*)p.epilogue.partials)[index] = make_float2(a, b);
                }
            }
        }
#if SPLIT > 1
        cluster_sync();
#else
        if (warp < 8) group_sync(group);
#endif
    }
    }
}
