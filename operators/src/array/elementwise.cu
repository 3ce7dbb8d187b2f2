// Element by element and sums, on floats; a complex element is two floats side by side.
// Compiled without contraction to fused multiply-add, so that elementwise results have the bits of the CPU.

typedef unsigned long long count;

#define EACH(i, n)                                                    \
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;           \
    if (i >= n) return;

extern "C" __global__ void combine(float* out, const float* x, float a, const float* y, float b, count n) {
    EACH(i, n)
    out[i] = a * x[i] + b * y[i];
}

extern "C" __global__ void add_scaled(float* x, float a, const float* y, count n) {
    EACH(i, n)
    x[i] += a * y[i];
}

extern "C" __global__ void scale(float* out, const float* x, float a, count n) {
    EACH(i, n)
    out[i] = a * x[i];
}

extern "C" __global__ void scale_items(float* out, const float* x, const float* factors, count item, count n) {
    EACH(i, n)
    out[i] = factors[i / item] * x[i];
}

// y starts again whenever it ends; `shared` floats of x take the same element of y (2 for complex times real).
extern "C" __global__ void mul_real(float* out, const float* x, const float* y, count shared, count period, count n) {
    EACH(i, n)
    out[i] = x[i] * y[i / shared % period];
}

// n and period count complex elements.
extern "C" __global__ void mul_complex(float2* out, const float2* x, const float2* y, count period, count n) {
    EACH(i, n)
    float2 a = x[i], b = y[i % period];
    out[i] = make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

extern "C" __global__ void conjugate(float2* out, const float2* x, count n) {
    EACH(i, n)
    out[i] = make_float2(x[i].x, -x[i].y);
}

// The real (0) or imaginary (1) part.
extern "C" __global__ void part(float* out, const float2* x, int which, count n) {
    EACH(i, n)
    out[i] = which ? x[i].y : x[i].x;
}

extern "C" __global__ void magnitude_real(float* out, const float* x, count n) {
    EACH(i, n)
    out[i] = fabsf(x[i]);
}

extern "C" __global__ void magnitude_complex(float* out, const float2* x, count n) {
    EACH(i, n)
    double re = x[i].x, im = x[i].y;
    out[i] = (float)sqrt(re * re + im * im);
}

extern "C" __global__ void to_complex(float2* out, const float* x, count n) {
    EACH(i, n)
    out[i] = make_float2(x[i], 0.0f);
}

extern "C" __global__ void clamp(float* out, const float* x, float low, float high, count n) {
    EACH(i, n)
    // As Rust's f32::clamp: a NaN stays.
    float v = x[i];
    out[i] = v < low ? low : v > high ? high : v;
}

extern "C" __global__ void square_root(float* out, const float* x, count n) {
    EACH(i, n)
    // Rounded correctly, as on the CPU.
    out[i] = x[i] > 0.0f ? __fsqrt_rn(x[i]) : 0.0f;
}

extern "C" __global__ void inverse(float* out, const float* x, count n) {
    EACH(i, n)
    out[i] = x[i] > 0.0f ? 1.0f / x[i] : 0.0f;
}

extern "C" __global__ void repeat(float* out, const float* x, count item, count n) {
    EACH(i, n)
    out[i] = x[i % item];
}

extern "C" __global__ void exponential(float* out, const float* x, count n) {
    EACH(i, n)
    out[i] = (float)exp((double)x[i]);
}

extern "C" __global__ void any_not_finite(int* flag, const float* x, count n) {
    EACH(i, n)
    if (!isfinite(x[i])) *flag = 1;
}

#define SEGMENT 4096
#define THREADS 256

// The sum of the block's values, the same tree whatever runs beside: valid in thread 0.
__device__ double block_sum(double value) {
    __shared__ double values[THREADS];
    values[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
        __syncthreads();
    }
    return values[0];
}

// partial[i * blocks + b] = sum over segment b of item i. `cross`: sum of x.re y.im - x.im y.re over complex elements,
// else of x y over floats. Segments begin anew with every item, so that its sum does not depend on the batch.
extern "C" __global__ void segment_sums(double* partial, const float* x, const float* y, count item, count blocks, int cross) {
    count segment = blockIdx.x % blocks, start = blockIdx.x / blocks * item;
    count end = (segment + 1) * SEGMENT < item ? (segment + 1) * SEGMENT : item;
    double sum = 0.0;
    if (cross) {
        for (count i = segment * SEGMENT + 2 * threadIdx.x; i < end; i += 2 * THREADS)
            sum += (double)x[start + i] * y[start + i + 1] - (double)x[start + i + 1] * y[start + i];
    } else {
        for (count i = segment * SEGMENT + threadIdx.x; i < end; i += THREADS) sum += (double)x[start + i] * y[start + i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block for every item. Writes f64 where `wide` is given, else f32, its square root if `root`.
extern "C" __global__ void item_sums(double* wide, float* narrow, const double* partial, count blocks, int root) {
    double sum = 0.0;
    for (count b = threadIdx.x; b < blocks; b += THREADS) sum += partial[blockIdx.x * blocks + b];
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    if (wide) wide[blockIdx.x] = sum;
    else narrow[blockIdx.x] = (float)(root ? sqrt(sum) : sum);
}

// a / b where the item is not marked, else 0.
extern "C" __global__ void quotient(float* out, const float* a, const float* b, const float* stopped, count n) {
    EACH(i, n)
    out[i] = stopped[i] != 0.0f ? 0.0f : (float)((double)a[i] / (double)b[i]);
}

// Marks (1) the items that are marked already or have a <= b.
extern "C" __global__ void or_at_most(float* out, const float* marks, const float* a, const float* b, count n) {
    EACH(i, n)
    out[i] = marks[i] != 0.0f || a[i] <= b[i] ? 1.0f : 0.0f;
}
