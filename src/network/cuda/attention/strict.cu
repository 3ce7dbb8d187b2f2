// Attention in f32 without tensor cores, on any device: the same two functions, layouts and grids as the fast kernels.
//
// A block owns TILE rows and visits the other side TILE pixels at a time. Four threads share a row: thread `part` of them holds
// the logits of columns part, part + 4, ..; and of every 16 channels of the result the four from 4 * part.

typedef float Element;

constexpr int TILE = 32;
constexpr int THREADS = 4 * TILE;
constexpr int HELD = TILE / 4;
// Channels of a head rounded up, and how many of them one block writes.
constexpr int PADDED = (DEPTH + 15) / 16 * 16;
__device__ constexpr int widest_slice(int width) { return width <= 128 && PADDED % width == 0 ? width : widest_slice(width - 16); }
constexpr int SLICE = widest_slice(PADDED);
constexpr int SLICES = PADDED / SLICE;
// Channels multiplied at a time, and rows that start in different banks.
constexpr int CHUNK = 32;
constexpr int PITCH = CHUNK + 4;
constexpr int WEIGHT_PITCH = TILE + 1;

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#ifndef SHARED_MEMORY
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#endif

// A matrix [pixel][channel] in global memory.
struct Matrix {
    const float* at;
    long long stride;
};

__device__ __forceinline__ float row_exchange(float x, int lane_mask) { return __shfl_xor_sync(0xffffffffu, x, lane_mask); }

// Pixels first.., WIDE channels from `channel`; zeros beyond the last pixel or channel.
template <int WIDE, int TILE_PITCH>
__device__ __forceinline__ void copy_rows(float* tile, Matrix from, int first, int pixels, int channel) {
    for (int at = threadIdx.x; at < TILE * (WIDE / 4); at += THREADS) {
        const int row = at / (WIDE / 4), column = at % (WIDE / 4) * 4;
        const bool inside = first + row < pixels && channel + column < DEPTH;
        *reinterpret_cast<float4*>(tile + row * TILE_PITCH + column) =
            inside ? *reinterpret_cast<const float4*>(from.at + (first + row) * from.stride + channel + column) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// sums = x y^T, its row of this thread, columns part + 4 i. `chunks` holds 2 * TILE * PITCH floats, free for all before and after.
__device__ __forceinline__ void products(float (&sums)[HELD], float* chunks, Matrix x, int x_first, Matrix y, int y_first, int pixels) {
    const int row = threadIdx.x / 4, part = threadIdx.x % 4;
    float* const other = chunks + TILE * PITCH;
#pragma unroll
    for (int i = 0; i < HELD; i++) sums[i] = 0.0f;
    for (int channel = 0; channel < DEPTH; channel += CHUNK) {
        copy_rows<CHUNK, PITCH>(chunks, x, x_first, pixels, channel);
        copy_rows<CHUNK, PITCH>(other, y, y_first, pixels, channel);
        __syncthreads();
#pragma unroll
        for (int at = 0; at < CHUNK; at += 4) {
            const float4 a = *reinterpret_cast<const float4*>(chunks + row * PITCH + at);
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                const float4 b = *reinterpret_cast<const float4*>(other + (part + 4 * i) * PITCH + at);
                sums[i] = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sums[i]))));
            }
        }
        __syncthreads();
    }
}

// total += p y, y the TILE pixels from `first`, its SLICE channels from `channel`.
__device__ __forceinline__ void accumulate(float (&total)[SLICE / 4], const float (&p)[HELD], float* weights, float* slice, Matrix y, int first,
                                           int pixels, int channel) {
    const int row = threadIdx.x / 4, part = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < HELD; i++) weights[row * WEIGHT_PITCH + part + 4 * i] = p[i];
    copy_rows<SLICE, SLICE>(slice, y, first, pixels, channel);
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < TILE; j++) {
        const float weight = weights[row * WEIGHT_PITCH + j];
#pragma unroll
        for (int i = 0; i < SLICE / 16; i++) {
            const float4 b = *reinterpret_cast<const float4*>(slice + j * SLICE + 16 * i + 4 * part);
            total[4 * i] = fmaf(weight, b.x, total[4 * i]);
            total[4 * i + 1] = fmaf(weight, b.y, total[4 * i + 1]);
            total[4 * i + 2] = fmaf(weight, b.z, total[4 * i + 2]);
            total[4 * i + 3] = fmaf(weight, b.w, total[4 * i + 3]);
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void store_row(float* to, long long stride, const float (&total)[SLICE / 4], float scale, int first, int pixels,
                                          int channel) {
    const int pixel = first + threadIdx.x / 4, part = threadIdx.x % 4;
    if (pixel >= pixels) return;
#pragma unroll
    for (int i = 0; i < SLICE / 4; i++) {
        const int at = channel + i / 4 * 16 + 4 * part + i % 4;
        if (at < DEPTH) to[pixel * stride + at] = total[i] * scale;
    }
}

constexpr int FLOATS = 2 * TILE * PITCH + TILE * WEIGHT_PITCH + TILE * SLICE;

extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(const float* __restrict__ qkv, float* __restrict__ out,
                                                                        float* __restrict__ lse, int pixels, int heads) {
    SHARED_MEMORY(memory);
    float* const chunks = reinterpret_cast<float*>(memory);
    float* const slice = chunks + 2 * TILE * PITCH;
    float* const weights = slice + TILE * SLICE;

    const int head = blockIdx.y / SLICES, channel = blockIdx.y % SLICES * SLICE, part = threadIdx.x % 4;
    const long long channels = heads * DEPTH, stride = 3 * channels;
    const Matrix q = {qkv + blockIdx.z * pixels * stride + head * DEPTH, stride}, k = {q.at + channels, stride}, v = {k.at + channels, stride};
    const int first = blockIdx.x * TILE;
    const float scale = LOG2_E / sqrtf(static_cast<float>(DEPTH));
    float largest = __int_as_float(0xff800000), total = 0.0f, sums[SLICE / 4];
#pragma unroll
    for (int i = 0; i < SLICE / 4; i++) sums[i] = 0.0f;

    for (int begin = 0; begin < pixels; begin += TILE) {
        float logits[HELD], top = largest, sum = 0.0f;
        products(logits, chunks, q, first, k, begin, pixels);
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            logits[i] = begin + part + 4 * i < pixels ? logits[i] * scale : __int_as_float(0xff800000);
            top = fmaxf(top, logits[i]);
        }
        top = fmaxf(top, row_exchange(top, 1));
        top = fmaxf(top, row_exchange(top, 2));
        const float fade = exp2f(largest - top);
        largest = top;
#pragma unroll
        for (int i = 0; i < HELD; i++) sum += logits[i] = exp2f(logits[i] - top);
        total = fmaf(total, fade, sum);
#pragma unroll
        for (int i = 0; i < SLICE / 4; i++) sums[i] *= fade;
        accumulate(sums, logits, weights, slice, v, begin, pixels, channel);
    }
    total += row_exchange(total, 1);
    total += row_exchange(total, 2);
    const int pixel = first + threadIdx.x / 4;
    if (lse && channel == 0 && part == 0 && pixel < pixels)
        lse[(static_cast<long long>(blockIdx.z) * heads + head) * pixels + pixel] = largest * LN_2 + logf(total);
    store_row(out + blockIdx.z * pixels * channels + head * DEPTH, channels, sums, 1.0f / total, first, pixels, channel);
}

// As in backward.cu: keys own (k, v) and visit (q, d_out), queries own (q, d_out) and visit (k, v).
template <bool KEYS>
__device__ __forceinline__ void pull_back(float* chunks, Matrix x, Matrix y, Matrix u, Matrix w, const float2* statistics, float* dx, float* dy,
                                          long long stride, int first, int pixels, int channel) {
    float* const slice = chunks + 2 * TILE * PITCH;
    float* const weights = slice + TILE * SLICE;
    const int pixel = first + threadIdx.x / 4, part = threadIdx.x % 4;
    const float scale = LOG2_E / sqrtf(static_cast<float>(DEPTH));
    const float2 own = !KEYS && pixel < pixels ? statistics[pixel] : make_float2(0.0f, 0.0f);
    float x_sums[SLICE / 4], y_sums[SLICE / 4];
#pragma unroll
    for (int i = 0; i < SLICE / 4; i++) x_sums[i] = y_sums[i] = 0.0f;

    for (int begin = 0; begin < pixels; begin += TILE) {
        float p[HELD], ds[HELD];
        products(p, chunks, x, first, u, begin, pixels);
        products(ds, chunks, y, first, w, begin, pixels);
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int column = begin + part + 4 * i;
            const float2 row = KEYS ? statistics[column < pixels ? column : 0] : own;
            p[i] = column < pixels ? exp2f(fmaf(p[i], scale, -row.x)) : 0.0f;
            ds[i] = p[i] * (ds[i] - row.y);
        }
        if (KEYS) accumulate(y_sums, p, weights, slice, w, begin, pixels, channel);
        accumulate(x_sums, ds, weights, slice, u, begin, pixels, channel);
    }
    store_row(dx, stride, x_sums, scale * LN_2, first, pixels, channel);
    if (KEYS) store_row(dy, stride, y_sums, 1.0f, first, pixels, channel);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_backward(const float* __restrict__ qkv, const float* __restrict__ d_out,
                                                                         const float2* __restrict__ statistics, float* __restrict__ d_qkv,
                                                                         int pixels, int heads) {
    SHARED_MEMORY(memory);
    float* const chunks = reinterpret_cast<float*>(memory);
    const int head = blockIdx.y / SLICES, channel = blockIdx.y % SLICES * SLICE, tiles = gridDim.x / 2;
    const long long channels = heads * DEPTH, stride = 3 * channels, item = static_cast<long long>(blockIdx.z) * pixels;
    const Matrix q = {qkv + item * stride + head * DEPTH, stride}, k = {q.at + channels, stride}, v = {k.at + channels, stride};
    const Matrix gradient = {d_out + item * channels + head * DEPTH, channels};
    float* const dq = d_qkv + item * stride + head * DEPTH;
    const float2* const queries = statistics + item * heads + static_cast<long long>(head) * pixels;
    const int first = blockIdx.x % tiles * TILE;
    if (blockIdx.x < tiles)
        pull_back<true>(chunks, k, v, q, gradient, queries, dq + channels, dq + 2 * channels, stride, first, pixels, channel);
    else
        pull_back<false>(chunks, q, gradient, k, v, queries, dq, dq, stride, first, pixels, channel);
}
