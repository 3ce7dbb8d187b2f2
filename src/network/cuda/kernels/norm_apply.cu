// One pass over an image with the norm's coefficients known: forward, and transposed.

// Small images have few rows of sums: each block then makes the coefficients of its own 64 channels, which costs less than a
// kernel more. A thread adds two channels of an eighth of the rows. A group has 2, 4, ... or 64 channels.
#define OWN 64

__device__ __forceinline__ int own_channel() { return blockIdx.z * OWN + threadIdx.x % 32 * 2; }
// The sums of the thread's two channels, of its rows: (x, y) and (z, w).
__device__ __forceinline__ void own_sums(const float2* first, int first_rows, int first_channels, const float2* second, int second_rows,
                                         int channels, wide2* sums) {
    int c = own_channel();
    bool join = c >= first_channels;
    int rows = join ? second_rows : first_rows, pitch = join ? channels - first_channels : first_channels;
    const float2* from = (join ? second + (c - first_channels) : first + c) + (size_t)blockIdx.y * rows * pitch;
    sums[0] = sums[1] = {0, 0};
#pragma unroll 4
    for (int r = threadIdx.x / 32; r < rows; r += 8) {
        float4 v = *(const float4*)(from + (size_t)r * pitch);
        sums[0].x += v.x, sums[0].y += v.y, sums[1].x += v.z, sums[1].y += v.w;
    }
}
// The sum over the group of channel threadIdx.x, for the first 64 threads, in a fixed order.
__device__ __forceinline__ wide2 own_group(wide2 v, int width) {
    __shared__ wide2 shared[8][OWN / 2];
    for (int n = 1; n < width / 2; n *= 2) v.x += __shfl_xor_sync(~0u, v.x, n), v.y += __shfl_xor_sync(~0u, v.y, n);
    shared[threadIdx.x / 32][threadIdx.x % 32] = v;
    __syncthreads();
    wide2 sum = {0, 0};
    if (threadIdx.x < OWN)
#pragma unroll
        for (int i = 0; i < 8; i++) sum = sum + shared[i][threadIdx.x / 2];
    return sum;
}
// (a, b) of the block's channels. The first block of each leaves them for the transpose.
__device__ __forceinline__ const float2* own_coefficients(const Statistics& s) {
    __shared__ float2 own[OWN];
    int c = blockIdx.z * OWN + threadIdx.x, width = s.channels / s.groups;
    // The layer's constants depend on no kernel.
    float w = threadIdx.x < OWN ? s.weight[c] : 0.f, b = threadIdx.x < OWN ? s.bias[c] : 0.f;
    after_predecessor();
    float scale = 0.f, shift = 0.f;
    if (threadIdx.x < OWN && s.scale_shift) {
        const float* scale_shift = s.scale_shift + (size_t)blockIdx.y * s.scale_shift_stride;
        scale = scale_shift[c], shift = scale_shift[s.channels + c];
    }
    wide2 sums[2];
    own_sums(s.first, s.first_rows, s.first_channels, s.second, s.second_rows, s.channels, sums);
    wide2 sum = own_group(sums[0] + sums[1], width);
    if (threadIdx.x < OWN) {
        float rstd;
        wide mean = mean_of(sum, (wide)s.pixels * width, s.eps, &rstd);
        float2 ab = affine_of(mean, rstd, w, b, scale, shift);
        own[threadIdx.x] = ab;
        if (blockIdx.x == 0) {
            s.out[(size_t)blockIdx.y * s.channels + c] = make_float4(ab.x, ab.y, 0.f, 0.f);
            if (c % width == 0) s.moments[blockIdx.y * s.groups + c / width] = make_float2((float)mean, rstd);
        }
    }
    __syncthreads();
    return own;
}
// (p, q) of the block's channels, from the sums of g and g x.
__device__ __forceinline__ const float2* own_slopes(const float2* rows_of, int rows, const float2* moments, int groups, int pixels,
                                                    const float4* coefficients, int channels) {
    __shared__ float2 own[OWN];
    int c = own_channel(), width = channels / groups;
    wide mean = moments[blockIdx.y * groups + c / width].x;
    wide a0 = coefficients[(size_t)blockIdx.y * channels + c].x, a1 = coefficients[(size_t)blockIdx.y * channels + c + 1].x;
    c = blockIdx.z * OWN + threadIdx.x;
    float2 m = threadIdx.x < OWN ? moments[blockIdx.y * groups + c / width] : make_float2(0.f, 0.f);
    wide2 sums[2];
    own_sums(rows_of, rows, channels, rows_of, rows, channels, sums);
    wide2 sum = {a0 * sums[0].x + a1 * sums[1].x, a0 * (sums[0].y - mean * sums[0].x) + a1 * (sums[1].y - mean * sums[1].x)};
    sum = own_group(sum, width);
    if (threadIdx.x < OWN) own[threadIdx.x] = slopes_of(sum, (wide)pixels * width, m);
    __syncthreads();
    return own;
}

// height and width are those of x. `pooled`, for DOWN: the 2x2 means of x itself, or null.
extern "C" __global__ void __launch_bounds__(256) apply(Joined x, Statistics s, const float4* coefficients, int use_silu,
                                                        int resampling, int height, int width, int channels, int per_block,
                                                        element* y, element* pooled) {
    const float2* own = 0;
    if (s.first) {
        own = own_coefficients(s);
    } else {
        after_predecessor();
    }
    Lanes l = lanes(channels, own ? OWN / 8 : 32);
    if (!l.active) return;
    float a[8], b[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        float2 c = own            ? own[l.vector * 8 + k]
                   : coefficients ? *(const float2*)(coefficients + (size_t)blockIdx.y * channels + l.channel + k)
                                  : make_float2(1.f, 0.f);
        a[k] = c.x, b[k] = c.y;
    }
    int steps = resampling == DOWN ? height / 2 * (width / 2) : height * width;
    int end = min(steps, (int)(blockIdx.x + 1) * per_block);
    size_t base = (size_t)blockIdx.y * height * width;
    Line<const element> from = line_of(x, l.channel);
    if (resampling != DOWN) {
        for (int first = blockIdx.x * per_block + l.row; first < end; first += TOGETHER * l.rows) {
            Raw<8> reads[TOGETHER];
#pragma unroll
            for (int t = 0; t < TOGETHER; t++)
                if (first + t * l.rows < end) reads[t] = load_raw<8>(from.at(base + first + t * l.rows));
#pragma unroll
            for (int t = 0; t < TOGETHER; t++) {
                int i = first + t * l.rows;
                if (i >= end) break;
                float v[8];
                unpack(reads[t], v);
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
            }
        }
    } else {
        for (int i = blockIdx.x * per_block + l.row; i < end; i += l.rows) {
            float mean[8], raw[8];
            Raw<8> reads[4];
            size_t corner = base + (size_t)(i / (width / 2)) * 2 * width + i % (width / 2) * 2;
#pragma unroll
            for (int q = 0; q < 4; q++) reads[q] = load_raw<8>(from.at(corner + q / 2 * width + q % 2));
#pragma unroll
            for (int k = 0; k < 8; k++) mean[k] = raw[k] = 0.f;
#pragma unroll
            for (int q = 0; q < 4; q++) {
                float v[8];
                unpack(reads[q], v);
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

struct Target {
    element* first;
    element* second;
    int first_pitch, second_pitch, split;
};
__device__ __forceinline__ Line<element> line_of(const Target& t, int channel) {
    if (channel < t.split) return {t.first + channel, (u32)t.first_pitch};
    return {t.second + (channel - t.split), (u32)t.second_pitch};
}

// What apply_backward and apply_backward_through share. `through`: d is the gradient behind f and S, so that g is still to be found;
// otherwise d is g. Without coefficients: dx = S^T d + r. With `sums`, each block makes p and q of its 64 channels, else they are known.
template <bool through>
__device__ __forceinline__ void transposed(const Joined& x, const element* d, const float4* coefficients, const float2* sums, int rows,
                                           const float2* moments, int groups, int use_silu, int resampling, int height, int width,
                                           int channels, int per_block, const Joined& r, const Target& dx) {
    after_predecessor();
    const float2* own = 0;
    if (!through && sums) own = own_slopes(sums, rows, moments, groups, height * width, coefficients, channels);
    Lanes l = lanes(channels, own ? OWN / 8 : 32);
    if (!l.active) return;
    float4 c[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        c[k] = coefficients ? coefficients[(size_t)blockIdx.y * channels + l.channel + k] : make_float4(1.f, 0.f, 0.f, 0.f);
        c[k].y *= 0.5f;
        if (own) c[k].z = own[l.vector * 8 + k].x, c[k].w = own[l.vector * 8 + k].y;
    }
    int pixels = height * width, end = min(pixels, (int)(blockIdx.x + 1) * per_block);
    size_t base = (size_t)blockIdx.y * pixels;
    Line<const element> from = line_of(x, l.channel), add = line_of(r, l.channel);
    Line<element> to = line_of(dx, l.channel);
    bool has_r = (l.channel < r.split ? r.first : r.second) != 0;
    const int together = TOGETHER / 2;
    for (int first = blockIdx.x * per_block + l.row; first < end; first += together * l.rows) {
        Raw<8> read_d[together], read_x[together], read_r[together];
#pragma unroll
        for (int t = 0; t < together; t++) {
            int i = first + t * l.rows;
            if (i >= end) break;
            if (!through || resampling == SAME) read_d[t] = load_raw<8>(d + (base + i) * channels + l.channel);
            if (coefficients) read_x[t] = load_raw<8>(from.at(base + i));
            if (has_r) read_r[t] = load_raw<8>(add.at(base + i));
        }
#pragma unroll
        for (int t = 0; t < together; t++) {
            int i = first + t * l.rows;
            if (i >= end) break;
            float g[8], v[8];
            if (through && resampling != SAME) {
                resampled_gradient(d, resampling, height, width, i, channels, l.channel, g);
            } else {
                unpack(read_d[t], g);
            }
            if (coefficients) {
                unpack(read_x[t], v);
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    if (through && use_silu) g[k] *= silu_slope_at_twice(0.5f * c[k].x * v[k] + c[k].y);
                    g[k] = c[k].x * g[k] + (c[k].z + c[k].w * v[k]);
                }
            }
            if (has_r) {
                unpack(read_r[t], v);
#pragma unroll
                for (int k = 0; k < 8; k++) g[k] += v[k];
            }
            store8_operand(to.at(base + i), g);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 3) apply_backward(Joined x, const element* d, const float4* coefficients,
                                                                    const float2* sums, int rows, const float2* moments, int groups,
                                                                    int height, int width, int channels, int per_block, Joined r,
                                                                    Target dx) {
    transposed<false>(x, d, coefficients, sums, rows, moments, groups, 0, SAME, height, width, channels, per_block, r, dx);
}
extern "C" __global__ void __launch_bounds__(256) apply_backward_through(Joined x, const element* d, const float4* coefficients,
                                                                         int use_silu, int resampling, int height, int width,
                                                                         int channels, int per_block, Joined r, Target dx) {
    transposed<true>(x, d, coefficients, 0, 0, 0, 0, use_silu, resampling, height, width, channels, per_block, r, dx);
}
