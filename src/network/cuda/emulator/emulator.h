// Runs CUDA C++ on the host, so that kernels are checked where there is no GPU. The threads of a block are fibers. Warp
// instructions wait for all 32 lanes and then do what the PTX ISA says ("Warp-level matrix instructions"). Between barriers a
// warp runs as far as it can while the others stand still, in a random order; a copy happens as early or as late as it may; shared
// memory starts as NaN and pages without access follow every array. A missing barrier or wait, or an index beyond the
// end, shows.
//
// Include this, then the kernels without tensor_core.cu. -DELEMENT as there.
#pragma once
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class To, class From>
To bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
inline float __uint_as_float(unsigned x) { return bits<float>(x); }
inline float __int_as_float(int x) { return bits<float>(x); }
inline unsigned __float_as_uint(float x) { return bits<unsigned>(x); }

struct Copy {
    void* to;
    const void* from;
    int bytes;
    bool inside;
};
struct Fiber {
    ucontext_t context;
    char* stack = nullptr;
    Index index;
    bool done, at_barrier;
    std::vector<Copy> copies;
};
struct Warp {
    const char* call;
    int arrived = 0;
    long generation = 0;
    void* lanes[32];
};

static Fiber* current;
static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static std::function<void()> kernel;
static Index blockIdx, gridDim, blockDim;
static unsigned char* shared_memory;
static size_t shared_bytes;
static std::mt19937 chance(7);

#define threadIdx (current->index)
#define SHARED_MEMORY(name) unsigned char* name = shared_memory

[[noreturn]] inline void fail(const char* what) {
    printf("FAIL: %s, block %u %u %u, thread %u\n", what, blockIdx.x, blockIdx.y, blockIdx.z, current->index.x);
    fflush(stdout);
    _Exit(1);
}
inline void let_others_run() { swapcontext(&current->context, &scheduler); }
inline void __syncthreads() {
    current->at_barrier = true;
    while (current->at_barrier) let_others_run();
}
// The last lane to come executes the instruction for all, on the arguments they brought.
template <class Arguments, class Execute>
void warp_instruction(const char* call, Arguments& mine, Execute execute) {
    Warp& warp = warps[current->index.x / 32];
    if (warp.arrived && warp.call != call) fail("lanes of a warp are at different instructions");
    warp.call = call;
    warp.lanes[current->index.x % 32] = &mine;
    const long generation = warp.generation;
    if (++warp.arrived < 32) {
        while (warp.generation == generation) let_others_run();
        return;
    }
    execute([&](int lane) -> Arguments& { return *static_cast<Arguments*>(warp.lanes[lane]); });
    warp.arrived = 0;
    warp.generation++;
}
inline float __shfl_xor_sync(unsigned, float x, int mask) {
    struct Arguments {
        float x, y;
        int mask;
    } mine = {x, 0, mask};
    warp_instruction("shfl", mine, [](auto lane) {
        for (int l = 0; l < 32; l++) lane(l).y = lane(l ^ lane(l).mask).x;
    });
    return mine.y;
}

// Memory at whose end a page without access begins.
inline unsigned char* guarded(size_t bytes) {
    const size_t page = 4096, whole = (bytes + 15) / 16 * 16, pages = (whole + page - 1) / page * page;
    void* base = mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(static_cast<char*>(base) + pages, page, PROT_NONE)) abort();
    return static_cast<unsigned char*>(base) + pages - whole;
}
template <class T>
T* array(size_t count) {
    T* at = reinterpret_cast<T*>(guarded(count * sizeof(T)));
    memset(at, 0xff, count * sizeof(T));
    return at;
}

inline void enter() {
    kernel();
    current->done = true;
    while (true) let_others_run();
}
inline void run_block() {
    constexpr size_t STACK = 1 << 17;
    memset(shared_memory, 0xff, shared_bytes);
    warps.assign(fibers.size() / 32, Warp{});
    for (unsigned thread = 0; thread < fibers.size(); thread++) {
        Fiber& fiber = fibers[thread];
        if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(STACK));
        fiber.index = {thread, 0, 0};
        fiber.done = fiber.at_barrier = false;
        fiber.copies.clear();
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    std::vector<int> order(warps.size());
    std::iota(order.begin(), order.end(), 0);
    while (true) {
        std::shuffle(order.begin(), order.end(), chance);
        for (int warp : order)
            for (bool running = true; running;) {
                running = false;
                for (int lane = 0; lane < 32; lane++) {
                    current = &fibers[32 * warp + lane];
                    if (current->done || current->at_barrier) continue;
                    swapcontext(&scheduler, &current->context);
                    running |= !(current->done || current->at_barrier);
                }
            }
        const auto waiting = std::count_if(fibers.begin(), fibers.end(), [](auto& fiber) { return fiber.at_barrier; });
        if (!waiting) return;
        if (waiting != static_cast<long>(fibers.size())) fail("not every thread comes to the barrier");
        for (Fiber& fiber : fibers) fiber.at_barrier = false;
    }
}
inline void launch(Index grid, int threads, size_t bytes, std::function<void()> body) {
    gridDim = grid;
    blockDim = {static_cast<unsigned>(threads), 1, 1};
    kernel = body;
    shared_bytes = bytes;
    shared_memory = guarded(bytes);
    fibers.resize(threads);
    std::vector<Index> blocks;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) blocks.push_back({x, y, z});
    std::shuffle(blocks.begin(), blocks.end(), chance);
    for (Index block : blocks) {
        blockIdx = block;
        run_block();
    }
}
