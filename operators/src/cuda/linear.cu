// Linear maps made of an index list or a small matrix.

typedef unsigned long long count;

// out[p, i, c] = gain * sum over t < terms of x[p, index[i * terms + t], c], absent where the index is negative; c < parts counts
// the floats of an element. In f64, in the order of the list.
extern "C" __global__ void gather(float* out, const float* x, const int* index, int terms, int parts, count from, count to, double gain, count n) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count c = i % parts, element = i / parts % to, plane = i / parts / to;
    double sum = 0.0;
    for (int t = 0; t < terms; t++) {
        int at = index[element * terms + t];
        if (at >= 0) sum += (double)x[(plane * from + at) * parts + c];
    }
    out[i] = (float)(sum * gain);
}

// x = (b - m) / lambda + m kept, m the mean of the group: `members` lists the elements of every group, `group` the group of
// every element.
extern "C" __global__ void group_solve(float* out, const float* b, const int* group, const int* members, int terms, int parts, count length, double lambda, double kept, count n) {
    count i = blockIdx.x * (count)blockDim.x + threadIdx.x;
    if (i >= n) return;
    count c = i % parts, element = i / parts % length, item = i / parts / length;
    double mean = 0.0;
    for (int t = 0; t < terms; t++) mean += (double)b[(item * length + members[(count)group[element] * terms + t]) * parts + c];
    mean /= (double)terms;
    out[i] = (float)(((double)b[i] - mean) / lambda + mean * kept);
}

// A matrix [rows, length] with few elements in a row, along the middle axis of x [outer, length, inner]:
// out[o, i, n] = sum over t < terms of weight[i * terms + t] * x[o, index[i * terms + t], n], absent where the index is negative.
extern "C" __global__ void taps(float* out, const float* x, const int* index, const float* weight, int terms, unsigned rows, unsigned length, unsigned inner, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned c = i % inner, row = i / inner % rows, plane = i / inner / rows;
    const float* from = x + (count)plane * length * inner + c;
    float sum = 0.0f;
    for (int t = 0; t < terms; t++) {
        int at = index[row * terms + t];
        if (at >= 0) sum += weight[row * terms + t] * from[(count)at * inner];
    }
    out[i] = sum;
}

#define TILE 64
#define DEPTH 16

// The matrix [rows, length] applied along the middle axis of x [outer, length, inner]:
// out[o, i, n] = sum over j of matrix[i * down + j * right] * x[o, j, n]. A column is one (o, n). 256 threads make a tile of 64 rows
// and 64 columns, 4 x 4 each; threads side by side are on neighbouring columns if `wide`, else on neighbouring rows, as they lie in
// memory. Every sum runs over j in order, whatever else is computed.
extern "C" __global__ void along(float* out, const float* x, const float* matrix, int rows, int length, count inner, count columns, count down, count right, int wide) {
    __shared__ float a[DEPTH][TILE + 1], b[DEPTH][TILE + 1];
    count first_column = blockIdx.x * (count)TILE;
    int first_row = blockIdx.y * TILE;
    int fast = threadIdx.x % 16, slow = threadIdx.x / 16;
    int my_row = wide ? slow : fast, my_column = wide ? fast : slow;
    float sums[4][4] = {};
    for (int start = 0; start < length; start += DEPTH) {
        for (int t = threadIdx.x; t < TILE * DEPTH; t += 256) {
            int k = t % DEPTH, i = t / DEPTH;
            bool inside = first_row + i < rows && start + k < length;
            a[k][i] = inside ? matrix[(first_row + i) * down + (start + k) * right] : 0.0f;
        }
        for (int t = threadIdx.x; t < TILE * DEPTH; t += 256) {
            int k = wide ? t / TILE : t % DEPTH, c = wide ? t % TILE : t / DEPTH;
            count column = first_column + c;
            bool inside = column < columns && start + k < length;
            b[k][c] = inside ? x[(column / inner * length + start + k) * inner + column % inner] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < DEPTH; k++)
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) sums[r][c] += a[k][my_row + 16 * r] * b[k][my_column + 16 * c];
        __syncthreads();
    }
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 4; c++) {
            int row = first_row + my_row + 16 * r;
            count column = first_column + my_column + 16 * c;
            if (row < rows && column < columns) out[(column / inner * rows + row) * inner + column % inner] = sums[r][c];
        }
}
