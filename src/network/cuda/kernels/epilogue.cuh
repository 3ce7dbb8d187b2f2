// What happens to the sums of a convolution before they are stored: bias, time embedding, residual, the slope of the norm
// whose gradient they are, and the sums over pixels that the next norm needs.

// Channels of an image that may be the join of two: those below `split` from `first`, the others from `second`.
struct Joined {
    const element* first;
    const element* second;
    int first_pitch, second_pitch, split;
};

__device__ __forceinline__ const element* at(const Joined& j, u32 pixel, int channel) {
    return channel < j.split ? j.first + (size_t)pixel * (u32)j.first_pitch + channel
                             : j.second + (size_t)pixel * (u32)j.second_pitch + (channel - j.split);
}

enum Mode { PLAIN = 0, THROUGH_SILU = 1, THROUGH_NORM = 2 };

struct Epilogue {
    const float* bias;        // [channels], or null; only where the mode is PLAIN
    const float* vector;      // [channels] of every image, or null; only where the mode is PLAIN
    int vector_stride;        // from one image's to the next; 0 where all have one
    const element* residual;  // added; or null
    int residual_pitch;
    int residual_half;  // the residual has half the height and width
    float scale;        // of the sum with the residual and the bias; only where the mode is PLAIN
    int mode;
    Joined x;                    // the norm's input, where the mode needs it
    const float4* coefficients;  // [image][channels] of the norm: (a, b, p, q)
    void* out;
    int out_pitch;
    int out_is_float;
    int out_is_operand;  // a convolution reads it as it is stored
    float* partials;  // [image][rows][channels][2]: sums of v and v^2, or of g and g x; or null
    int partial_rows;
};

// A kernel compiled for one mode need not ask for it.
#ifdef MODE
#define MODE_OF(e) MODE
#else
#define MODE_OF(e) (e).mode
#endif

// What a thread needs for its N channels of every pixel of an image.
template <int N>
struct Channels {
    float bias[N];   // times the scale; where the mode is PLAIN
    float2 half[N];  // (a / 2, b / 2) of the norm; where it is THROUGH_SILU
};
template <int N>
__device__ __forceinline__ Channels<N> channels_of(const Epilogue& e, int image, int channel, int channels) {
    Channels<N> c;
    if (MODE_OF(e) == PLAIN) {
        float bias[N], vector[N];
#pragma unroll
        for (int k = 0; k < N; k++) bias[k] = vector[k] = 0.f;
        if (e.bias) load_floats<N>(e.bias + channel, bias);
        if (e.vector) load_floats<N>(e.vector + (size_t)image * e.vector_stride + channel, vector);
#pragma unroll
        for (int k = 0; k < N; k++) c.bias[k] = (bias[k] + vector[k]) * e.scale;
    }
    if (MODE_OF(e) == THROUGH_SILU)
#pragma unroll
        for (int k = 0; k < N; k++) {
            float2 ab = *(const float2*)(e.coefficients + (size_t)image * channels + channel + k);
            c.half[k] = make_float2(0.5f * ab.x, 0.5f * ab.y);
        }
    return c;
}

// What is read for one pixel: the residual, or the norm's input; no convolution needs both. A thread starts the reads of several
// pixels before it uses the first.
template <int N>
__device__ __forceinline__ Raw<N> read(const Epilogue& e, int image, int y, int x, int height, int width, int channel) {
    u32 pixel = ((u32)image * height + y) * width + x;
    if (MODE_OF(e) != PLAIN) return load_raw<N>(at(e.x, pixel, channel));
    if (!e.residual) return Raw<N>();
    if (e.residual_half) pixel = ((u32)image * (height / 2) + y / 2) * (width / 2) + x / 2;
    return load_raw<N>(e.residual + (size_t)pixel * (u32)e.residual_pitch + channel);
}

// N channels of one pixel: from the sums `v` to what is stored; adds to the statistics.
template <int N>
__device__ __forceinline__ void finish(const Epilogue& e, const Channels<N>& c, const Raw<N>& read, u32 pixel, int channel,
                                       float* v, float* sum, float* sum2) {
    float other[N];
    unpack(read, other);
    if (MODE_OF(e) == PLAIN) {
#pragma unroll
        for (int k = 0; k < N; k++) {
            v[k] = (v[k] + other[k]) * e.scale + c.bias[k];
            sum[k] += v[k], sum2[k] += v[k] * v[k];
        }
    } else {
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (MODE_OF(e) == THROUGH_SILU) v[k] *= silu_slope_at_twice(c.half[k].x * other[k] + c.half[k].y);
            sum[k] += v[k], sum2[k] += v[k] * other[k];
        }
    }
    size_t to = (size_t)pixel * (u32)e.out_pitch + channel;
    if (e.out_is_float) {
        store_values<N>((float*)e.out + to, v);
    } else {
        if (e.out_is_operand) round_operand<N>(v);
        store_values<N>((element*)e.out + to, v);
    }
}
