// Tiles of [pixel][channel] matrices in shared memory, and the fragments the matrix instructions read from them.
//
// -DDEPTH: channels of a head. A block has WARPS warps of ROW_TILES * 16 rows each; it visits the other side COLUMNS
// pixels at a time, STAGES tiles of them in flight. Depths beyond 128 are written SLICE channels a block.

constexpr int VECTOR = 16 / sizeof(Element);
// Depth of one matrix instruction.
constexpr int STEP = 32 / sizeof(Element);
constexpr int PADDED = (DEPTH + 15) / 16 * 16;
constexpr int THREADS = 32 * WARPS;
constexpr int ROWS = 16 * ROW_TILES * WARPS;

__device__ constexpr int widest_slice(int width) { return width <= 128 && PADDED % width == 0 ? width : widest_slice(width - 16); }
constexpr int SLICE = widest_slice(PADDED);
constexpr int SLICES = PADDED / SLICE;

// An odd number of 16-byte units, so that eight rows of a matrix lie in different banks.
constexpr int PITCH = PADDED + VECTOR;
constexpr int SLICE_PITCH = SLICE + VECTOR;

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// Starts the copy of pixels first.. of channels column.. (of the head); zeros beyond the last pixel or channel.
template <int TALL, int WIDE>
__device__ __forceinline__ void copy_tile(Element* tile, const Element* from, long long stride, int first, int pixels, int column) {
    constexpr int PER_ROW = WIDE / VECTOR, ALL = TALL * PER_ROW;
#pragma unroll(PADDED <= 64 ? 8 : 4)
    for (int begin = 0; begin < ALL; begin += THREADS) {
        const int at = begin + threadIdx.x;
        if (begin + THREADS > ALL && at >= ALL) break;
        const int row = at / PER_ROW, channel = at % PER_ROW * VECTOR;
        const bool inside = first + row < pixels && column + channel < DEPTH;
        const Element* source = inside ? from + (first + row) * stride + column + channel : from;
        copy_16(tile + row * (WIDE + VECTOR) + channel, source, inside);
    }
}

// Rounds, after finish_copies, what the same thread copied: mma would truncate.
template <int TALL, int WIDE>
__device__ __forceinline__ void round_tile(Element* tile) {
#if ELEMENT == 32
    constexpr int PER_ROW = WIDE / VECTOR, ALL = TALL * PER_ROW;
#pragma unroll(PADDED <= 64 ? 8 : 4)
    for (int begin = 0; begin < ALL; begin += THREADS) {
        const int at = begin + threadIdx.x;
        if (begin + THREADS > ALL && at >= ALL) break;
        uint4* quad = reinterpret_cast<uint4*>(tile + at / PER_ROW * (WIDE + VECTOR) + at % PER_ROW * VECTOR);
        const float4 x = *reinterpret_cast<const float4*>(quad);
        *quad = make_uint4(round_tf32(x.x), round_tf32(x.y), round_tf32(x.z), round_tf32(x.w));
    }
#endif
}

// Left factor: rows row.. +16, STEP channels from `channel`.
__device__ __forceinline__ void left_fragment(unsigned (&a)[4], const Element* tile, int row, int channel) {
    const int lane = threadIdx.x % 32;
    load_matrices(a, tile + (row + lane % 16) * PITCH + channel + lane / 16 * VECTOR);
}

// Right factor of x y^T: columns are the rows row.. +16 of the tile, STEP channels from `channel`. b[0..2] is for the first eight.
__device__ __forceinline__ void right_fragment(unsigned (&b)[4], const Element* tile, int row, int channel) {
    const int lane = threadIdx.x % 32;
    load_matrices(b, tile + (row + lane % 8 + lane / 16 * 8) * PITCH + channel + lane / 8 % 2 * VECTOR);
}

// Right factor of p y: STEP rows of the tile from `row`, 16 channels from `channel`.
template <int TILE_PITCH>
__device__ __forceinline__ void right_fragment_by_row(unsigned (&b)[4], const Element* tile, int row, int channel) {
    const int lane = threadIdx.x % 32;
#if ELEMENT == 16
    load_matrices_transposed(b, tile + (row + lane % 16) * TILE_PITCH + channel + lane / 16 * 8);
#else
    // ldmatrix cannot transpose 4-byte elements. Step t of the product is row 2t, step t + 4 row 2t + 1: what
    // left_from_sums holds, without a shuffle.
    const float* at = tile + (row + lane % 4 * 2) * TILE_PITCH + channel + lane / 4;
    b[0] = __float_as_uint(at[0]);
    b[1] = __float_as_uint(at[TILE_PITCH]);
    b[2] = __float_as_uint(at[8]);
    b[3] = __float_as_uint(at[TILE_PITCH + 8]);
#endif
}

// Left factor made of the sums of a product: columns step * STEP.. of `sums`.
__device__ __forceinline__ void left_from_sums(unsigned (&a)[4], const float (&sums)[COLUMNS / 8][4], int step) {
#if ELEMENT == 16
    a[0] = pack_bf16(sums[2 * step][0], sums[2 * step][1]);
    a[1] = pack_bf16(sums[2 * step][2], sums[2 * step][3]);
    a[2] = pack_bf16(sums[2 * step + 1][0], sums[2 * step + 1][1]);
    a[3] = pack_bf16(sums[2 * step + 1][2], sums[2 * step + 1][3]);
#else
    a[0] = round_tf32(sums[step][0]);
    a[1] = round_tf32(sums[step][2]);
    a[2] = round_tf32(sums[step][1]);
    a[3] = round_tf32(sums[step][3]);
#endif
}

// sums = x y^T: this warp's rows of `left` (in registers if kept) with the COLUMNS rows of `right`.
template <int KEPT>
__device__ __forceinline__ void products(float (&sums)[ROW_TILES][COLUMNS / 8][4], const Element* left,
                                         const unsigned (&kept)[KEPT][ROW_TILES][4], const Element* right) {
    const int row = threadIdx.x / 32 * 16 * ROW_TILES;
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[m][n][e] = 0.0f;
#pragma unroll(PADDED <= 128 ? PADDED / STEP : 2)
    for (int step = 0; step < PADDED / STEP; step++) {
        unsigned a[ROW_TILES][4];
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++) {
            if (KEPT > 1) {
#pragma unroll
                for (int e = 0; e < 4; e++) a[m][e] = kept[step % KEPT][m][e];
            } else {
                left_fragment(a[m], left, row + 16 * m, step * STEP);
            }
        }
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            unsigned b[4];
            right_fragment(b, right, 16 * n, step * STEP);
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) {
                multiply_add(sums[m][2 * n], a[m], b[0], b[1]);
                multiply_add(sums[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// total += p y: `weights` are sums of `products`, `right` the same COLUMNS pixels, its SLICE channels from `channel`.
template <int TILE_PITCH>
__device__ __forceinline__ void accumulate(float (&total)[ROW_TILES][SLICE / 8][4], const float (&weights)[ROW_TILES][COLUMNS / 8][4],
                                           const Element* right, int channel) {
#pragma unroll
    for (int step = 0; step < COLUMNS / STEP; step++) {
        unsigned a[ROW_TILES][4];
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++) left_from_sums(a[m], weights[m], step);
#pragma unroll
        for (int n = 0; n < SLICE / 16; n++) {
            unsigned b[4];
            right_fragment_by_row<TILE_PITCH>(b, right, step * STEP, channel + 16 * n);
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) {
                multiply_add(total[m][2 * n], a[m], b[0], b[1]);
                multiply_add(total[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int KEPT>
__device__ __forceinline__ void keep(unsigned (&kept)[KEPT][ROW_TILES][4], const Element* left) {
    const int row = threadIdx.x / 32 * 16 * ROW_TILES;
    if (KEPT > 1) {
#pragma unroll
        for (int step = 0; step < KEPT; step++)
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) left_fragment(kept[step][m], left, row + 16 * m, step * STEP);
    }
}

// Logits of pixels that do not exist: `left` columns exist.
__device__ __forceinline__ void mask(float (&logits)[ROW_TILES][COLUMNS / 8][4], int left) {
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (8 * n + threadIdx.x % 4 * 2 + e % 2 >= left)
#pragma unroll
                for (int m = 0; m < ROW_TILES; m++) logits[m][n][e] = __int_as_float(0xff800000);
}

// Two neighbouring channels, which a convolution reads next.
__device__ __forceinline__ void store_pair(Element* to, float x, float y) {
#if ELEMENT == 16
    *reinterpret_cast<unsigned*>(to) = pack_bf16(x, y);
#else
    *reinterpret_cast<float2*>(to) = make_float2(__uint_as_float(round_tf32(x)), __uint_as_float(round_tf32(y)));
#endif
}

// Writes this warp's rows, scaled, as pixels first.. and SLICE channels from `channel` of the head.
__device__ __forceinline__ void store_rows(Element* to, long long stride, const float (&total)[ROW_TILES][SLICE / 8][4],
                                           const float (&scale)[ROW_TILES][2], int first, int pixels, int channel) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pixel = first + (threadIdx.x / 32 * ROW_TILES + m) * 16 + half * 8 + lane / 4;
            if (pixel >= pixels) continue;
#pragma unroll
            for (int n = 0; n < SLICE / 8; n++) {
                const int at = channel + 8 * n + lane % 4 * 2;
                if (at < DEPTH)
                    store_pair(to + pixel * stride + at, total[m][n][2 * half] * scale[m][half], total[m][n][2 * half + 1] * scale[m][half]);
            }
        }
}
