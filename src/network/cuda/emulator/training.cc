// The kernels that only training needs, on the host against their definitions in f64. -DELEMENT_BITS=32 -DROUND_TF32=0 -DEXACT=1.
#include "emulator.h"

#define __shared__ static
struct uint2 {
    unsigned x, y;
};
struct double2 {
    double x, y;
};
inline double __shfl_xor_sync(unsigned, double x, int mask) {
    struct Arguments {
        double x, y;
        int mask;
    } mine = {x, 0, mask};
    warp_instruction("shfl double", mine, [](auto lane) {
        for (int l = 0; l < 32; l++) lane(l).y = lane(l ^ lane(l).mask).x;
    });
    return mine.y;
}
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
using std::max;
using std::min;
#define asm(...)
#define volatile(...)
#include "../kernels/element.cuh"
#include "../kernels/epilogue.cuh"
#include "../kernels/norm.cuh"
#undef asm
namespace gradients {
#include "../kernels/gradients.cu"
}
#undef NOWHERE
namespace direct {
#include "../kernels/conv_gradient_direct.cu"
}
namespace update {
#include "../kernels/update.cu"
}

typedef std::vector<double> Numbers;
static std::mt19937 generator(3);
static bool good = true;

static float* random(size_t count) {
    auto* values = array<float>(count);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < count; i++) values[i] = normal(generator);
    return values;
}
static unsigned blocks(size_t count, size_t of) { return (count + of - 1) / of; }
static void compare(const char* what, const float* got, const Numbers& want, double limit = 2e-6) {
    double off = 0, all = 1e-30;
    for (size_t i = 0; i < want.size(); i++) off += (got[i] - want[i]) * (got[i] - want[i]), all += want[i] * want[i];
    double error = std::sqrt(off / all);
    bool fine = error < limit;
    good &= fine;
    printf("%s: %.1e%s\n", what, error, fine ? "" : " FAIL");
}

static void filters(int images, int height, int width, int inputs, int outputs, int kernel, int padding, int share) {
    int x_pitch = (inputs + 7) / 8 * 8, d_pitch = (outputs + 7) / 8 * 8, pixels = images * height * width, taps = kernel * kernel;
    int all_inputs = inputs + 3, first = 2, shares = blocks(pixels, share);
    float *x = random(pixels * x_pitch), *d = random(pixels * d_pitch), *to = random(outputs * all_inputs * taps);
    auto* partials = array<float>(shares * taps * outputs * inputs);
    Numbers want(to, to + outputs * all_inputs * taps);
    for (int n = 0; n < images; n++)
        for (int y = 0; y < height; y++)
            for (int c = 0; c < width; c++)
                for (int t = 0; t < taps; t++) {
                    int from_y = y + t / kernel - padding, from_x = c + t % kernel - padding;
                    if (from_y < 0 || from_x < 0 || from_y >= height || from_x >= width) continue;
                    for (int o = 0; o < outputs; o++)
                        for (int i = 0; i < inputs; i++)
                            want[(o * all_inputs + first + i) * taps + t] += (double)d[((n * height + y) * width + c) * d_pitch + o] *
                                                                             x[((n * height + from_y) * width + from_x) * x_pitch + i];
                }
    direct::Gradient p = {x, d, x_pitch, d_pitch, inputs, outputs, images, height, width, kernel, padding, share, partials};
    launch({taps * blocks(inputs, 64) * blocks(outputs, 64), (unsigned)shares, 1}, 256, 0, [&] { direct::conv_gradient(p); });
    launch({blocks(taps * outputs * inputs, 256), 1, 1}, 256, 0,
           [&] { direct::conv_gradient_sum(partials, shares, taps, outputs, inputs, all_inputs, first, to); });
    compare("filters", to, want);
}

static void norms(int images, int channels, int groups, int rows, bool conditioned) {
    int stride = 2 * channels + 8;
    float *partials = random(images * rows * channels * 2), *moments = random(images * groups * 2), *w = random(channels),
          *b = random(channels), *vector = random(images * stride), *d_vector = random(images * stride), *dw = random(channels),
          *db = random(channels), *first = random(channels), *second = random(channels), *added = random(images * stride);
    auto* sums = array<float>(images * channels * 2);
    Numbers want_dw(dw, dw + channels), want_db(db, db + channels), want_vector(d_vector, d_vector + images * stride);
    Numbers want_first(first, first + channels), want_added(added, added + images * stride);
    for (int n = 0; n < images; n++)
        for (int c = 0; c < channels; c++) {
            double g = 0, gx = 0;
            for (int r = 0; r < rows; r++) {
                const float* at = partials + ((n * rows + r) * channels + c) * 2;
                g += at[0], gx += at[1];
            }
            const float* m = moments + (n * groups + c / (channels / groups)) * 2;
            double gu = (gx - m[0] * g) * m[1], scale = conditioned ? vector[n * stride + c] : 0;
            want_dw[c] += (1 + scale) * gu, want_db[c] += (1 + scale) * g;
            if (conditioned) want_vector[n * stride + c] += w[c] * gu + b[c] * g, want_vector[n * stride + channels + c] += g;
            if (c < channels - 3) want_first[c] += g, want_added[n * stride + c] += g;
        }
    launch({blocks(channels, 32), (unsigned)images, 1}, 1024, 0, [&] { gradients::channel_sums((float2*)partials, rows, channels, (float2*)sums); });
    launch({blocks(channels, 32), 1, 1}, 256, 0, [&] {
        gradients::norm_gradient((float2*)sums, (float2*)moments, images, channels, groups, w, b, conditioned ? vector : 0, d_vector, stride, dw, db);
    });
    launch({blocks(channels, 32), 1, 1}, 256, 0,
           [&] { gradients::bias_gradient((float2*)sums, images, channels, channels - 3, added, stride, first, second); });
    compare("norm weight", dw, want_dw), compare("norm bias", db, want_db), compare("scale and shift", d_vector, want_vector);
    compare("bias", first, want_first), compare("vector", added, want_added);
}

static void layers(int images, int inputs, int outputs) {
    int x_stride = (inputs + 7) / 8 * 8, y_stride = (outputs + 7) / 8 * 8, classes = 3;
    int count = outputs * inputs + outputs + classes * inputs;
    float *numbers = random(count), *gradient = random(count), *x = random(images * x_stride), *d = random(images * y_stride),
          *dx = random(images * x_stride), *y = random(images * y_stride);
    auto* rows = array<gradients::Row>(y_stride);
    auto* labels = array<float>(images);
    for (int o = 0; o < y_stride; o++)
        rows[o] = o < outputs ? gradients::Row{(u32)(o * inputs), (u32)(outputs * inputs + o)} : gradients::Row{0xffffffffu, 0xffffffffu};
    for (int n = 0; n < images; n++) labels[n] = n % 4 - 1;
    Numbers want_y(images * y_stride), want_gradient(gradient, gradient + count), want_dx(dx, dx + images * x_stride);
    for (int n = 0; n < images; n++)
        for (int o = 0; o < outputs; o++) {
            double g = d[n * y_stride + o], sum = numbers[rows[o].bias];
            want_gradient[rows[o].bias] += g;
            for (int i = 0; i < inputs; i++) {
                sum += (double)numbers[o * inputs + i] * x[n * x_stride + i];
                want_gradient[o * inputs + i] += g * x[n * x_stride + i];
                want_dx[n * x_stride + i] += g * numbers[o * inputs + i];
            }
            want_y[n * y_stride + o] = sum;
        }
    launch({blocks(y_stride, 8), (unsigned)images, 1}, 256, 0,
           [&] { gradients::linear_layers(numbers, rows, x, x_stride, inputs, y_stride, y, y_stride); });
    launch({blocks(y_stride, 8), 1, 1}, 256, 0,
           [&] { gradients::linear_numbers_gradient(rows, x, x_stride, inputs, y_stride, d, y_stride, images, gradient); });
    launch({blocks(inputs, 32), (unsigned)images, 1}, 256, 0,
           [&] { gradients::linear_input_gradient(numbers, rows, d, y_stride, inputs, y_stride, dx, x_stride); });
    compare("linear", y, want_y), compare("linear numbers", gradient, want_gradient), compare("linear input", dx, want_dx);

    float *table = numbers + outputs * inputs + outputs, *z = random(images * x_stride), *e = random(images * x_stride);
    Numbers want_z(z, z + images * x_stride), want_s = want_z, want_table(gradient, gradient + count), want_de(e, e + images * x_stride);
    for (int n = 0; n < images; n++)
        for (int i = 0; i < inputs; i++) {
            int at = n * x_stride + i, label = labels[n];
            double s = 1 / (1 + std::exp(-(double)x[at]));
            want_s[at] = x[at] * s;
            want_z[at] = x[at] + (label < 0 ? 0. : table[label * inputs + i]);
            if (label >= 0) want_table[outputs * inputs + outputs + label * inputs + i] += dx[at];
            want_de[at] += dx[at] + dx[at] * s * (1 + x[at] * (1 - s));
        }
    Index grid = {blocks(inputs, 256), (unsigned)images, 1};
    launch(grid, 256, 0, [&] { gradients::label_layer(x, x_stride, table, labels, inputs, z, x_stride); });
    compare("labels", z, want_z);
    launch(grid, 256, 0, [&] { gradients::silu_layer(x, x_stride, inputs, z, x_stride); });
    compare("silu", z, want_s);
    launch({grid.x, 1, 1}, 256, 0, [&] {
        gradients::label_layer_gradient(dx, x_stride, labels, inputs, images, gradient + outputs * inputs + outputs, e, x_stride);
    });
    launch(grid, 256, 0, [&] { gradients::silu_layer_gradient(x, x_stride, inputs, dx, x_stride, e); });
    compare("label table", gradient, want_table), compare("labels' and silu's input", e, want_de);
}

static void optimizer(int count, double largest) {
    float *w = random(count), *m = random(count), *v = random(count), *a = random(count), *g = random(count);
    for (int i = 0; i < count; i++) v[i] *= v[i];
    auto* partials = array<double>(5);
    auto* norm = array<double>(1);
    update::Step step = {largest, 0.1f, 0.99f, 0.01f, 0.9f, 0.3f, 0.7f, 1e-3f, 0.2f};
    Numbers want_w(count), want_a(count), want_g(count);
    double sum = 0;
    for (int i = 0; i < count; i++) sum += (double)g[i] * g[i];
    double clip = std::min(largest / (std::sqrt(sum) + 1e-6), 1.);
    for (int i = 0; i < count; i++) {
        double h = clip * g[i], first = m[i] + 0.1 * (h - m[i]), second = 0.99 * v[i] + 0.01 * h * h;
        want_w[i] = 0.9 * w[i] - 0.3 * first / (std::sqrt(second) / 0.7 + 1e-3);
        want_a[i] = a[i] + 0.2 * (want_w[i] - a[i]);
    }
    launch({5, 1, 1}, 256, 0, [&] { update::squares(g, count, partials); });
    launch({3, 1, 1}, 256, 0, [&] { update::adamw(step, partials, 5, count, w, m, v, a, g, norm); });
    float got = *norm;
    compare("norm", &got, {std::sqrt(sum)}), compare("numbers", w, want_w, 1e-5), compare("average", a, want_a, 1e-5);
    compare("gradient afterwards", g, want_g);
}

// Against the loop of `conv/weights.rs`.
static void packing(u32 inputs, u32 outputs, u32 taps, u32 channel, u32 columns_of_layer, bool transposed) {
    const u32 block = 32, rows = transposed ? columns_of_layer : outputs, columns = transposed ? outputs : columns_of_layer;
    u32 start = 2 * block, depth = start + blocks(columns, block) * block * taps + block, from = 11;
    bool interleaved = rows >= 24;
    const u32 slots = interleaved ? blocks(rows, 32) * 32 : rows;
    float *numbers = random(from + outputs * inputs * taps), *to = random(slots * depth), *bias = random(8), *bias_to = random(8);
    Numbers want(to, to + slots * depth), want_bias(bias_to, bias_to + 8);
    for (u32 slot = 0; slot < slots; slot++) {
        u32 row = interleaved ? slot / 32 * 32 + slot % 8 / 2 * 8 + slot % 32 / 8 * 2 + slot % 2 : slot;
        for (u32 tap = 0; row < rows && tap < taps; tap++)
            for (u32 c = 0; c < columns; c++) {
                u32 output = transposed ? c : row, input = channel + (transposed ? row : c), from_tap = transposed ? taps - 1 - tap : tap;
                want[slot * depth + start + (c / block * taps + tap) * block + c % block] = numbers[from + (output * inputs + input) * taps + from_tap];
            }
    }
    update::Filters f = {to, from, inputs, taps, channel, rows, columns, depth, start, transposed, interleaved};
    static_assert(sizeof f == 48);
    launch({3, 1, 1}, 256, 0, [&] { update::pack_filters(&f, numbers); });
    compare("packed filters", to, want, 1e-9);
    for (int i = 0; i < 6; i++) want_bias[i] = (double)bias[i] + bias[i + 2];
    update::Biases b = {bias_to, 0, 2, 6};
    static_assert(sizeof b == 24);
    launch({1, 1, 1}, 256, 0, [&] { update::pack_biases(&b, bias); });
    compare("packed biases", bias_to, want_bias);
}

int main() {
    filters(2, 5, 7, 3, 8, 3, 1, 33), filters(1, 4, 9, 70, 66, 3, 0, 36), filters(3, 4, 4, 8, 1, 1, 0, 256), filters(1, 6, 6, 5, 9, 6, 2, 7);
    norms(3, 24, 8, 11, true), norms(9, 40, 5, 1, false), norms(2, 64, 4, 20, true);
    layers(5, 40, 19), layers(9, 300, 8);
    optimizer(5000, 1.), optimizer(77, INFINITY);
    packing(10, 24, 9, 3, 5, false), packing(50, 40, 9, 2, 32, true), packing(7, 5, 1, 0, 7, false);
    return !good;
}
