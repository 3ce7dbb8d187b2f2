// Group norm with SiLU and resampling, and its transpose, NHWC. A thread keeps eight channels and walks over pixels; a block
// has up to 32 such vectors (blockIdx.z counts blocks of as many), blockIdx.y counts images.
//
//   y = S f(a x + b),  f = SiLU or the identity, S = nothing, 2x2 repetition or 2x2 mean; a, b per image and channel
//   dx = a g + p + q x + r,  g = f'(a x + b) S^T d,  p and q per image and group, r another gradient

enum Resampling { SAME = 0, UP = 1, DOWN = 2 };

struct Lanes {
    int vectors, rows, vector, row, channel;
    bool active;
};
__device__ __forceinline__ Lanes lanes(int channels, int vectors = 32) {
    Lanes l;
    int first = blockIdx.z * vectors;
    l.vectors = min(vectors, channels / 8 - first);
    l.rows = blockDim.x / l.vectors;
    l.vector = threadIdx.x % l.vectors;
    l.row = threadIdx.x / l.vectors;
    l.channel = (first + l.vector) * 8;
    l.active = l.row < l.rows;
    return l;
}

// One vector of channels of every pixel. The pointer is chosen once, not at every pixel.
template <typename T>
struct Line {
    T* first;
    u32 pitch;
    __device__ __forceinline__ T* at(size_t pixel) const { return first + pixel * pitch; }
};
__device__ __forceinline__ Line<const element> line_of(const Joined& j, int channel) {
    if (channel < j.split) return {j.first + channel, (u32)j.first_pitch};
    return {j.second + (channel - j.split), (u32)j.second_pitch};
}
// Pixels of which a thread has the reads under way before it uses the first. Stores between them would keep the compiler from
// starting them early.
#define TOGETHER 4

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

// What the coefficients of a norm are made of. The image may be the join of two, each with its own rows of sums.
struct Statistics {
    const float2* first;   // [image][rows][channels]: sums of x and of x^2; null where the coefficients are known
    const float2* second;
    int first_rows, second_rows, first_channels, channels, groups, pixels;
    float eps;
    const float *weight, *bias;
    const float* scale_shift;  // [2][channels] of every image, or null
    int scale_shift_stride;    // from one image's to the next; 0 where all have one
    float4* out;               // [image][channels]: (a, b, 0, 0)
    float2* moments;           // [image][groups]: mean, 1 / standard deviation
};

// What sums over rows are made in. Beside bfloat16 their rounding is nothing; beside float it is not.
#if ELEMENT_BITS == 32
typedef double wide;
typedef double2 wide2;
#else
typedef float wide;
typedef float2 wide2;
#endif
__device__ __forceinline__ wide2 operator+(wide2 a, wide2 b) {
    a.x += b.x, a.y += b.y;
    return a;
}

// Mean and 1 / standard deviation of a group of `count` numbers with that sum and sum of squares.
__device__ __forceinline__ wide mean_of(wide2 sum, wide count, float eps, float* rstd) {
    wide mean = sum.x / count, variance = sum.y / count - mean * mean;
    *rstd = rsqrtf(fmaxf((float)variance, 0.f) + eps);
    return mean;
}
// (a, b) of a channel: y = w (x - mean) rstd + b, then (1 + scale) y + shift.
__device__ __forceinline__ float2 affine_of(wide mean, float rstd, float w, float b, float scale, float shift) {
    float a = w * (1.f + scale) * rstd;
    return make_float2(a, (float)((wide)(b * (1.f + scale) + shift) - mean * (wide)a));
}
// (p, q) from s1 = sum of a g and s2 = sum of a g (x - mean) over a group of `count`.
__device__ __forceinline__ float2 slopes_of(wide2 s, wide count, float2 moments) {
    wide c1 = s.x / count, c2 = s.y * moments.y / count;
    return make_float2((float)(moments.x * moments.y * c2 - c1), (float)(-moments.y * c2));
}
