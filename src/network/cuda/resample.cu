// Half and twice the size of NHWC images: means and repeats of 2x2 pixels, and the filter [1, 3, 3, 1] along rows and columns with
// zeros outside (Karras et al., "Elucidating the design space of diffusion-based generative models", 2022, resample_filter).
//
// Every map is, up to a factor, the transpose of one of the others, so that `factor` makes forward and transposed passes:
//
//   mean            y[i] = factor * sum over the 2x2 pixels x[2 i + a] / 4
//   repeat          y[2 i + a] = factor * x[i];                             transpose of mean: factor 1/4; mean for its own: 4
//   smooth_half     y[i] = factor * (x[2 i - 1] + 3 x[2 i] + 3 x[2 i + 1] + x[2 i + 2]) / 8, in both axes
//   smooth_double   y[2 i] = factor * (x[i - 1] + 3 x[i]) / 4, y[2 i + 1] = factor * (3 x[i] + x[i + 1]) / 4, in both axes;
//                   transpose of smooth_half: factor 1/4; smooth_half for its own: 4
//
// `height`, `width`: the smaller image, in all of them. Pitches: numbers from one pixel to the next. One thread a pixel of the
// smaller image and VECTOR channels; channels and pitches are multiples of VECTOR, addresses of VECTOR numbers.
// Fewer than 2^31 threads. -DELEMENT=16 (bfloat16) or 32, -DVECTOR=8, 4 (16 bytes) or 1, -DACCUMULATE=1 adds to what y holds, otherwise 0.

#if ELEMENT == 16
typedef unsigned short Element;
#else
typedef float Element;
#endif

struct alignas(sizeof(Element) * VECTOR) Stored {
    Element at[VECTOR];
};

struct Values {
    float at[VECTOR];
};

__device__ __forceinline__ float widen(Element x) {
#if ELEMENT == 16
    return __uint_as_float(static_cast<unsigned>(x) << 16);
#else
    return x;
#endif
}

__device__ __forceinline__ Element narrow(float x) {
#if ELEMENT == 16
    unsigned short y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    return x;
#endif
}

__device__ __forceinline__ Values zeros() {
    Values y;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) y.at[i] = 0.0f;
    return y;
}

__device__ __forceinline__ Values load(const Element* from) {
    const Stored stored = *reinterpret_cast<const Stored*>(from);
    Values y;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) y.at[i] = widen(stored.at[i]);
    return y;
}

// a x + b y.
__device__ __forceinline__ Values blend(float a, const Values& x, float b, const Values& y) {
    Values z;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) z.at[i] = fmaf(a, x.at[i], b * y.at[i]);
    return z;
}

__device__ __forceinline__ void store(Element* to, const Values& x, float factor) {
    Stored stored;
    Values before = zeros();
    if (ACCUMULATE) before = load(to);
#pragma unroll
    for (int i = 0; i < VECTOR; i++) stored.at[i] = narrow(fmaf(factor, x.at[i], before.at[i]));
    *reinterpret_cast<Stored*>(to) = stored;
}

// What one thread works on; `inside` is false beyond the last.
struct Place {
    bool inside;
    int row, column, channel;
    long long item;
};

__device__ __forceinline__ Place place(int batch, int height, int width, int channels) {
    // Divisions of 32 bits: those of 64 would take longer than the memory.
    const unsigned groups = channels / VECTOR, at = blockIdx.x * blockDim.x + threadIdx.x, pixel = at / groups, row = pixel / width;
    const bool inside = at < groups * batch * height * width;
    return {inside, static_cast<int>(row % height), static_cast<int>(pixel % width), static_cast<int>(at % groups * VECTOR), row / height};
}

// An image of the batch, read as zeros outside of it.
struct Image {
    const Element* at;
    long long pitch;
    int height, width;

    __device__ __forceinline__ Values operator()(int row, int column) const {
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        return inside ? load(at + (static_cast<long long>(row) * width + column) * pitch) : zeros();
    }
};

#define ARGUMENTS                                                                                                              \
    const Element *__restrict__ x, Element *__restrict__ y, int batch, int height, int width, int channels, long long x_pitch, \
        long long y_pitch, float factor

extern "C" __global__ void __launch_bounds__(256) mean(ARGUMENTS) {
    const Place p = place(batch, height, width, channels);
    if (!p.inside) return;
    const Image from = {x + p.item * 4 * height * width * x_pitch + p.channel, x_pitch, 2 * height, 2 * width};
    const int i = 2 * p.row, j = 2 * p.column;
    const Values top = blend(1.0f, from(i, j), 1.0f, from(i, j + 1)), bottom = blend(1.0f, from(i + 1, j), 1.0f, from(i + 1, j + 1));
    store(y + ((p.item * height + p.row) * width + p.column) * y_pitch + p.channel, blend(0.25f, top, 0.25f, bottom), factor);
}

extern "C" __global__ void __launch_bounds__(256) repeat(ARGUMENTS) {
    const Place p = place(batch, height, width, channels);
    if (!p.inside) return;
    const Values value = load(x + ((p.item * height + p.row) * width + p.column) * x_pitch + p.channel);
    Element* const to = y + ((p.item * 2 * height + 2 * p.row) * 2 * width + 2 * p.column) * y_pitch + p.channel;
    store(to, value, factor);
    store(to + y_pitch, value, factor);
    store(to + 2 * width * y_pitch, value, factor);
    store(to + (2 * width + 1) * y_pitch, value, factor);
}

extern "C" __global__ void __launch_bounds__(256) smooth_half(ARGUMENTS) {
    const Place p = place(batch, height, width, channels);
    if (!p.inside) return;
    const Image from = {x + p.item * 4 * height * width * x_pitch + p.channel, x_pitch, 2 * height, 2 * width};
    Values sum = zeros();
#pragma unroll
    for (int a = -1; a < 3; a++) {
        const int i = 2 * p.row + a, j = 2 * p.column;
        const Values outer = blend(0.125f, from(i, j - 1), 0.125f, from(i, j + 2));
        const Values row = blend(0.375f, blend(1.0f, from(i, j), 1.0f, from(i, j + 1)), 1.0f, outer);
        sum = blend(a == 0 || a == 1 ? 0.375f : 0.125f, row, 1.0f, sum);
    }
    store(y + ((p.item * height + p.row) * width + p.column) * y_pitch + p.channel, sum, factor);
}

extern "C" __global__ void __launch_bounds__(256) smooth_double(ARGUMENTS) {
    const Place p = place(batch, height, width, channels);
    if (!p.inside) return;
    const Image from = {x + p.item * height * width * x_pitch + p.channel, x_pitch, height, width};
    Element* const to = y + ((p.item * 2 * height + 2 * p.row) * 2 * width + 2 * p.column) * y_pitch + p.channel;
    Values middle[3];
#pragma unroll
    for (int a = 0; a < 3; a++) middle[a] = from(p.row + a - 1, p.column);
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int column = p.column + 2 * side - 1;
        const Values own = blend(0.25f, from(p.row, column), 0.75f, middle[1]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const Values next = blend(0.25f, from(p.row + 2 * half - 1, column), 0.75f, middle[2 * half]);
            store(to + (2 * half * width + side) * y_pitch, blend(0.25f, next, 0.75f, own), factor);
        }
    }
}
