// Small kernels: vectors of the noise level, sums of images, and the change between [image, channel, y, x] and NHWC.

struct Numbers {
    float values[256];
};
extern "C" __global__ void place(Numbers numbers, int count, float* y) {
    after_predecessor();
    if (threadIdx.x < count) y[threadIdx.x] = numbers.values[threadIdx.x];
}

// y = W x + b: one warp per output.
extern "C" __global__ void __launch_bounds__(256) linear(const float* weight, const float* bias, const float* x, int inputs,
                                                         int outputs, float* y) {
    after_predecessor();
    int o = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (o >= outputs) return;
    float sum = 0.f;
    for (int i = lane; i < inputs; i += 32) sum += weight[(size_t)o * inputs + i] * x[i];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) sum += __shfl_xor_sync(~0u, sum, n);
    if (lane == 0) y[o] = sum + bias[o];
}
extern "C" __global__ void vector_silu(const float* x, int count, float* y) {
    after_predecessor();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = x[i] / (1.f + expf(-x[i]));
}

// y = (a + b + vector) * scale, the vector per channel and image; b and vector may be null. Pitches are those of a pixel.
extern "C" __global__ void add(const element* a, int a_pitch, const element* b, int b_pitch, const float* vector, int vector_stride,
                               int image_pixels, float scale, int channels, u64 pixels, element* y, int y_pitch) {
    after_predecessor();
    u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    int vectors = channels / 8;
    if (i >= pixels * vectors) return;
    u64 pixel = i / vectors;
    int channel = (int)(i % vectors) * 8;
    float v[8], w[8];
    load8(a + pixel * a_pitch + channel, v);
    if (b) {
        load8(b + pixel * b_pitch + channel, w);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] += w[k];
    }
    if (vector) {
        load8(vector + pixel / image_pixels * vector_stride + channel, w);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] += w[k];
    }
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] *= scale;
    store8_operand(y + pixel * y_pitch + channel, v);
}

// Zeros between the pixels: y[2 i, 2 j] = x[i, j]. Sizes are those of x.
extern "C" __global__ void spread(const element* x, int height, int width, int channels, u64 count, element* y) {
    after_predecessor();
    u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i >= count) return;
    int vectors = channels / 8, vector = (int)(i % vectors);
    u64 pixel = i / vectors;
    int column = (int)(pixel % (2 * width)), row = (int)(pixel / (2 * width) % (2 * height));
    u64 image = pixel / (2 * width) / (2 * height);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] = 0.f;
    if (row % 2 == 0 && column % 2 == 0)
        load8(x + ((image * height + row / 2) * width + column / 2) * channels + vector * 8, v);
    store8(y + pixel * channels + vector * 8, v);
}

// What an element cannot hold of a float.
__device__ __forceinline__ float rest_of(float v) {
#if ELEMENT_BITS == 16
    return v - low_half(pack_halves(v, 0.f));
#else
    return 0.f;
#endif
}
// [image, channel, pixel] float -> [image, pixel, padded channel]; the padding is zero. With `rest`, what the elements cannot hold.
extern "C" __global__ void enter(const float* x, int channels, int padded, int pixels, int images, int rest, element* y) {
    after_predecessor();
    u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i >= (u64)images * pixels * (padded / 8)) return;
    int vector = (int)(i / pixels % (padded / 8));
    u64 image = i / pixels / (padded / 8);
    int pixel = (int)(i % pixels);
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        int c = vector * 8 + k;
        v[k] = c < channels ? x[(image * channels + c) * pixels + pixel] : 0.f;
        if (rest) v[k] = rest_of(v[k]);
    }
    store8_operand(y + (image * pixels + pixel) * padded + vector * 8, v);
}
// [image, pixel, padded channel] -> [image, channel, pixel] float.
template <typename T>
__device__ __forceinline__ void leave(const T* x, int channels, int padded, int pixels, int images, float* y) {
    after_predecessor();
    u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (i >= (u64)images * pixels * channels) return;
    u64 image = i / pixels / channels;
    y[i] = value(x[(image * pixels + i % pixels) * padded + i / pixels % channels]);
}
extern "C" __global__ void leave_float(const float* x, int channels, int padded, int pixels, int images, float* y) {
    leave(x, channels, padded, pixels, images, y);
}
extern "C" __global__ void leave_element(const element* x, int channels, int padded, int pixels, int images, float* y) {
    leave(x, channels, padded, pixels, images, y);
}
