// Copies to shared memory and what waits for them, and how a tensor core is told where its operands lie: Hopper's instructions that
// have no name in C++.

#define ROW_BYTES 128
#define CHANNELS_PER_ROW (ROW_BYTES * 8 / ELEMENT_BITS)

struct alignas(64) TensorMap {
    char opaque[128];
};

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
// Rows of 128 bytes with the 128-byte swizzle; groups of eight rows are `stride` bytes apart. Where a row holds numbers of one index
// of the sum (the operand is transposed), blocks of 64 such numbers are `leading` bytes apart.
__device__ __forceinline__ u64 descriptor(u32 address, u32 stride, u32 leading = 16) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(leading >> 4) << 16 | (u64)(stride >> 4) << 32 | (u64)1 << 62;
}
