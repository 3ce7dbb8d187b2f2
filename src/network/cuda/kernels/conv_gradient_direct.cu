// The gradient of filters without tensor cores, in plain float arithmetic: the reference on the device, and what runs where no faster
// way is known. dW[co, ci, tap] = sum over pixels p of d[p, co] x[p + tap - padding, ci]; with a stride of 2, d has zeros between its
// pixels.
//
// One block of 256 threads sums 64 x 64 coefficients of one tap over a share of the pixels of all images.

#define DEPTH 16

struct Gradient {
    const element* x;
    const element* d;
    int x_pitch, d_pitch;
    int inputs, outputs;  // channels that exist
    int images, height, width;
    int kernel, padding;
    int share;        // pixels of a block
    float* partials;  // [share][tap][output][input]
};

extern "C" __global__ void __launch_bounds__(256) conv_gradient(Gradient p) {
    after_predecessor();
    __shared__ float a[DEPTH][64 + 4], b[DEPTH][64 + 4];
    int taps = p.kernel * p.kernel, across = (p.inputs + 63) / 64;
    int tap = blockIdx.x % taps, input0 = blockIdx.x / taps % across * 64, output0 = blockIdx.x / taps / across * 64;
    int dx = tap % p.kernel - p.padding, dy = tap / p.kernel - p.padding;
    size_t pixels = (size_t)p.images * p.height * p.width, begin = (size_t)blockIdx.y * p.share;
    size_t end = begin + p.share < pixels ? begin + p.share : pixels;
    float sums[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.f;
    int column = threadIdx.x % 16 * 4, row = threadIdx.x / 16 * 4;
    bool is_x = threadIdx.x >= 128;
    int pixel = threadIdx.x % 128 / 8, vector = threadIdx.x % 8 * 8;
    for (size_t first = begin; first < end; first += DEPTH) {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = 0.f;
        size_t at = first + pixel;
        if (at < end) {
            if (!is_x) {
                if (output0 + vector < p.outputs) load8(p.d + at * p.d_pitch + output0 + vector, v);
            } else {
                size_t image = at / (p.height * p.width);
                int inside = (int)(at % (p.height * p.width));
                int y = inside / p.width + dy, x = inside % p.width + dx;
                if (y >= 0 && x >= 0 && y < p.height && x < p.width && input0 + vector < p.inputs)
                    load8(p.x + ((image * p.height + y) * p.width + x) * p.x_pitch + input0 + vector, v);
            }
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 8; k++) (is_x ? b : a)[pixel][vector + k] = v[k];
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float4 from = *(const float4*)&a[k][row], with = *(const float4*)&b[k][column];
            float u[4] = {from.x, from.y, from.z, from.w}, w[4] = {with.x, with.y, with.z, with.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] += u[i] * w[j];
        }
    }
    float* to = p.partials + ((size_t)blockIdx.y * taps + tap) * p.outputs * p.inputs;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (output0 + row + i < p.outputs && input0 + column + j < p.inputs)
                to[(size_t)(output0 + row + i) * p.inputs + input0 + column + j] = sums[i][j];
}

// Adds up the shares in order, and adds the sum to the gradient of the layer's filters `[output][all inputs][tap]` from input `first`.
extern "C" __global__ void __launch_bounds__(256) conv_gradient_sum(const float* partials, int shares, int taps, int outputs, int inputs,
                                                                    int all_inputs, int first, float* gradient) {
    after_predecessor();
    int count = taps * outputs * inputs, i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    float sum = 0.f;
#pragma unroll 8
    for (int s = 0; s < shares; s++) sum += partials[(size_t)s * count + i];
    int input = i % inputs, output = i / inputs % outputs, tap = i / inputs / outputs;
    gradient[((size_t)output * all_inputs + first + input) * taps + tap] += sum;
}
