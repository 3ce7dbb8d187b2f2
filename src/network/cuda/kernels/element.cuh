// The element type of activations and the conversions of eight neighbouring channels.
// ELEMENT_BITS 16: bfloat16; 32: float. ROUND_TF32: stored floats are rounded to the 10-bit mantissa the tensor cores read.

typedef unsigned int u32;
typedef unsigned long long u64;

#if ELEMENT_BITS == 16
typedef unsigned short element;
#else
typedef float element;
#endif

__device__ __forceinline__ float low_half(u32 v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float high_half(u32 v) { return __uint_as_float(v & 0xffff0000u); }
__device__ __forceinline__ u32 pack_halves(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ float round_tf32(float v) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return __uint_as_float(r);
}

__device__ __forceinline__ float value(float v) { return v; }
#if ELEMENT_BITS == 16
__device__ __forceinline__ float value(element v) { return low_half(v); }
#endif
__device__ __forceinline__ void load8(const float* p, float* f) {
    float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    f[0] = a.x, f[1] = a.y, f[2] = a.z, f[3] = a.w, f[4] = b.x, f[5] = b.y, f[6] = b.z, f[7] = b.w;
}
__device__ __forceinline__ void store8(float* p, const float* f) {
    ((float4*)p)[0] = make_float4(f[0], f[1], f[2], f[3]);
    ((float4*)p)[1] = make_float4(f[4], f[5], f[6], f[7]);
}
#if ELEMENT_BITS == 16
__device__ __forceinline__ void load8(const element* p, float* f) {
    uint4 v = *(const uint4*)p;
    f[0] = low_half(v.x), f[1] = high_half(v.x), f[2] = low_half(v.y), f[3] = high_half(v.y);
    f[4] = low_half(v.z), f[5] = high_half(v.z), f[6] = low_half(v.w), f[7] = high_half(v.w);
}
__device__ __forceinline__ void store8(element* p, const float* f) {
    *(uint4*)p = make_uint4(pack_halves(f[0], f[1]), pack_halves(f[2], f[3]), pack_halves(f[4], f[5]),
                            pack_halves(f[6], f[7]));
}
#endif
// N values as they lie in memory: loads can be under way while others are computed with.
template <int N>
struct Raw {
    u32 words[N * ELEMENT_BITS / 32];
};
template <int N>
__device__ __forceinline__ Raw<N> load_raw(const element* p) {
    constexpr int words = N * ELEMENT_BITS / 32;
    Raw<N> r;
    if constexpr (words == 1) {
        r.words[0] = *(const u32*)p;
    } else if constexpr (words == 2) {
        uint2 v = *(const uint2*)p;
        r.words[0] = v.x, r.words[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < words / 4; i++) {
            uint4 v = ((const uint4*)p)[i];
            r.words[4 * i] = v.x, r.words[4 * i + 1] = v.y, r.words[4 * i + 2] = v.z, r.words[4 * i + 3] = v.w;
        }
    }
    return r;
}
template <int N>
__device__ __forceinline__ void unpack(const Raw<N>& r, float* f) {
#pragma unroll
    for (int i = 0; i < N * ELEMENT_BITS / 32; i++)
#if ELEMENT_BITS == 16
        f[2 * i] = low_half(r.words[i]), f[2 * i + 1] = high_half(r.words[i]);
#else
        f[i] = __uint_as_float(r.words[i]);
#endif
}
template <int N, typename T>
__device__ __forceinline__ void store_values(T* p, const float* f) {
    if constexpr (N == 8) {
        store8(p, f);
    } else {
        static_assert(N == 2);
        if constexpr (sizeof(T) == 4) {
            *(float2*)p = make_float2(f[0], f[1]);
        } else {
            *(u32*)p = pack_halves(f[0], f[1]);
        }
    }
}
template <int N>
__device__ __forceinline__ void load_floats(const float* p, float* f) {
    if constexpr (N == 8) {
        load8(p, f);
    } else {
        static_assert(N == 2);
        float2 v = *(const float2*)p;
        f[0] = v.x, f[1] = v.y;
    }
}
// Values that a tensor core reads next. It cuts off what it does not take: all gradients would come out smaller.
template <int N>
__device__ __forceinline__ void round_operand(float* f) {
#if ELEMENT_BITS == 32 && ROUND_TF32
#pragma unroll
    for (int k = 0; k < N; k++) f[k] = round_tf32(f[k]);
#endif
}
__device__ __forceinline__ void store8_operand(element* p, float* f) {
    round_operand<8>(f);
    store8(p, f);
}

__device__ __forceinline__ float sigmoid(float v) {
#if EXACT
    return 1.f / (1.f + expf(-v));
#elif ELEMENT_BITS == 16
    // Off by up to 2.5e-4, an eighth of the rounding of a bfloat16 of size 1, in half the instructions.
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.5f * v));
    return 0.5f + 0.5f * t;
#else
    return __fdividef(1.f, 1.f + __expf(-v));
#endif
}
__device__ __forceinline__ float silu(float v) { return v * sigmoid(v); }
// The slope of SiLU at 2h: s (1 + 2h (1 - s)), s = sigmoid(2h).
__device__ __forceinline__ float silu_slope_at_twice(float h) {
#if ELEMENT_BITS == 16 && !EXACT
    // s = (1 + t) / 2, t = tanh(h), so that 2h (1 - s) = h - h t.
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(h));
    return (0.5f + 0.5f * t) * ((1.f + h) - h * t);
#else
    float s = sigmoid(2.f * h);
    return s * (1.f + 2.f * h * (1.f - s));
#endif
}

// A kernel may start before the one it follows has ended (programmatic dependent launch). What it does before this line must not
// touch anything that one writes.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The one that follows may take its place on the device at once: it waits in turn.
__device__ __forceinline__ void after_predecessor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
    wait_for_predecessor();
}
