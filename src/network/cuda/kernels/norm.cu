// Group norm with SiLU and resampling, and its transpose, NHWC. A thread keeps eight channels and walks over pixels; a block
// has up to 32 such vectors (blockIdx.z counts blocks of 256 channels), blockIdx.y counts images.
//
//   y = S f(a x + b),  f = SiLU or the identity, S = nothing, 2x2 repetition or 2x2 mean; a, b per image and channel
//   dx = a g + p + q x + r,  g = f'(a x + b) S^T d,  p and q per image and group, r another gradient

enum Resampling { SAME = 0, UP = 1, DOWN = 2 };

struct Lanes {
    int vectors, rows, vector, row, channel;
    bool active;
};
__device__ __forceinline__ Lanes lanes(int channels) {
    Lanes l;
    int first = blockIdx.z * 32;
    l.vectors = min(32, channels / 8 - first);
    l.rows = blockDim.x / l.vectors;
    l.vector = threadIdx.x % l.vectors;
    l.row = threadIdx.x / l.vectors;
    l.channel = (first + l.vector) * 8;
    l.active = l.row < l.rows;
    return l;
}

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
    if (l.active)
        for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
            float v[8];
            load8(at(x, (size_t)blockIdx.y * pixels + i, l.channel), v);
#pragma unroll
            for (int k = 0; k < 8; k++) sum[k] += v[k], sum2[k] += v[k] * v[k];
        }
    store_sums(l, sum, sum2, partials, channels);
}

#define THREADS 256

// The sum over a block of 256 threads, in every thread, in a fixed order.
__device__ __forceinline__ double2 block_sum(double2 v) {
    __shared__ double2 shared[THREADS / 32];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) v.x += __shfl_xor_sync(~0u, v.x, n), v.y += __shfl_xor_sync(~0u, v.y, n);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = v;
    __syncthreads();
    double2 sum = shared[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++) sum.x += shared[i].x, sum.y += shared[i].y;
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
extern "C" __global__ void __launch_bounds__(THREADS) coefficients(const float2* first, int first_rows, int first_channels,
                                                                   const float2* second, int second_rows, int channels,
                                                                   int pixels, float eps, const float* weight,
                                                                   const float* bias, const float* scale_shift, float4* out,
                                                                   float2* moments) {
    after_predecessor();
    int groups = gridDim.x, group = blockIdx.x, image = blockIdx.y, width = channels / groups;
    double2 sum = make_double2(0., 0.);
    int c0 = group * width, c1 = c0 + width;
    int split = min(max(first_channels, c0), c1), second_channels = channels - first_channels;
    auto add = [&](int, float2 v) { sum.x += v.x, sum.y += v.y; };
    if (split > c0) for_sums(first + (size_t)image * first_rows * first_channels + c0, first_rows, first_channels, split - c0, add);
    if (c1 > split)
        for_sums(second + (size_t)image * second_rows * second_channels + split - first_channels, second_rows, second_channels, c1 - split, add);
    sum = block_sum(sum);
    double count = (double)pixels * width, mean = sum.x / count;
    double variance = fmax(sum.y / count - mean * mean, 0.);
    float rstd = (float)(1. / sqrt(variance + (double)eps));
    if (threadIdx.x == 0) moments[image * groups + group] = make_float2((float)mean, rstd);
    for (int c = c0 + threadIdx.x; c < c1; c += THREADS) {
        float w = weight[c], b = bias[c];
        if (scale_shift) {
            float s = 1.f + scale_shift[c];
            w *= s, b = b * s + scale_shift[channels + c];
        }
        float a = w * rstd;
        out[(size_t)image * channels + c] = make_float4(a, (float)((double)b - mean * (double)a), 0.f, 0.f);
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
    double2 sum = make_double2(0., 0.);
    for_sums(partials + (size_t)image * rows * channels + c0, rows, channels, width, [&](int c, float2 v) {
        double a = mine[c].x;
        sum.x += a * v.x, sum.y += a * ((double)v.y - (double)m.x * v.x);
    });
    sum = block_sum(sum);
    double count = (double)pixels * width;
    double s1 = sum.x / count, s2 = sum.y * m.y / count;
    float p = (float)(m.x * m.y * s2 - s1), q = (float)(-m.y * s2);
    for (int c = threadIdx.x; c < width; c += THREADS) mine[c].z = p, mine[c].w = q;
}

struct Target {
    element* first;
    element* second;
    int first_pitch, second_pitch, split;
};
__device__ __forceinline__ element* at(const Target& t, size_t pixel, int channel) {
    return channel < t.split ? t.first + pixel * t.first_pitch + channel
                             : t.second + pixel * t.second_pitch + (channel - t.split);
}

// height and width are those of x. `pooled`, for DOWN: the 2x2 means of x itself, or null.
extern "C" __global__ void __launch_bounds__(256) apply(Joined x, const float4* coefficients, int use_silu, int resampling,
                                                        int height, int width, int channels, int per_block, element* y,
                                                        element* pooled) {
    after_predecessor();
    Lanes l = lanes(channels);
    if (!l.active) return;
    float a[8], b[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float2 c = coefficients ? *(const float2*)(coefficients + (size_t)blockIdx.y * channels + l.channel + k) : make_float2(1.f, 0.f);
        a[k] = c.x, b[k] = c.y;
    }
    int steps = resampling == DOWN ? height / 2 * (width / 2) : height * width;
    int end = min(steps, (int)(blockIdx.x + 1) * per_block);
    size_t base = (size_t)blockIdx.y * height * width;
#pragma unroll 4
    for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
        float v[8];
        if (resampling != DOWN) {
            load8(at(x, base + i, l.channel), v);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                v[k] = a[k] * v[k] + b[k];
                if (use_silu) v[k] = silu(v[k]);
            }
            if (resampling == SAME) {
                store8_operand(y + (base + i) * channels + l.channel, v);
            } else {
                size_t to = ((size_t)blockIdx.y * height * 2 + i / width * 2) * (width * 2) + i % width * 2;
#pragma unroll
                for (int q = 0; q < 4; q++)
                    store8_operand(y + (to + q / 2 * (width * 2) + q % 2) * channels + l.channel, v);
            }
        } else {
            float mean[8], raw[8];
#pragma unroll
            for (int k = 0; k < 8; k++) mean[k] = raw[k] = 0.f;
            size_t from = base + (size_t)(i / (width / 2)) * 2 * width + i % (width / 2) * 2;
#pragma unroll
            for (int q = 0; q < 4; q++) {
                load8(at(x, from + q / 2 * width + q % 2, l.channel), v);
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    raw[k] += 0.25f * v[k];
                    float w = a[k] * v[k] + b[k];
                    mean[k] += 0.25f * (use_silu ? silu(w) : w);
                }
            }
            size_t to = ((size_t)blockIdx.y * steps + i) * channels + l.channel;
            store8_operand(y + to, mean);
            if (pooled) store8(pooled + to, raw);
        }
    }
}

// S^T d at pixel i of an image of the size of x.
__device__ __forceinline__ void resampled_gradient(const element* d, int resampling, int height, int width, int i, int channels,
                                                   int channel, float* g) {
    size_t image = blockIdx.y;
    if (resampling == SAME) {
        load8(d + (image * height * width + i) * channels + channel, g);
    } else if (resampling == UP) {
        size_t from = (image * height * 2 + i / width * 2) * (width * 2) + i % width * 2;
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) g[k] = 0.f;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            load8(d + (from + q / 2 * (width * 2) + q % 2) * channels + channel, v);
#pragma unroll
            for (int k = 0; k < 8; k++) g[k] += v[k];
        }
    } else {
        size_t from = (image * (height / 2) + i / width / 2) * (width / 2) + i % width / 2;
        load8(d + from * channels + channel, g);
#pragma unroll
        for (int k = 0; k < 8; k++) g[k] *= 0.25f;
    }
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
        for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
            float v[8], g[8];
            load8(at(x, (size_t)blockIdx.y * pixels + i, l.channel), v);
            resampled_gradient(d, resampling, height, width, i, channels, l.channel, g);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                if (use_silu) g[k] *= silu_slope(c[k].x * v[k] + c[k].y);
                sum[k] += g[k], sum2[k] += g[k] * v[k];
            }
        }
    }
    store_sums(l, sum, sum2, partials, channels);
}

// `through`: d is the gradient behind f and S, so that g is still to be found; otherwise d is g. Without coefficients: dx = S^T d + r.
extern "C" __global__ void __launch_bounds__(256) apply_backward(Joined x, const element* d, const float4* coefficients, int through,
                                                                 int use_silu, int resampling, int height, int width, int channels,
                                                                 int per_block, Joined r, Target dx) {
    after_predecessor();
    Lanes l = lanes(channels);
    if (!l.active) return;
    float4 c[8];
#pragma unroll
    for (int k = 0; k < 8; k++)
        c[k] = coefficients ? coefficients[(size_t)blockIdx.y * channels + l.channel + k] : make_float4(1.f, 0.f, 0.f, 0.f);
    int pixels = height * width, end = min(pixels, (int)(blockIdx.x + 1) * per_block);
    bool has_r = l.channel < r.split ? r.first != 0 : r.second != 0;
#pragma unroll 2
    for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
        float g[8], v[8];
        size_t pixel = (size_t)blockIdx.y * pixels + i;
        if (through) {
            resampled_gradient(d, resampling, height, width, i, channels, l.channel, g);
        } else {
            load8(d + pixel * channels + l.channel, g);
        }
        if (coefficients) {
            load8(at(x, pixel, l.channel), v);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                if (through && use_silu) g[k] *= silu_slope(c[k].x * v[k] + c[k].y);
                g[k] = c[k].x * g[k] + (c[k].z + c[k].w * v[k]);
            }
        }
        if (has_r) {
            load8(at(r, pixel, l.channel), v);
#pragma unroll
            for (int k = 0; k < 8; k++) g[k] += v[k];
        }
        store8_operand(at(dx, pixel, l.channel), g);
    }
}
