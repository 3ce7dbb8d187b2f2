// From sums over the pixels of every image to the gradients of numbers: norms, biases, and the vectors of a noise level, of which
// every image of a batch has its own. All sums are taken in a fixed order. What is found is added to what is there.

// Sums over a block's rows of 32 channels, in the first of them.
template <int ROWS>
__device__ __forceinline__ wide2 over_rows(wide2 v) {
    __shared__ wide2 shared[ROWS][32];
    int row = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    shared[row][lane] = v;
    __syncthreads();
    wide2 sum = shared[0][lane];
#pragma unroll
    for (int i = 1; i < ROWS; i++) sum = sum + shared[i][lane];
    return sum;
}

// [image][rows][channels] -> [image][channels]: one block per 32 channels and image.
extern "C" __global__ void __launch_bounds__(1024) channel_sums(const float2* partials, int rows, int channels, float2* sums) {
    after_predecessor();
    int channel = blockIdx.x * 32 + threadIdx.x % 32;
    wide2 sum = {0, 0};
    if (channel < channels) {
        const float2* from = partials + (size_t)blockIdx.y * rows * channels + channel;
#pragma unroll 4
        for (int r = threadIdx.x / 32; r < rows; r += 32) {
            float2 v = from[(size_t)r * channels];
            sum.x += v.x, sum.y += v.y;
        }
    }
    sum = over_rows<32>(sum);
    if (threadIdx.x < 32 && channel < channels)
        sums[(size_t)blockIdx.y * channels + channel] = make_float2((float)sum.x, (float)sum.y);
}

// Of a norm, from the sums of g and g x: with u = (x - mean) / deviation and z = (1 + scale) (w u + b) + shift, g is the gradient of z.
extern "C" __global__ void __launch_bounds__(256)
    norm_gradient(const float2* sums, const float2* moments, int images, int channels, int groups, const float* weight,
                  const float* bias, const float* scale_shift, float* d_scale_shift, int stride, float* d_weight, float* d_bias) {
    after_predecessor();
    int channel = blockIdx.x * 32 + threadIdx.x % 32, group = channel / (channels / groups);
    wide2 sum = {0, 0};
    if (channel < channels) {
        wide w = weight[channel], b = bias[channel];
        for (int image = threadIdx.x / 32; image < images; image += 8) {
            float2 s = sums[(size_t)image * channels + channel], m = moments[image * groups + group];
            wide gu = ((wide)s.y - (wide)m.x * s.x) * m.y, g = s.x, scale = 0;
            if (scale_shift) {
                size_t at = (size_t)image * stride + channel;
                scale = scale_shift[at];
                d_scale_shift[at] += (float)(w * gu + b * g);
                d_scale_shift[at + channels] += s.x;
            }
            sum.x += (1 + scale) * gu, sum.y += (1 + scale) * g;
        }
    }
    sum = over_rows<8>(sum);
    if (threadIdx.x < 32 && channel < channels) d_weight[channel] += (float)sum.x, d_bias[channel] += (float)sum.y;
}

// Of what was added to every pixel of an image: up to two biases, and a vector of every image. The first `count` channels exist.
extern "C" __global__ void __launch_bounds__(256) bias_gradient(const float2* sums, int images, int channels, int count,
                                                                float* d_vector, int stride, float* first, float* second) {
    after_predecessor();
    int channel = blockIdx.x * 32 + threadIdx.x % 32;
    wide2 sum = {0, 0};
    if (channel < count)
        for (int image = threadIdx.x / 32; image < images; image += 8) {
            float v = sums[(size_t)image * channels + channel].x;
            sum.x += v;
            if (d_vector) d_vector[(size_t)image * stride + channel] += v;
        }
    sum = over_rows<8>(sum);
    if (threadIdx.x < 32 && channel < count) {
        if (first) first[channel] += (float)sum.x;
        if (second) second[channel] += (float)sum.x;
    }
}

extern "C" __global__ void __launch_bounds__(256) set_zero(float* x, u64 count) {
    after_predecessor();
    for (u64 i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) x[i] = 0.f;
}

// Where the numbers of one output of a linear layer begin; `weight` is NOWHERE where there is no such output.
struct Row {
    u32 weight, bias;
};
#define NOWHERE 0xffffffffu

// All linear layers of one vector, y[image] = W x[image] + b: one warp per output.
extern "C" __global__ void __launch_bounds__(256) linear_layers(const float* numbers, const Row* rows, const float* x, int x_stride,
                                                                int inputs, int outputs, float* y, int y_stride) {
    after_predecessor();
    int o = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (o >= outputs) return;
    Row row = rows[o];
    const float* from = x + (size_t)blockIdx.y * x_stride;
    float sum = 0.f;
    if (row.weight != NOWHERE)
        for (int i = lane; i < inputs; i += 32) sum += numbers[row.weight + i] * from[i];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) sum += __shfl_xor_sync(~0u, sum, n);
    if (lane == 0) y[(size_t)blockIdx.y * y_stride + o] = row.weight == NOWHERE ? 0.f : sum + numbers[row.bias];
}

// Their numbers' gradients: one warp per output.
extern "C" __global__ void __launch_bounds__(256)
    linear_numbers_gradient(const Row* rows, const float* x, int x_stride, int inputs, int outputs, const float* d, int d_stride,
                            int images, float* gradient) {
    after_predecessor();
    int o = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (o >= outputs || rows[o].weight == NOWHERE) return;
    Row row = rows[o];
    for (int i = lane; i < inputs; i += 32) {
        float sum = 0.f;
#pragma unroll 4
        for (int image = 0; image < images; image++) sum += d[(size_t)image * d_stride + o] * x[(size_t)image * x_stride + i];
        gradient[row.weight + i] += sum;
    }
    float sum = 0.f;
    for (int image = lane; image < images; image += 32) sum += d[(size_t)image * d_stride + o];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) sum += __shfl_xor_sync(~0u, sum, n);
    if (lane == 0) gradient[row.bias] += sum;
}

// Their input's gradient: one block per 32 inputs and image.
extern "C" __global__ void __launch_bounds__(256)
    linear_input_gradient(const float* numbers, const Row* rows, const float* d, int d_stride, int inputs, int outputs, float* d_x,
                          int x_stride) {
    after_predecessor();
    int input = blockIdx.x * 32 + threadIdx.x % 32;
    const float* from = d + (size_t)blockIdx.y * d_stride;
    wide2 sum = {0, 0};
    if (input < inputs)
#pragma unroll 4
        for (int o = threadIdx.x / 32; o < outputs; o += 8) {
            u32 row = rows[o].weight;
            if (row != NOWHERE) sum.x += from[o] * numbers[row + input];
        }
    sum = over_rows<8>(sum);
    if (threadIdx.x < 32 && input < inputs) d_x[(size_t)blockIdx.y * x_stride + input] += (float)sum.x;
}

// y = silu(x), and d_x += slope(x) d: blockIdx.y counts images.
extern "C" __global__ void silu_layer(const float* x, int x_stride, int channels, float* y, int y_stride) {
    after_predecessor();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= channels) return;
    float v = x[(size_t)blockIdx.y * x_stride + i];
    y[(size_t)blockIdx.y * y_stride + i] = v / (1.f + expf(-v));
}
extern "C" __global__ void silu_layer_gradient(const float* x, int x_stride, int channels, const float* d, int d_stride, float* d_x) {
    after_predecessor();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= channels) return;
    size_t at = (size_t)blockIdx.y * x_stride + i;
    float v = x[at], s = 1.f / (1.f + expf(-v));
    d_x[at] += d[(size_t)blockIdx.y * d_stride + i] * s * (1.f + v * (1.f - s));
}

// y = x + table[label]; a label below zero is none.
extern "C" __global__ void label_layer(const float* x, int x_stride, const float* table, const float* labels, int channels, float* y,
                                       int y_stride) {
    after_predecessor();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= channels) return;
    int label = (int)labels[blockIdx.y];
    float v = x[(size_t)blockIdx.y * x_stride + i];
    y[(size_t)blockIdx.y * y_stride + i] = label < 0 ? v : v + table[(size_t)label * channels + i];
}
// One thread per channel goes through the images in order: several may have one label.
extern "C" __global__ void label_layer_gradient(const float* d, int d_stride, const float* labels, int channels, int images,
                                                float* d_table, float* d_x, int x_stride) {
    after_predecessor();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= channels) return;
    for (int image = 0; image < images; image++) {
        int label = (int)labels[image];
        float v = d[(size_t)image * d_stride + i];
        if (label >= 0) d_table[(size_t)label * channels + i] += v;
        d_x[(size_t)image * x_stride + i] += v;
    }
}
