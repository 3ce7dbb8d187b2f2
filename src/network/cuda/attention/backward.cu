// The transposed Jacobian of the forward pass: qkv, statistics and d_out -> d_qkv, laid out like qkv.
//
//   P = exp(S - lse), dP = d_out v^T, dS = P (dP - <d_out, out>);  dv = P^T d_out, dk = dS^T q / sqrt(DEPTH), dq = dS k / sqrt(DEPTH)
//
// Half of the blocks own a tile of keys and visit the queries, half own queries and visit the keys. That computes S and dP
// twice, but nothing is added up across blocks: the same bits every time.
// Grid: 2 * tiles of ROWS pixels (keys first), heads * SLICES, batch.

constexpr int KEPT = PADDED * ROW_TILES * sizeof(Element) <= 128 ? PADDED / STEP : 1;

// A matrix [pixel][channel] in global memory.
struct Matrix {
    const Element* at;
    long long stride;
};

// Rows x, y and columns u, w: keys own (k, v) and visit (q, d_out), queries own (q, d_out) and visit (k, v).
template <bool KEYS>
__device__ __forceinline__ void pull_back(unsigned char* memory, Matrix x, Matrix y, Matrix u, Matrix w, const float2* statistics,
                                          Element* dx, Element* dy, long long stride, int first, int pixels, int channel) {
    Element* const x_tile = reinterpret_cast<Element*>(memory);
    Element* const y_tile = x_tile + ROWS * PITCH;
    Element* const u_tiles = y_tile + ROWS * PITCH;
    Element* const w_tiles = u_tiles + STAGES * COLUMNS * PITCH;
    float2* const query_tiles = reinterpret_cast<float2*>(w_tiles + STAGES * COLUMNS * PITCH);
    const int tiles = (pixels + COLUMNS - 1) / COLUMNS, lane = threadIdx.x % 32;

    auto copy = [&](int tile) {
        const int stage = tile % STAGES, begin = tile * COLUMNS;
        copy_tile<COLUMNS, PADDED>(u_tiles + stage * COLUMNS * PITCH, u.at, u.stride, begin, pixels, 0);
        copy_tile<COLUMNS, PADDED>(w_tiles + stage * COLUMNS * PITCH, w.at, w.stride, begin, pixels, 0);
        if (KEYS) {
#pragma unroll
            for (int at = threadIdx.x; at < COLUMNS; at += THREADS) {
                const bool inside = begin + at < pixels;
                copy_8(query_tiles + stage * COLUMNS + at, statistics + (inside ? begin + at : 0), inside);
            }
        }
    };
    copy_tile<ROWS, PADDED>(x_tile, x.at, x.stride, first, pixels, 0);
    copy_tile<ROWS, PADDED>(y_tile, y.at, y.stride, first, pixels, 0);
    copy(0);

    const float scale = LOG2_E / sqrtf(static_cast<float>(DEPTH));
    unsigned x_kept[KEPT][ROW_TILES][4], y_kept[KEPT][ROW_TILES][4];
    float x_sums[ROW_TILES][SLICE / 8][4], y_sums[ROW_TILES][SLICE / 8][4];
    float2 own[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pixel = first + (threadIdx.x / 32 * ROW_TILES + m) * 16 + half * 8 + lane / 4;
            own[m][half] = !KEYS && pixel < pixels ? statistics[pixel] : make_float2(0.0f, 0.0f);
        }
#pragma unroll
        for (int n = 0; n < SLICE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) x_sums[m][n][e] = y_sums[m][n][e] = 0.0f;
    }

    for (int tile = 0; tile < tiles; tile++) {
        Element* const u_tile = u_tiles + tile % STAGES * COLUMNS * PITCH;
        Element* const w_tile = w_tiles + tile % STAGES * COLUMNS * PITCH;
        const float2* const queries = query_tiles + tile % STAGES * COLUMNS + lane % 4 * 2;
        finish_copies();
        if (tile == 0) {
            round_tile<ROWS, PADDED>(x_tile);
            round_tile<ROWS, PADDED>(y_tile);
        }
        round_tile<COLUMNS, PADDED>(u_tile);
        round_tile<COLUMNS, PADDED>(w_tile);
        // Every copy is seen by all, and the tile before is done with: its place is free.
        __syncthreads();
        if (STAGES > 1 && tile + 1 < tiles) copy(tile + 1);
        if (tile == 0) {
            keep(x_kept, x_tile);
            keep(y_kept, y_tile);
        }

        float p[ROW_TILES][COLUMNS / 8][4], dp[ROW_TILES][COLUMNS / 8][4];
        products(p, x_tile, x_kept, u_tile);
        if ((tile + 1) * COLUMNS > pixels) mask(p, pixels - tile * COLUMNS);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float visited = KEYS ? queries[8 * n + e % 2].x : 0.0f;
#pragma unroll
                for (int m = 0; m < ROW_TILES; m++)
                    p[m][n][e] = power_of_two(fmaf(p[m][n][e], scale, -(KEYS ? visited : own[m][e / 2].x)));
            }
        if (KEYS) accumulate<PITCH>(y_sums, p, w_tile, channel);
        products(dp, y_tile, y_kept, w_tile);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float visited = KEYS ? queries[8 * n + e % 2].y : 0.0f;
#pragma unroll
                for (int m = 0; m < ROW_TILES; m++) dp[m][n][e] = p[m][n][e] * (dp[m][n][e] - (KEYS ? visited : own[m][e / 2].y));
            }
        accumulate<PITCH>(x_sums, dp, u_tile, channel);
        if (STAGES == 1 && tile + 1 < tiles) {
            __syncthreads();
            copy(tile + 1);
        }
    }

    float x_scale[ROW_TILES][2], y_scale[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) x_scale[m][half] = scale * LN_2, y_scale[m][half] = 1.0f;
    store_rows(dx, stride, x_sums, x_scale, first, pixels, channel);
    if (KEYS) store_rows(dy, stride, y_sums, y_scale, first, pixels, channel);
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_backward(const Element* __restrict__ qkv, const Element* __restrict__ d_out,
                                                                         const float2* __restrict__ statistics, Element* __restrict__ d_qkv,
                                                                         int pixels, int heads) {
    SHARED_MEMORY(memory);
    const int head = blockIdx.y / SLICES, channel = blockIdx.y % SLICES * SLICE, tiles = gridDim.x / 2;
    const long long channels = heads * DEPTH, stride = 3 * channels, item = static_cast<long long>(blockIdx.z) * pixels;
    const Matrix q = {qkv + item * stride + head * DEPTH, stride}, k = {q.at + channels, stride}, v = {k.at + channels, stride};
    const Matrix gradient = {d_out + item * channels + head * DEPTH, channels};
    Element* const dq = d_qkv + item * stride + head * DEPTH;
    const float2* const queries = statistics + item * heads + static_cast<long long>(head) * pixels;
    const int tile = blockIdx.x % tiles;
    if (blockIdx.x < tiles)
        pull_back<true>(memory, k, v, q, gradient, queries, dq + channels, dq + 2 * channels, stride, tile * ROWS, pixels, channel);
    else
        pull_back<false>(memory, q, gradient, k, v, queries, dq, dq, stride, tile * ROWS, pixels, channel);
}
