// One step of AdamW on all numbers, and the numbers as the convolutions read them.

#define THREADS 256

// The sum over a block, in every thread, in a fixed order.
__device__ __forceinline__ double block_sum(double v) {
    __shared__ double shared[THREADS / 32];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) v += __shfl_xor_sync(~0u, v, n);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++) sum += shared[i];
    return sum;
}

// Sums of squares, one per block.
extern "C" __global__ void __launch_bounds__(THREADS) squares(const float* gradient, u64 count, double* partials) {
    after_predecessor();
    double sum = 0;
    for (u64 i = blockIdx.x * (u64)THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {
        double v = gradient[i];
        sum += v * v;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// `Coefficients` of `network/training/adamw.rs`, whose arithmetic this is, with the largest norm in place of the factor.
struct Step {
    double largest;  // or infinity
    float gain_1, beta_2, gain_2, keep, rate, root, epsilon, gain_a;
};

// Every block makes the norm of the same sums. Where it is not finite only the gradient changes: it is zero afterwards.
extern "C" __global__ void __launch_bounds__(THREADS) adamw(Step step, const double* partials, int parts, u64 count, float* numbers,
                                                            float* first, float* second, float* average, float* gradient,
                                                            double* norm_out) {
    after_predecessor();
    double sum = 0;
    for (int i = threadIdx.x; i < parts; i += THREADS) sum += partials[i];
    double norm = sqrt(block_sum(sum));
    if (blockIdx.x == 0 && threadIdx.x == 0) *norm_out = norm;
    bool finite = norm <= 1.7976931348623157e308;
    float clip = (float)fmin(step.largest / (norm + 1e-6), 1.);
    for (u64 i = blockIdx.x * (u64)THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {
        float g = clip * gradient[i];
        gradient[i] = 0.f;
        if (!finite) continue;
        float m = first[i], v = second[i], w = numbers[i], a = average[i];
        m += step.gain_1 * (g - m);
        v = step.beta_2 * v + step.gain_2 * g * g;
        w = step.keep * w - step.rate * (m / (sqrtf(v) / step.root + step.epsilon));
        a += step.gain_a * (w - a);
        first[i] = m, second[i] = v, numbers[i] = w, average[i] = a;
    }
}

// Filters in the flat vector, `[out][in][taps]`, and a part of the rows that a convolution reads: see `conv/weights.rs`.
struct Filters {
    element* to;
    u32 from;
    u32 inputs, taps, channel;  // of the whole layer; the first channel of this part
    u32 rows, columns;          // of this part
    u32 depth, start;           // of a row; where in it this part begins
    u32 transposed, interleaved;
};
extern "C" __global__ void __launch_bounds__(THREADS) pack_filters(const Filters* table, const float* numbers) {
    after_predecessor();
    Filters f = table[blockIdx.y];
    const u32 block = 128 * 8 / ELEMENT_BITS;
    u32 slots = f.interleaved ? (f.rows + 31) / 32 * 32 : f.rows, count = slots * f.taps * f.columns;
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS) {
        u32 channel = i % f.columns, tap = i / f.columns % f.taps, slot = i / f.columns / f.taps;
        u32 row = f.interleaved ? slot / 32 * 32 + slot % 8 / 2 * 8 + slot % 32 / 8 * 2 + slot % 2 : slot;
        if (row >= f.rows) continue;
        u32 output = f.transposed ? channel : row, input = f.channel + (f.transposed ? row : channel);
        u32 from_tap = f.transposed ? f.taps - 1 - tap : tap;
        float v = numbers[f.from + ((size_t)output * f.inputs + input) * f.taps + from_tap];
        size_t to = (size_t)slot * f.depth + f.start + (channel / block * f.taps + tap) * block + channel % block;
#if ELEMENT_BITS == 16
        f.to[to] = (element)pack_halves(v, 0.f);
#elif ROUND_TF32
        f.to[to] = round_tf32(v);
#else
        f.to[to] = v;
#endif
    }
}

// Sums of the biases of up to two layers.
struct Biases {
    float* to;
    u32 first, second, count;  // `second` is NOWHERE where there is one layer
};
#define NOWHERE 0xffffffffu
extern "C" __global__ void __launch_bounds__(THREADS) pack_biases(const Biases* table, const float* numbers) {
    after_predecessor();
    Biases b = table[blockIdx.x];
    for (u32 i = threadIdx.x; i < b.count; i += THREADS)
        b.to[i] = numbers[b.first + i] + (b.second == NOWHERE ? 0.f : numbers[b.second + i]);
}
