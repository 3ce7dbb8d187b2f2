// Convolution without tensor cores, NHWC, in plain float arithmetic: the reference on the device, and what runs where no faster
// way is known. One block of 256 threads computes 64 neighbouring pixels of an image for 64 output channels.

#define CHANNELS_PER_ROW (128 * 8 / ELEMENT_BITS)
#define DEPTH 16

struct Segment {
    int loads, taps, separate, channels;
};
struct Images {
    const element* image[3];
    int pitch[3];
    int channels[3];
};
struct Convolution {
    Segment segments[3];
    int stride, padding;
    int images, height, width;
    int channels;
    int tiles_x, tiles_y;
    Epilogue epilogue;
};

extern "C" __global__ void __launch_bounds__(256) convolve(Images in, int in_height, int in_width, const element* weights,
                                                           int depth, int interleaved, Convolution p) {
    after_predecessor();
    __shared__ float pixels[DEPTH][64 + 4], filters[DEPTH][64 + 8];
    int count = p.height * p.width, tiles = (count + 63) / 64, across = (p.channels + 63) / 64;
    int tile = blockIdx.x / across % tiles, image = blockIdx.x / across / tiles;
    int pixel0 = tile * 64, channel0 = blockIdx.x % across * 64;
    int vector = threadIdx.x % 8, row = threadIdx.x / 8;
    float sums[2][8];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int k = 0; k < 8; k++) sums[i][k] = 0.f;
    int k0 = 0;
    for (int s = 0; s < 3; s++) {
        Segment segment = p.segments[s];
        int taps = segment.taps * segment.separate;
        for (int l = 0; l < segment.loads * segment.taps; l++, k0 += CHANNELS_PER_ROW) {
            int block = l / taps, tap = l % taps;
            int side = taps == 36 ? 6 : taps == 9 ? 3 : 1, padding = side > 1 ? p.padding : 0;
            int dx = tap % side - padding, dy = tap / side - padding;
            for (int c0 = 0; c0 < CHANNELS_PER_ROW; c0 += DEPTH) {
                if (block * CHANNELS_PER_ROW + c0 >= in.channels[s]) break;
                __syncthreads();
                for (int i = threadIdx.x; i < 64 * (DEPTH / 8); i += 256) {
                    int r = i / (DEPTH / 8), c = c0 + i % (DEPTH / 8) * 8, channel = block * CHANNELS_PER_ROW + c;
                    float v[8];
#pragma unroll
                    for (int k = 0; k < 8; k++) v[k] = 0.f;
                    int pixel = pixel0 + r;
                    int y = pixel / p.width * p.stride + dy, x = pixel % p.width * p.stride + dx;
                    if (pixel < count && y >= 0 && x >= 0 && y < in_height && x < in_width && channel < in.channels[s])
                        load8(in.image[s] + (((size_t)image * in_height + y) * in_width + x) * in.pitch[s] + channel, v);
#pragma unroll
                    for (int k = 0; k < 8; k++) pixels[c - c0 + k][r] = v[k];
                }
                for (int i = threadIdx.x; i < 64 * (DEPTH / 8); i += 256) {
                    int r = i / (DEPTH / 8), c = i % (DEPTH / 8) * 8;
                    float v[8];
#pragma unroll
                    for (int k = 0; k < 8; k++) v[k] = 0.f;
                    // Row 8j + 2q + e of 32 holds channel 8q + 2j + e.
                    int line = interleaved ? r / 32 * 32 + r % 8 / 2 * 8 + r % 32 / 8 * 2 + r % 2 : r;
                    if (channel0 + r < p.channels) load8(weights + (size_t)(channel0 + line) * depth + k0 + c0 + c, v);
#pragma unroll
                    for (int k = 0; k < 8; k++) filters[c + k][r] = v[k];
                }
                __syncthreads();
#pragma unroll
                for (int d = 0; d < DEPTH; d++) {
                    float a = pixels[d][row], b = pixels[d][row + 32];
#pragma unroll
                    for (int k = 0; k < 8; k++) {
                        float w = filters[d][vector * 8 + k];
                        sums[0][k] += a * w, sums[1][k] += b * w;
                    }
                }
            }
        }
    }
    float sum[8], sum2[8];
#pragma unroll
    for (int k = 0; k < 8; k++) sum[k] = sum2[k] = 0.f;
    int channel = channel0 + vector * 8;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int pixel = pixel0 + row + 32 * i;
        if (pixel >= count || channel >= p.channels) continue;
        Channels<8> fixed = channels_of<8>(p.epilogue, image, channel, p.channels);
        int y = pixel / p.width, x = pixel % p.width;
        Raw<8> before = read<8>(p.epilogue, image, y, x, p.height, p.width, channel);
        finish<8>(p.epilogue, fixed, before, (u32)image * count + pixel, channel, sums[i], sum, sum2);
    }
    if (!p.epilogue.partials) return;
    __shared__ float2 shared[32][64];
#pragma unroll
    for (int k = 0; k < 8; k++) shared[row][vector * 8 + k] = make_float2(sum[k], sum2[k]);
    __syncthreads();
    if (threadIdx.x < 64 && channel0 + threadIdx.x < p.channels) {
        float a = 0.f, b = 0.f;
        for (int r = 0; r < 32; r++) a += shared[r][threadIdx.x].x, b += shared[r][threadIdx.x].y;
        size_t to = ((size_t)image * p.epilogue.partial_rows + tile) * p.channels + channel0 + threadIdx.x;
        ((float2*)p.epilogue.partials)[to] = make_float2(a, b);
    }
}
