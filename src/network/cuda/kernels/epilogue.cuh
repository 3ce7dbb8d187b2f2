// What happens to the sums of a convolution before they are stored: bias, time embedding, residual, the slope of the norm
// whose gradient they are, and the sums over pixels that the next norm needs.

// Channels of an image that may be the join of two: those below `split` from `first`, the others from `second`.
struct Joined {
    const element* first;
    const element* second;
    int first_pitch, second_pitch, split;
};

__device__ __forceinline__ const element* at(const Joined& j, size_t pixel, int channel) {
    return channel < j.split ? j.first + pixel * j.first_pitch + channel
                             : j.second + pixel * j.second_pitch + (channel - j.split);
}

enum Mode { PLAIN = 0, THROUGH_SILU = 1, THROUGH_NORM = 2 };

struct Epilogue {
    const float* bias;        // [channels], or null
    const float* vector;      // [channels], or null
    const element* residual;  // added; or null
    int residual_pitch;
    int residual_half;  // the residual has half the height and width
    float scale;        // of the sum with the residual
    int mode;
    Joined x;                    // the norm's input, where the mode needs it
    const float4* coefficients;  // [image][channels] of the norm: (a, b, p, q)
    void* out;
    int out_pitch;
    int out_is_float;
    float* partials;  // [image][rows][channels][2]: sums of v and v^2, or of g and g x; or null
    int partial_rows;
};

// What a thread needs for its eight channels of every pixel of an image.
struct Channels {
    float bias[8];
    float2 ab[8];
};
__device__ __forceinline__ Channels channels_of(const Epilogue& e, int image, int channel, int channels) {
    Channels c;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        c.bias[k] = (e.bias ? e.bias[channel + k] : 0.f) + (e.vector ? e.vector[channel + k] : 0.f);
        c.ab[k] = e.mode != PLAIN ? *(const float2*)(e.coefficients + (size_t)image * channels + channel + k) : make_float2(0.f, 0.f);
    }
    return c;
}

// What is read for one pixel: the residual, or the norm's input; no convolution needs both. A thread starts the reads of several
// pixels before it uses the first.
__device__ __forceinline__ Raw8 read8(const Epilogue& e, int image, int y, int x, int height, int width, int channel) {
    size_t pixel = ((size_t)image * height + y) * width + x;
    if (e.mode != PLAIN) return load_raw(at(e.x, pixel, channel));
    if (e.residual_half) pixel = ((size_t)image * (height / 2) + y / 2) * (width / 2) + x / 2;
    return e.residual ? load_raw(e.residual + pixel * e.residual_pitch + channel) : Raw8();
}

// Eight channels of one pixel: from the sums `v` to what is stored; adds to the statistics.
__device__ __forceinline__ void finish8(const Epilogue& e, const Channels& c, const Raw8& read, int image, int y, int x, int height,
                                        int width, int channel, float* v, float* sum, float* sum2) {
    size_t pixel = ((size_t)image * height + y) * width + x;
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] += c.bias[k];
    float other[8];
    unpack(read, other);
    if (e.mode == PLAIN) {
#pragma unroll
        for (int k = 0; k < 8; k++) {
            v[k] = (v[k] + other[k]) * e.scale;
            sum[k] += v[k], sum2[k] += v[k] * v[k];
        }
    } else {
#pragma unroll
        for (int k = 0; k < 8; k++) {
            if (e.mode == THROUGH_SILU) v[k] *= silu_slope(c.ab[k].x * other[k] + c.ab[k].y);
            sum[k] += v[k], sum2[k] += v[k] * other[k];
        }
    }
    if (e.out_is_float) {
        store8((float*)e.out + pixel * e.out_pitch + channel, v);
    } else {
        store8((element*)e.out + pixel * e.out_pitch + channel, v);
    }
}
