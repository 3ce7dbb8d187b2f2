// What the convolution for Hopper is made of: its macros, its arguments, and the instructions that have no name in C++.

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
// Bytes of shared memory before the room for sums over pixels: the stages, or at least the block's sums.
#define STAGES (STAGES_A * STAGE_A + STAGES_B * STAGE_B)
#define EXCHANGE (ALTERNATE ? 0 : PATCHES * 64 * BLOCK_CHANNELS * 4)
#define ROOM (STAGES > EXCHANGE ? STAGES : EXCHANGE)
#define STAGE_A (((TILE_N * (TILE_H + 2) * (TILE_W + 2) * ROW_BYTES) + 1023) / 1024 * 1024)
#define STAGE_B (BLOCK_CHANNELS * ROW_BYTES)

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
// Adds what another block of the cluster has at that address.
template <int N>
__device__ __forceinline__ void add_remote(float* v, u32 address, u32 rank) {
    u32 there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int k = 0; k < N; k += 4) {
            float4 a;
            asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(a.x), "=f"(a.y), "=f"(a.z), "=f"(a.w)
                         : "r"(there + 4 * k));
            v[k] += a.x, v[k + 1] += a.y, v[k + 2] += a.z, v[k + 3] += a.w;
        }
    } else {
        float2 a;
        asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(a.x), "=f"(a.y) : "r"(there));
        v[0] += a.x, v[1] += a.y;
    }
}
#endif
