// What a norm and its transpose need to know of a whole image: sums over pixels, and the coefficients made of them.

// Adds up the rows of a block in a fixed order and stores one row of sums.
__device__ __forceinline__ void store_sums(const Lanes& l, float* sum, float* sum2, float* partials, int channels) {
    __shared__ float2 shared[256 * 8];
    if (l.active)
#pragma unroll
        for (int k = 0; k < 8; k++) shared[(l.row * l.vectors + l.vector) * 8 + k] = make_float2(sum[k], sum2[k]);
    __syncthreads();
    for (int c = threadIdx.x; c < l.vectors * 8; c += blockDim.x) {
        float a = 0.f, b = 0.f;
        for (int r = 0; r < l.rows; r++) {
            float2 v = shared[r * l.vectors * 8 + c];
            a += v.x, b += v.y;
        }
        size_t to = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * channels + blockIdx.z * 256 + c;
        ((float2*)partials)[to] = make_float2(a, b);
    }
}

extern "C" __global__ void __launch_bounds__(256) sums(Joined x, int pixels, int channels, int per_block, float* partials) {
    after_predecessor();
    Lanes l = lanes(channels);
    float sum[8], sum2[8];
#pragma unroll
    for (int k = 0; k < 8; k++) sum[k] = sum2[k] = 0.f;
    int end = min(pixels, (int)(blockIdx.x + 1) * per_block);
    if (l.active) {
        Line<const element> from = line_of(x, l.channel);
#pragma unroll 4
        for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
            float v[8];
            load8(from.at((size_t)blockIdx.y * pixels + i), v);
#pragma unroll
            for (int k = 0; k < 8; k++) sum[k] += v[k], sum2[k] += v[k] * v[k];
        }
    }
    store_sums(l, sum, sum2, partials, channels);
}

#define THREADS 256

// The sum over a block of 256 threads, in every thread, in a fixed order.
__device__ __forceinline__ wide2 block_sum(wide2 v) {
    __shared__ wide2 shared[THREADS / 32];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) v.x += __shfl_xor_sync(~0u, v.x, n), v.y += __shfl_xor_sync(~0u, v.y, n);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    wide2 sum = shared[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) sum = sum + shared[i];
    return sum;
}

// Adds up `width` neighbouring channels of all rows: f(channel, sums).
template <typename F>
__device__ __forceinline__ void for_sums(const float2* partials, int rows, int channels, int width, F f) {
    // Width is a power of two or small: threads keep their channel where it divides their number.
    if (THREADS % width == 0) {
        int c = threadIdx.x % width;
#pragma unroll 8
        for (int r = threadIdx.x / width; r < rows; r += THREADS / width) f(c, partials[(size_t)r * channels + c]);
    } else {
        for (int i = threadIdx.x; i < width * rows; i += THREADS) f(i % width, partials[(size_t)(i / width) * channels + i % width]);
    }
}

// One block per (group, image): from sums over pixels to the affine map of every channel.
extern "C" __global__ void __launch_bounds__(THREADS) coefficients(Statistics s) {
    int group = blockIdx.x, image = blockIdx.y, width = s.channels / s.groups;
    int c0 = group * width, c1 = c0 + width, c = c0 + threadIdx.x;
    // The layer's constants depend on no kernel.
    float w = c < c1 ? s.weight[c] : 0.f, b = c < c1 ? s.bias[c] : 0.f;
    after_predecessor();
    wide2 sum = {0, 0};
    int split = min(max(s.first_channels, c0), c1), second_channels = s.channels - s.first_channels;
    auto add = [&](int, float2 v) { sum.x += v.x, sum.y += v.y; };
    if (split > c0)
        for_sums(s.first + (size_t)image * s.first_rows * s.first_channels + c0, s.first_rows, s.first_channels, split - c0, add);
    if (c1 > split)
        for_sums(s.second + (size_t)image * s.second_rows * second_channels + split - s.first_channels, s.second_rows, second_channels, c1 - split, add);
    float rstd;
    wide mean = mean_of(block_sum(sum), (wide)s.pixels * width, s.eps, &rstd);
    if (threadIdx.x == 0) s.moments[image * s.groups + group] = make_float2((float)mean, rstd);
    const float* scale_shift = s.scale_shift ? s.scale_shift + (size_t)image * s.scale_shift_stride : 0;
    // A group has at most as many channels as the block has threads, or its threads go round.
    for (; c < c1; c += THREADS) {
        if (c >= c0 + THREADS) w = s.weight[c], b = s.bias[c];
        float2 ab = affine_of(mean, rstd, w, b, scale_shift ? scale_shift[c] : 0.f, scale_shift ? scale_shift[s.channels + c] : 0.f);
        s.out[(size_t)image * s.channels + c] = make_float4(ab.x, ab.y, 0.f, 0.f);
    }
}

// The same for the transpose: from the sums of g and g x to p and q.
extern "C" __global__ void __launch_bounds__(THREADS) coefficients_backward(const float2* partials, int rows, int channels, int pixels,
                                                                            const float2* moments, float4* coefficients) {
    after_predecessor();
    int groups = gridDim.x, group = blockIdx.x, image = blockIdx.y, width = channels / groups;
    int c0 = group * width;
    float4* mine = coefficients + (size_t)image * channels + c0;
    float2 m = moments[image * groups + group];
    wide2 sum = {0, 0};
    for_sums(partials + (size_t)image * rows * channels + c0, rows, channels, width, [&](int c, float2 v) {
        wide a = mine[c].x;
        sum.x += a * v.x, sum.y += a * ((wide)v.y - (wide)m.x * v.x);
    });
    float2 pq = slopes_of(block_sum(sum), (wide)pixels * width, m);
    for (int c = threadIdx.x; c < width; c += THREADS) mine[c].z = pq.x, mine[c].w = pq.y;
}

extern "C" __global__ void __launch_bounds__(256) sums_backward(Joined x, const element* d, const float4* coefficients,
                                                                int use_silu, int resampling, int height, int width, int channels,
                                                                int per_block, float* partials) {
    after_predecessor();
    Lanes l = lanes(channels);
    float sum[8], sum2[8];
#pragma unroll
    for (int k = 0; k < 8; k++) sum[k] = sum2[k] = 0.f;
    int pixels = height * width, end = min(pixels, (int)(blockIdx.x + 1) * per_block);
    if (l.active) {
        const float4* c = coefficients + (size_t)blockIdx.y * channels + l.channel;
        Line<const element> from = line_of(x, l.channel);
        float2 half[8];
#pragma unroll
        for (int k = 0; k < 8; k++) half[k] = make_float2(0.5f * c[k].x, 0.5f * c[k].y);
#pragma unroll 4
        for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
            float v[8], g[8];
            load8(from.at((size_t)blockIdx.y * pixels + i), v);
            resampled_gradient(d, resampling, height, width, i, channels, l.channel, g);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                if (use_silu) g[k] *= silu_slope_at_twice(half[k].x * v[k] + half[k].y);
                sum[k] += g[k], sum2[k] += g[k] * v[k];
            }
        }
    }
    store_sums(l, sum, sum2, partials, channels);
}
