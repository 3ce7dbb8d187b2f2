// What the convolution for Hopper is made of: its macros, its arguments, and the instructions of clusters.

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

struct Maps {
    TensorMap images[3];
    TensorMap weights;
};
struct Segment {
    int loads;     // channel blocks times `separate`
    int taps;      // per load: 9 for a 3x3 filter on a shared rim, else 1
    int separate;  // 9 or 36 where every tap of a 3x3 or 6x6 filter is a load of its own, else 1
    int channels;
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
