// out = softmax(q^T k / sqrt(DEPTH)) v for each head (Dao, "FlashAttention-2", 2023), and the log-sum-exp of the logits.
//
// qkv [batch][pixels][q | k | v][heads][DEPTH], out [batch][pixels][heads][DEPTH], lse [batch][heads][pixels] or null.
// Grid: tiles of ROWS queries, heads * SLICES, batch.

constexpr int KEPT = PADDED * ROW_TILES * sizeof(Element) <= 256 ? PADDED / STEP : 1;

extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(const Element* __restrict__ qkv, Element* __restrict__ out,
                                                                        float* __restrict__ lse, int pixels, int heads) {
    SHARED_MEMORY(memory);
    Element* const q_tile = reinterpret_cast<Element*>(memory);
    Element* const k_tiles = q_tile + ROWS * PITCH;
    Element* const v_tiles = k_tiles + STAGES * COLUMNS * PITCH;

    const int head = blockIdx.y / SLICES, channel = blockIdx.y % SLICES * SLICE;
    const long long channels = heads * DEPTH, stride = 3 * channels;
    const Element* const q = qkv + blockIdx.z * pixels * stride + head * DEPTH;
    const Element *const k = q + channels, *const v = k + channels;
    const int first = blockIdx.x * ROWS, tiles = (pixels + COLUMNS - 1) / COLUMNS;

    auto copy = [&](int tile) {
        const int stage = tile % STAGES;
        copy_tile<COLUMNS, PADDED>(k_tiles + stage * COLUMNS * PITCH, k, stride, tile * COLUMNS, pixels, 0);
        copy_tile<COLUMNS, SLICE>(v_tiles + stage * COLUMNS * SLICE_PITCH, v, stride, tile * COLUMNS, pixels, channel);
    };
    copy_tile<ROWS, PADDED>(q_tile, q, stride, first, pixels, 0);
    copy(0);

    // Folds the change of base into the scale of the logits.
    const float scale = LOG2_E / sqrtf(static_cast<float>(DEPTH));
    unsigned q_kept[KEPT][ROW_TILES][4];
    float sums[ROW_TILES][SLICE / 8][4], largest[ROW_TILES][2], total[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++) {
        largest[m][0] = largest[m][1] = __int_as_float(0xff800000);
        total[m][0] = total[m][1] = 0.0f;
#pragma unroll
        for (int n = 0; n < SLICE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[m][n][e] = 0.0f;
    }

    for (int tile = 0; tile < tiles; tile++) {
        Element* const k_tile = k_tiles + tile % STAGES * COLUMNS * PITCH;
        Element* const v_tile = v_tiles + tile % STAGES * COLUMNS * SLICE_PITCH;
        finish_copies();
        if (tile == 0) round_tile<ROWS, PADDED>(q_tile);
        round_tile<COLUMNS, PADDED>(k_tile);
        round_tile<COLUMNS, SLICE>(v_tile);
        // Every copy is seen by all, and the tile before is done with: its place is free.
        __syncthreads();
        if (STAGES > 1 && tile + 1 < tiles) copy(tile + 1);
        if (tile == 0) keep(q_kept, q_tile);

        float logits[ROW_TILES][COLUMNS / 8][4];
        products(logits, q_tile, q_kept, k_tile);
        if ((tile + 1) * COLUMNS > pixels) mask(logits, pixels - tile * COLUMNS);
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = largest[m][half];
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++) top = fmaxf(top, fmaxf(logits[m][n][2 * half], logits[m][n][2 * half + 1]));
                top = fmaxf(top, exchange(top, 1));
                top = fmaxf(top, exchange(top, 2));
                const float fade = power_of_two((largest[m][half] - top) * scale), shift = top * scale;
                largest[m][half] = top;
                float part = 0.0f;
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; e++) {
                        logits[m][n][e] = power_of_two(fmaf(logits[m][n][e], scale, -shift));
                        part += logits[m][n][e];
                    }
                total[m][half] = fmaf(total[m][half], fade, part);
#pragma unroll
                for (int n = 0; n < SLICE / 8; n++) {
                    sums[m][n][2 * half] *= fade;
                    sums[m][n][2 * half + 1] *= fade;
                }
            }
        accumulate<SLICE_PITCH>(sums, logits, v_tile, 0);
        if (STAGES == 1 && tile + 1 < tiles) {
            __syncthreads();
            copy(tile + 1);
        }
    }

    float inverse[ROW_TILES][2];
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = total[m][half];
            sum += exchange(sum, 1);
            sum += exchange(sum, 2);
            inverse[m][half] = 1.0f / sum;
            const int pixel = first + (threadIdx.x / 32 * ROW_TILES + m) * 16 + half * 8 + threadIdx.x % 32 / 4;
            if (lse && channel == 0 && threadIdx.x % 4 == 0 && pixel < pixels)
                lse[(static_cast<long long>(blockIdx.z) * heads + head) * pixels + pixel] = largest[m][half] * scale * LN_2 + logf(sum);
        }
    store_rows(out + blockIdx.z * pixels * channels + head * DEPTH, channels, sums, inverse, first, pixels, channel);
}
