// The copies around a cuFFT transform of planes [h, w]: shifts, weights, scale, real and complex.

typedef unsigned long long count;

// The element of the plane that stands `dh` rows and `dw` columns on, around the edges; 0 <= dh <= h, 0 <= dw <= w.
__device__ count shifted(count at, int h, int w, int dh, int dw) {
    int row = (int)(at / w) + dh, column = (int)(at % w) + dw;
    if (row >= h) row -= h;
    if (column >= w) column -= w;
    return (count)row * w + column;
}

// A weight of zero hides whatever stands there, be it not a number.
__device__ float2 weighted(float2 v, float weight) {
    return weight == 0.0f ? make_float2(0.0f, 0.0f) : make_float2(v.x * weight, v.y * weight);
}

// out = shifted(weights * x); weights may be absent.
extern "C" __global__ void load(float2* out, const float* x, int complex, const float* weights, int h, int w, int dh, int dw, count n) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count size = (count)h * w, at = shifted(i % size, h, w, dh, dw), from = i / size * size + at;
    float2 v = complex ? ((const float2*)x)[from] : make_float2(x[from], 0.0f);
    out[i] = weights ? weighted(v, weights[at]) : v;
}

// out = scale * weights * shifted(x), or its real part.
extern "C" __global__ void store(float* out, const float2* x, int complex, const float* weights, float scale, int h, int w, int dh, int dw, count n) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count size = (count)h * w;
    float2 v = x[i / size * size + shifted(i % size, h, w, dh, dw)];
    v = weighted(v, weights ? scale * weights[i % size] : scale);
    if (complex) ((float2*)out)[i] = v;
    else out[i] = v.x;
}
