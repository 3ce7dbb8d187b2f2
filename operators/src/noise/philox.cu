// The random numbers of noise.rs, bit for bit: Philox4x32-10, then Box and Muller with the logarithm, sine and cosine of the Rust
// crate libm (those of FreeBSD's msun), operation by operation. Compile without contraction to fused multiply-add.

typedef unsigned int word;
typedef unsigned long long count;

__device__ void philox4x32(word counter[4], word key0, word key1) {
    for (int round = 0; round < 10; round++) {
        count low = (count)counter[0] * 0xD2511F53u, high = (count)counter[2] * 0xCD9E8D57u;
        word second = counter[1], fourth = counter[3];
        counter[0] = (word)(high >> 32) ^ second ^ key0;
        counter[1] = (word)high;
        counter[2] = (word)(low >> 32) ^ fourth ^ key1;
        counter[3] = (word)low;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// A uniform number in (0, 1] from 32 bits.
__device__ float open_unit(word bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f) + 1.0f / 33554432.0f; }

// For x in [2^-25, 1].
__device__ float libm_logf(float x) {
    word ix = __float_as_uint(x);
    if (ix == 0x3f800000u) return 0.0f;
    ix += 0x3f800000u - 0x3f3504f3u;
    int k = (int)(ix >> 23) - 0x7f;
    ix = (ix & 0x007fffffu) + 0x3f3504f3u;
    x = __uint_as_float(ix);
    float f = x - 1.0f;
    float s = f / (2.0f + f);
    float z = s * s;
    float w = z * z;
    float t1 = w * (0.40000972152f + w * 0.24279078841f);
    float t2 = z * (0.66666662693f + w * 0.28498786688f);
    float r = t2 + t1;
    float hfsq = 0.5f * f * f;
    float dk = (float)k;
    return s * (hfsq + r) + dk * 9.0580006145e-06f - hfsq + f + dk * 6.9313812256e-01f;
}

__device__ float sine(double x) {
    double z = x * x, w = z * z;
    double r = -0.000198393348360966317347 + z * 0.0000027183114939898219064;
    double s = z * x;
    return (float)((x + s * (-0.166666666416265235595 + z * 0.0083333293858894631756)) + s * w * r);
}

__device__ float cosine(double x) {
    double z = x * x, w = z * z;
    double r = -0.00138867637746099294692 + z * 0.0000243904487962774090654;
    return (float)(((1.0 + z * -0.499999997251031003120) + w * 0.0416666233237390631894) + (w * z) * r);
}

// For x in [0, 2 pi], 2 pi rounded to f32.
__device__ void libm_sincosf(float x, float* sin, float* cos) {
    const double half_pi = 0.5 * 3.1415926535897931160E+00;
    word ix = __float_as_uint(x);
    double d = (double)x;
    if (ix < 0x39800000u) {
        *sin = x, *cos = 1.0f;
    } else if (ix <= 0x3f490fdau) {
        *sin = sine(d), *cos = cosine(d);
    } else if (ix <= 0x4016cbe3u) {
        *sin = cosine(1.0 * half_pi - d), *cos = sine(1.0 * half_pi - d);
    } else if (ix <= 0x407b53d1u) {
        *sin = -sine(d - 2.0 * half_pi), *cos = -cosine(d - 2.0 * half_pi);
    } else if (ix <= 0x40afeddfu) {
        *sin = -cosine(d - 3.0 * half_pi), *cos = sine(d - 3.0 * half_pi);
    } else {
        *sin = sine(d - 4.0 * half_pi), *cos = cosine(d - 4.0 * half_pi);
    }
}

__device__ void box_muller(word a, word b, float* x, float* y) {
    float radius = sqrtf(-2.0f * libm_logf(open_unit(a)));
    float sin, cos;
    libm_sincosf(2.0f * 3.14159265358979323846f * open_unit(b), &sin, &cos);
    *x = radius * cos;
    *y = radius * sin;
}

// The words of one block of four elements: streams holds (slice, sample, purpose) for every item.
__device__ void draw_words(word counter[4], const word* streams, count item, word block, word draw, word key0, word key1) {
    counter[0] = block;
    counter[1] = draw | streams[3 * item + 2] << 28;
    counter[2] = streams[3 * item];
    counter[3] = streams[3 * item + 1];
    philox4x32(counter, key0, key1);
}

// out[item][0..length]: thread i makes elements 4 (i % blocks) ... of item i / blocks.
extern "C" __global__ void normal(float* out, const word* streams, count length, count blocks, count n, word draw, word key0, word key1) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count item = i / blocks, block = i % blocks;
    word words[4];
    draw_words(words, streams, item, (word)block, draw, key0, key1);
    float values[4];
    box_muller(words[0], words[1], &values[0], &values[1]);
    box_muller(words[2], words[3], &values[2], &values[3]);
    for (int j = 0; j < 4 && 4 * block + j < length; j++) out[item * length + 4 * block + j] = values[j];
}

extern "C" __global__ void uniform(float* out, const word* streams, count length, count blocks, count n, word draw, word key0, word key1) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count item = i / blocks, block = i % blocks;
    word words[4];
    draw_words(words, streams, item, (word)block, draw, key0, key1);
    for (int j = 0; j < 4 && 4 * block + j < length; j++) out[item * length + 4 * block + j] = open_unit(words[j]);
}
