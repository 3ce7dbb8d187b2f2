// Resampling kernels on the host against their formulas in f64. -DELEMENT=32 only; -DVECTOR, -DACCUMULATE as in the kernels.
#include <array>

#include "emulator.h"
#include "../resample.cu"

typedef std::vector<double> Numbers;
enum Map { MEAN, REPEAT, SMOOTH_HALF, SMOOTH_DOUBLE };

// y[outer][out][inner] of x[outer][in][inner] along the middle axis.
static Numbers along(Map map, int small, int outer, int inner, const Numbers& x) {
    const bool halves = map == MEAN || map == SMOOTH_HALF;
    const int in = halves ? 2 * small : small, out = halves ? small : 2 * small;
    Numbers y(outer * out * inner);
    for (int o = 0; o < out; o++) {
        auto add = [&](int i, double weight) {
            if (i < 0 || i >= in) return;
            for (int a = 0; a < outer; a++)
                for (int b = 0; b < inner; b++) y[(a * out + o) * inner + b] += weight * x[(a * in + i) * inner + b];
        };
        if (map == MEAN) add(2 * o, 0.5), add(2 * o + 1, 0.5);
        if (map == REPEAT) add(o / 2, 1);
        if (map == SMOOTH_HALF) add(2 * o - 1, 0.125), add(2 * o, 0.375), add(2 * o + 1, 0.375), add(2 * o + 2, 0.125);
        if (map == SMOOTH_DOUBLE) add(o / 2, 0.75), add(o % 2 ? o / 2 + 1 : o / 2 - 1, 0.25);
    }
    return y;
}

static bool check(Map map, int batch, int height, int width, int channels) {
    const bool halves = map == MEAN || map == SMOOTH_HALF;
    const int small = batch * height * width, inputs = halves ? 4 * small : small, outputs = halves ? small : 4 * small;
    const int x_pitch = channels + 4, y_pitch = channels + 8;
    auto *x = array<float>(inputs * x_pitch), *y = array<float>(outputs * y_pitch);
    for (int i = 0; i < inputs * x_pitch; i++) x[i] = std::sin(0.7 * i);
    Numbers before(outputs * y_pitch), want(inputs * channels);
    for (int i = 0; i < outputs * y_pitch; i++) before[i] = y[i] = 0.25f * (i % 7);
    for (int i = 0; i < inputs * channels; i++) want[i] = x[i / channels * x_pitch + i % channels];
    want = along(map, width, batch * (halves ? 2 * height : height), channels, want);
    want = along(map, height, batch, (halves ? width : 2 * width) * channels, want);
    const unsigned threads = small * channels / VECTOR;
    auto* kernel = map == MEAN ? mean : map == REPEAT ? repeat : map == SMOOTH_HALF ? smooth_half : smooth_double;
    launch({(threads + 255) / 256, 1, 1}, 256, 0, [&] { kernel(x, y, batch, height, width, channels, x_pitch, y_pitch, 1.75f); });
    double largest = 0;
    for (int i = 0; i < outputs * y_pitch; i++) {
        const int channel = i % y_pitch;
        const double expected = channel >= channels ? before[i] : 1.75 * want[i / y_pitch * channels + channel] + (ACCUMULATE ? before[i] : 0);
        const double error = std::abs(y[i] - expected);
        if (!(error <= largest)) largest = error;
    }
    const bool good = largest < 2e-6;
    printf("map %d, %d x %d x %d x %d: %.1e%s\n", map, batch, height, width, channels, largest, good ? "" : " FAIL");
    return good;
}

int main() {
    bool good = true;
    for (Map map : {MEAN, REPEAT, SMOOTH_HALF, SMOOTH_DOUBLE})
        good &= check(map, 2, 3, 5, 8) & check(map, 1, 4, 4, 12) & check(map, 3, 1, 2, 4) & check(map, 1, 7, 1, 4);
    return !good;
}
