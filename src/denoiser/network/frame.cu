// The way of an image into a network and back: intensities, padding by reflection, and their transposes.
// Pixel i of channel c of an item of the image lies at c * plane + i * step: planes of a real image, or the parts of a complex one.

struct Frame {
    int items, channels, outputs;  // channels of the image, and of what the network returns
    int inputs, first;             // channels of what the network is given, and where among them those of the image begin
    int height, width, padded_height, padded_width, top, left;
    int plane, step;
};

__device__ __forceinline__ long long at(const Frame& f, int item, int c, int i) {
    return (long long)item * f.channels * f.height * f.width + (long long)c * f.plane + (long long)i * f.step;
}

// y = scale x + shift at every padded pixel of the image's channels of the input; rows and columns say which pixel each repeats.
extern "C" __global__ void enter(Frame f, const float* x, const int* rows, const int* columns, float scale, float shift, float* y) {
    int padded = f.padded_height * f.padded_width;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)f.items * f.channels * padded) return;
    int pixel = (int)(i % padded), c = (int)(i / padded % f.channels), item = (int)(i / padded / f.channels);
    int from = rows[pixel / f.padded_width] * f.width + columns[pixel % f.padded_width];
    y[((long long)item * f.inputs + f.first + c) * padded + pixel] = scale * x[at(f, item, c, from)] + shift;
}

// y = keep x + shift + take output, output cropped to its first channels.
extern "C" __global__ void leave(Frame f, const float* x, const float* output, float keep, float shift, float take, float* y) {
    int pixels = f.height * f.width;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)f.items * f.channels * pixels) return;
    int pixel = (int)(i % pixels), c = (int)(i / pixels % f.channels), item = (int)(i / pixels / f.channels);
    long long to = at(f, item, c, pixel);
    long long from = (((long long)item * f.outputs + c) * f.padded_height + f.top + pixel / f.width) * f.padded_width + f.left + pixel % f.width;
    y[to] = keep * x[to] + shift + take * output[from];
}

// The transpose of the crop: zeros around the image and in the channels that are none of it.
extern "C" __global__ void widen(Frame f, const float* v, float* y) {
    int padded = f.padded_height * f.padded_width;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)f.items * f.outputs * padded) return;
    int pixel = (int)(i % padded), c = (int)(i / padded % f.outputs), item = (int)(i / padded / f.outputs);
    int row = pixel / f.padded_width - f.top, column = pixel % f.padded_width - f.left;
    bool inside = c < f.channels && row >= 0 && row < f.height && column >= 0 && column < f.width;
    y[i] = inside ? v[at(f, item, c, row * f.width + column)] : 0.f;
}

// y = keep v + factor P^T g over the image's channels of the input: the padded pixels that repeat row r are row_list[row_starts[r]..row_starts[r + 1]].
extern "C" __global__ void fold(Frame f, const float* v, const float* g, const int* row_starts, const int* row_list,
                                const int* column_starts, const int* column_list, float keep, float factor, float* y) {
    int pixels = f.height * f.width;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)f.items * f.channels * pixels) return;
    int pixel = (int)(i % pixels), c = (int)(i / pixels % f.channels), item = (int)(i / pixels / f.channels);
    int row = pixel / f.width, column = pixel % f.width;
    const float* plane = g + ((long long)item * f.inputs + f.first + c) * f.padded_height * f.padded_width;
    float sum = 0.f;
    for (int r = row_starts[row]; r < row_starts[row + 1]; r++)
        for (int k = column_starts[column]; k < column_starts[column + 1]; k++)
            sum += plane[(long long)row_list[r] * f.padded_width + column_list[k]];
    long long to = at(f, item, c, pixel);
    y[to] = keep * v[to] + factor * sum;
}
