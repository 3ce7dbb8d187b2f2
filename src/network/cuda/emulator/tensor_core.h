// The functions of tensor_core.cu on the host.
#pragma once
#include "emulator.h"

#if ELEMENT == 16
typedef unsigned short Element;
#else
typedef float Element;
#endif

inline float power_of_two(float x) { return exp2f(x); }
inline float exchange(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
inline unsigned short to_bf16(float x) {
    const unsigned u = bits<unsigned>(x);
    return x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
inline float from_bf16(unsigned x) { return bits<float>(x << 16); }
inline unsigned pack_bf16(float low, float high) { return to_bf16(low) | static_cast<unsigned>(to_bf16(high)) << 16; }
inline unsigned round_tf32(float x) { return x != x ? 0x7fffe000 : (bits<unsigned>(x) + 0x1000) & ~0x1fffu; }
inline float from_tf32(unsigned x) {
    if (x & 0x1fff) fail("a factor was not rounded to TF32");
    return bits<float>(x);
}

inline void check_shared(const void* at, int bytes) {
    const auto* address = static_cast<const unsigned char*>(at);
    if (address < shared_memory || address + bytes > shared_memory + shared_bytes) fail("outside of shared memory");
    if (reinterpret_cast<uintptr_t>(at) % bytes) fail("a shared address is not aligned");
}

static long bank_conflicts;
struct Load {
    unsigned* r;
    const char* row;
};
inline void load(const char* call, unsigned (&r)[4], const void* row, bool transposed) {
    check_shared(row, 16);
    Load mine = {r, static_cast<const char*>(row)};
    warp_instruction(call, mine, [=](auto lane) {
        for (int matrix = 0; matrix < 4; matrix++) {
            unsigned banks = 0;
            for (int i = 0; i < 8; i++) {
                const unsigned bank = 1u << reinterpret_cast<uintptr_t>(lane(8 * matrix + i).row) / 16 % 8;
                bank_conflicts += (banks & bank) != 0;
                banks |= bank;
            }
            // Lane l holds elements 2 (l % 4) and the next of row l / 4; transposed, rows 2 (l % 4) and the next of column l / 4.
            for (int l = 0; l < 32; l++)
                for (int e = 0; e < 2; e++) {
                    const int row = transposed ? l % 4 * 2 + e : l / 4, column = transposed ? l / 4 : l % 4 * 2 + e;
                    memcpy(reinterpret_cast<char*>(lane(l).r + matrix) + 2 * e, lane(8 * matrix + row).row + 2 * column, 2);
                }
        }
    });
}
inline void load_matrices(unsigned (&r)[4], const void* row) { load("ldmatrix", r, row, false); }
inline void load_matrices_transposed(unsigned (&r)[4], const void* row) { load("ldmatrix.trans", r, row, true); }

struct Multiply {
    float* c;
    const unsigned* a;
    unsigned b[2];
};
inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    Multiply mine = {c, a, {b0, b1}};
    warp_instruction("mma", mine, [](auto lane) {
        constexpr int K = ELEMENT == 16 ? 16 : 8;
        float left[16][K], right[K][8];
        for (int l = 0; l < 32; l++) {
            const int group = l / 4, t = l % 4;
            if (ELEMENT == 16) {
                for (int i = 0; i < 8; i++)
                    left[group + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = from_bf16(lane(l).a[i / 2] >> i % 2 * 16 & 0xffff);
                for (int i = 0; i < 4; i++) right[2 * t + i % 2 + i / 2 * 8][group] = from_bf16(lane(l).b[i / 2] >> i % 2 * 16 & 0xffff);
            } else {
                for (int i = 0; i < 4; i++) left[group + i % 2 * 8][t + i / 2 * 4] = from_tf32(lane(l).a[i]);
                for (int i = 0; i < 2; i++) right[t + 4 * i][group] = from_tf32(lane(l).b[i]);
            }
        }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++)
                for (int k = 0; k < K; k++) lane(l).c[i] += left[l / 4 + i / 2 * 8][k] * right[k][l % 4 * 2 + i % 2];
    });
}

inline void execute(const Copy& copy) {
    if (copy.inside)
        memcpy(copy.to, copy.from, copy.bytes);
    else
        memset(copy.to, 0, copy.bytes);
}
inline void start_copy(void* to, const void* from, bool inside, int bytes) {
    check_shared(to, bytes);
    if (reinterpret_cast<uintptr_t>(from) % bytes) fail("a global address is not aligned");
    const Copy copy = {to, from, bytes, inside};
    if (chance() % 2) return execute(copy);
    memset(to, 0xff, bytes);
    current->copies.push_back(copy);
}
inline void copy_16(void* to, const void* from, bool inside) { start_copy(to, from, inside, 16); }
inline void copy_8(void* to, const void* from, bool inside) { start_copy(to, from, inside, 8); }
inline void finish_copies() {
    for (const Copy& copy : current->copies) execute(copy);
    current->copies.clear();
}
