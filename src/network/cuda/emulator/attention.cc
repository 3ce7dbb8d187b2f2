// Attention kernels on the host against the definition in f64. -DSTRICT=1: strict.cu. -DFORWARD_BYTES, -DBACKWARD_BYTES: shared
// memory of a block. Arguments: sizes "batch pixels heads"...
#include "tensor_core.h"

namespace statistics_kernel {
#include "../attention/statistics.cu"
}
#if STRICT
namespace kernels {
#include "../attention/strict.cu"
constexpr int ROWS = TILE;
}
namespace forward_kernel = kernels;
namespace backward_kernel = kernels;
using namespace kernels;
#else
#include "../attention/tiles.cu"
namespace forward_kernel {
#include "../attention/forward.cu"
}
namespace backward_kernel {
#include "../attention/backward.cu"
}
#endif

typedef std::vector<double> Numbers;
#if ELEMENT == 16
static double number(::Element x) { return from_bf16(x); }
static ::Element element(double x) { return to_bf16(static_cast<float>(x)); }
#else
static double number(::Element x) { return x; }
static ::Element element(double x) { return static_cast<float>(x); }
#endif

struct Definition {
    Numbers out, lse, d_qkv;

    Definition(const Numbers& qkv, const Numbers& d_out, int batch, int pixels, int heads)
        : out(d_out.size()), lse(batch * heads * pixels), d_qkv(qkv.size()) {
        const size_t channels = heads * DEPTH;
        const double scale = 1 / std::sqrt(static_cast<double>(DEPTH));
        for (int item = 0; item < batch; item++)
            for (int head = 0; head < heads; head++)
                for (int i = 0; i < pixels; i++) {
                    auto at = [&](int part, int pixel) { return ((item * pixels + pixel) * 3 + part) * channels + head * DEPTH; };
                    auto dot = [](const double* x, const double* y) { return std::inner_product(x, x + DEPTH, y, 0.0); };
                    const size_t o = (item * pixels + i) * channels + head * DEPTH;
                    Numbers p(pixels), dp(pixels);
                    for (int j = 0; j < pixels; j++) {
                        p[j] = scale * dot(&qkv[at(0, i)], &qkv[at(1, j)]);
                        dp[j] = dot(&d_out[o], &qkv[at(2, j)]);
                    }
                    const double largest = *std::max_element(p.begin(), p.end());
                    double sum = 0, mean = 0;
                    for (double x : p) sum += std::exp(x - largest);
                    for (int j = 0; j < pixels; j++) mean += dp[j] * (p[j] = std::exp(p[j] - largest) / sum);
                    lse[(item * heads + head) * pixels + i] = largest + std::log(sum);
                    for (int j = 0; j < pixels; j++)
                        for (int d = 0; d < DEPTH; d++) {
                            const double ds = scale * p[j] * (dp[j] - mean);
                            out[o + d] += p[j] * qkv[at(2, j) + d];
                            d_qkv[at(0, i) + d] += ds * qkv[at(1, j) + d];
                            d_qkv[at(1, j) + d] += ds * qkv[at(0, i) + d];
                            d_qkv[at(2, j) + d] += p[j] * d_out[o + d];
                        }
                }
    }
};

static bool check(int batch, int pixels, int heads) {
    const size_t channels = heads * DEPTH, count = batch * pixels * channels, rows = batch * heads * pixels;
    auto *qkv = array<::Element>(3 * count), *out = array<::Element>(count), *d_out = array<::Element>(count), *d_qkv = array<::Element>(3 * count);
    auto* lse = array<float>(rows);
    auto* statistics = array<float2>(rows);
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    Numbers x(3 * count), g(count);
    for (size_t i = 0; i < 3 * count; i++) x[i] = number(qkv[i] = element(normal(random)));
    for (size_t i = 0; i < count; i++) g[i] = number(d_out[i] = element(normal(random)));
    const Definition want(x, g, batch, pixels, heads);

    const unsigned tiles = (pixels + ROWS - 1) / ROWS, slices = heads * SLICES, items = batch;
    launch({tiles, slices, items}, THREADS, FORWARD_BYTES, [&] { forward_kernel::attention_forward(qkv, out, lse, pixels, heads); });
    const unsigned per_block = 256 / statistics_kernel::LANES, blocks = (rows + per_block - 1) / per_block;
    launch({blocks, 1, 1}, 256, 0, [&] { statistics_kernel::attention_statistics(out, d_out, lse, statistics, batch, pixels, heads); });
    launch({2 * tiles, slices, items}, THREADS, BACKWARD_BYTES,
           [&] { backward_kernel::attention_backward(qkv, d_out, statistics, d_qkv, pixels, heads); });

    bool good = bank_conflicts == 0;
    // Relative error in the 2-norm, of `parts` interleaved parts the one of that number.
    auto compare = [&](const char* name, auto* got, const Numbers& wanted, size_t parts, size_t part) {
        double distance = 0, size = 0;
        for (size_t i = 0; i < wanted.size(); i++) {
            if (i / channels % parts != part) continue;
            double value;
            if constexpr (sizeof *got == sizeof(::Element)) value = number(got[i]);
            else value = got[i];
            distance += (value - wanted[i]) * (value - wanted[i]);
            size += wanted[i] * wanted[i];
        }
        const double error = std::sqrt(distance / size), limit = STRICT ? 3e-6 : ELEMENT == 16 ? 6e-3 : 1.5e-3;
        good &= error < limit;
        printf(" %s %.1e", name, error);
    };
    printf("%d x %d pixels x %d heads of %d:", batch, pixels, heads, DEPTH);
    compare("out", out, want.out, 1, 0);
    compare("lse", lse, want.lse, 1, 0);
    compare("dq", d_qkv, want.d_qkv, 3, 0);
    compare("dk", d_qkv, want.d_qkv, 3, 1);
    compare("dv", d_qkv, want.d_qkv, 3, 2);
    printf(good ? "\n" : " FAIL\n");
    return good;
}

int main(int count, char** sizes) {
    bool good = true;
    for (int i = 1; i + 2 < count; i += 3) good &= check(atoi(sizes[i]), atoi(sizes[i + 1]), atoi(sizes[i + 2]));
    return !good;
}
