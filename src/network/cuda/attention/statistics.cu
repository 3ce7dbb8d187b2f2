// For each (item, head, query): the log-sum-exp of the logits in base 2, and <d_out, out>. All the transpose needs of the output.
//
// One group of lanes a (item, pixel, head); 256 threads a block.

constexpr int VALUES = 16 / sizeof(Element);
__device__ constexpr int lanes_of(int lanes) { return lanes >= 32 || lanes * VALUES >= DEPTH ? lanes : lanes_of(2 * lanes); }
constexpr int LANES = lanes_of(1);

#if ELEMENT == 16
__device__ __forceinline__ float dot(unsigned x, unsigned y) {
    const float low = __uint_as_float(x << 16) * __uint_as_float(y << 16);
    return fmaf(__uint_as_float(x & 0xffff0000u), __uint_as_float(y & 0xffff0000u), low);
}
#else
__device__ __forceinline__ float dot(unsigned x, unsigned y) { return __uint_as_float(x) * __uint_as_float(y); }
#endif

extern "C" __global__ void __launch_bounds__(256) attention_statistics(const Element* __restrict__ out, const Element* __restrict__ d_out,
                                                                       const float* __restrict__ lse, float2* __restrict__ statistics,
                                                                       int batch, int pixels, int heads) {
    const long long at = (blockIdx.x * 256ll + threadIdx.x) / LANES, all = static_cast<long long>(batch) * pixels * heads;
    // Lanes beyond the end repeat the last row, for the shuffles.
    const long long row = at < all ? at : all - 1;
    float sum = 0.0f;
    for (int channel = threadIdx.x % LANES * VALUES; channel < DEPTH; channel += LANES * VALUES) {
        const uint4 x = *reinterpret_cast<const uint4*>(out + row * DEPTH + channel);
        const uint4 y = *reinterpret_cast<const uint4*>(d_out + row * DEPTH + channel);
        sum += (dot(x.x, y.x) + dot(x.y, y.y)) + (dot(x.z, y.z) + dot(x.w, y.w));
    }
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (at < all && threadIdx.x % LANES == 0) {
        const long long to = (row / heads / pixels * heads + row % heads) * pixels + row / heads % pixels;
        statistics[to] = make_float2(lse[to] * 1.4426950408889634f, sum);
    }
}
