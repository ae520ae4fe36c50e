// Just enough of CUDA to run csrc/cuda on a CPU: every thread of a cluster is a fiber, barriers and warp operations are
// where fibers change. Between two barriers the order of the threads is free, so `order` (0 rising, 1 falling, else a
// shuffle by that seed) turns a missing barrier into another result, and so does `ahead`: each block of a cluster, or
// each warp, goes as far as it can before the others. Shared memory starts out poisoned, and is again once its block
// has left. Asynchronous copies poison their target and happen when they are waited for.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "plan.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct alignas(16) double2 {
    double x, y;
};

struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};

namespace emulated {

struct Barrier {
    int arrived = 0;
    int64_t generation = 0;
};

struct Packet {  // what one lane shows its warp
    uint64_t words[3];
};

struct Copy {
    void* to;
    const void* from;
    size_t size, zeros;
};

// A product of a warpgroup that has not been waited for: c of one thread, an operand in shared memory or in registers.
struct Product {
    int* c;
    int numbers;
    const uint8_t* a;
    int ka;
    const uint8_t* b;
    int kb;
    bool add;
    int16_t rows[2][32];
};

struct Matrix {  // what a TensorMap holds
    const uint8_t* rows;
    int64_t n, d;
    int together;  // rows of a tile
};

constexpr size_t kAligned = 1024;  // where shared memory starts

struct Block {
    std::vector<unsigned char> shared;
    Barrier barrier;
    std::vector<Barrier> warps;
    std::vector<std::array<Packet, 32>> exchange;
    uint3 index;
    unsigned rank;
    bool left = false;  // all its threads are done
};

struct Fiber {
    ucontext_t context;  // for the first entry; later ones are jumps, which cost no system call
    jmp_buf resume;
    std::unique_ptr<unsigned char[]> stack;
    Block* block;
    uint3 thread;
    bool started, done;
    std::vector<std::vector<Copy>> copies;       // under way, by commit; the last ones are not committed yet
    int64_t atomics;                             // done so far
    std::vector<std::vector<Product>> products;  // by commit, like the copies
};

constexpr size_t kStack = 64 << 10;

inline jmp_buf scheduler;
inline std::exception_ptr failure;
inline Fiber* current = nullptr;
inline std::vector<Block>* cluster = nullptr;
inline Barrier cluster_barrier;
inline int threads_per_block = 0;
inline uint3 grid;
inline int64_t progress = 0;
inline unsigned order = 0;
enum class Ahead { none, blocks, warps };
inline Ahead ahead = Ahead::none;
inline geodiff::cuda::Machine machine{2, 232448, true, 0, false};
inline std::vector<int> groups;  // multiprocessors that a cluster can lie in; empty: all in one
inline bool clusters_compiled = true;
inline unsigned most_blocks = 65535;  // of a grid along y and z
inline int64_t most_blocks_along_x = INT32_MAX;
// Of atomic additions in shared memory and of loads of matrices from there: the most lanes of a warp that meet in a
// bank, at different places of it.
inline int worst_conflict = 0;
inline std::map<std::pair<std::pair<Block*, unsigned>, int64_t>, std::array<std::vector<const void*>, 32>> atomics;
inline void (*body)(void*) = nullptr;
inline void* body_argument = nullptr;

// Blocks of two hundred and fifty-six threads with 128 registers each: two on a multiprocessor.
inline int resident_clusters(const geodiff::cuda::Machine& on, int cluster, size_t shared) {
    const int64_t reserved = 1024, fitting = (on.shared + reserved) / (int64_t(shared) + reserved);
    const int per = int(std::min<int64_t>(2, fitting));
    int found = 0;
    for (const int size : groups.empty() ? std::vector<int>{on.multiprocessors} : groups) found += size * per / cluster;
    return found;
}

inline void run(Fiber& f) {
    current = &f;
    if (_setjmp(scheduler) != 0) return;
    if (f.started) _longjmp(f.resume, 1);
    f.started = true;
    setcontext(&f.context);
}

inline void wait(Barrier& b, int count) {
    const int64_t mine = b.generation;
    ++progress;
    if (++b.arrived == count) {
        b.arrived = 0;
        ++b.generation;
        return;
    }
    while (b.generation == mine)
        if (_setjmp(current->resume) == 0) _longjmp(scheduler, 1);
}

inline void enter() {
    try {
        body(body_argument);
    } catch (...) {
        failure = std::current_exception();
    }
    current->done = true;
    ++progress;
    _longjmp(scheduler, 1);
}

inline unsigned char* aligned(Block& block) {
    return reinterpret_cast<unsigned char*>((uintptr_t(block.shared.data()) + kAligned - 1) / kAligned * kAligned);
}

inline int lane() { return int(current->thread.x % 32); }
inline int warp() { return int(current->thread.x / 32); }
inline void sync_warp() { wait(current->block->warps[size_t(warp())], 32); }

template <class T>
T from_lane(T value, int source) {
    auto& slots = current->block->exchange[size_t(warp())];
    std::memcpy(&slots[size_t(lane())], &value, sizeof value);
    sync_warp();
    T out;
    std::memcpy(&out, &slots[size_t(source)], sizeof out);
    sync_warp();
    return out;
}

// What every lane shows, in `all`.
template <class T>
void from_all(const T& value, T (&all)[32]) {
    auto& slots = current->block->exchange[size_t(warp())];
    std::memcpy(&slots[size_t(lane())], &value, sizeof value);
    sync_warp();
    for (size_t i = 0; i < 32; ++i) std::memcpy(&all[i], &slots[i], sizeof value);
    sync_warp();
}

template <class Args>
void launch(void (*kernel)(Args), uint3 size, int blocks_per_cluster, int threads, size_t shared, const Args& args) {
    struct Call {
        void (*kernel)(Args);
        const Args* args;
    } call{kernel, &args};
    if (size.x > most_blocks_along_x || size.y > most_blocks || size.z > most_blocks ||
        size.x % unsigned(blocks_per_cluster) != 0 || int64_t(shared) > machine.shared)
        throw std::runtime_error("invalid configuration of a launch");
    body = [](void* p) { static_cast<Call*>(p)->kernel(*static_cast<Call*>(p)->args); };
    body_argument = &call;
    threads_per_block = threads;
    grid = size;
    std::vector<Fiber> fibers(size_t(blocks_per_cluster * threads));
    for (Fiber& f : fibers) f.stack.reset(new unsigned char[kStack]);
    std::mt19937 random(order);
    std::vector<size_t> turn(fibers.size());
    for (size_t i = 0; i < turn.size(); ++i) turn[i] = order == 1 ? turn.size() - 1 - i : i;
    if (order > 1) std::shuffle(turn.begin(), turn.end(), random);
    for (unsigned z = 0; z < size.z; ++z)
        for (unsigned y = 0; y < size.y; ++y)
            for (unsigned x = 0; x < size.x; x += unsigned(blocks_per_cluster)) {
                std::vector<Block> blocks(static_cast<size_t>(blocks_per_cluster));
                cluster = &blocks;
                cluster_barrier = {};
                for (size_t b = 0; b < blocks.size(); ++b) {
                    blocks[b].shared.assign(shared + kAligned, 0xcd);
                    blocks[b].warps.resize(size_t(threads / 32));
                    blocks[b].exchange.resize(size_t(threads / 32));
                    blocks[b].index = {x + unsigned(b), y, z};
                    blocks[b].rank = unsigned(b);
                }
                for (size_t i = 0; i < fibers.size(); ++i) {
                    Fiber& f = fibers[i];
                    f.block = &blocks[i / size_t(threads)];
                    f.thread = {unsigned(i) % unsigned(threads), 0, 0};
                    f.started = f.done = false;
                    f.copies.assign(1, {});
                    f.products.assign(1, {});
                    f.atomics = 0;
                    getcontext(&f.context);
                    f.context.uc_stack.ss_sp = f.stack.get();
                    f.context.uc_stack.ss_size = kStack;
                    makecontext(&f.context, enter, 0);
                }
                atomics.clear();
                std::vector<size_t> running(blocks.size(), size_t(threads));
                const auto sweep = [&](auto&& wanted) {  // whether anything happened
                    const int64_t before = progress;
                    for (size_t i : turn) {
                        const size_t b = i / size_t(threads);
                        if (fibers[i].done || !wanted(i)) continue;
                        run(fibers[i]);
                        if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
                        if (fibers[i].done && --running[b] == 0) {
                            std::fill(blocks[b].shared.begin(), blocks[b].shared.end(), 0xcd);
                            blocks[b].left = true;
                        }
                    }
                    return progress != before;
                };
                for (bool any = true; any;) {
                    any = false;
                    const size_t all = fibers.size();
                    const size_t unit = ahead == Ahead::none ? all : ahead == Ahead::blocks ? size_t(threads) : 32;
                    for (size_t k = 0; k < all / unit; ++k) {
                        const size_t mine = order == 1 ? all / unit - 1 - k : k;
                        while (sweep([&](size_t fiber) { return fiber / unit == mine; })) any = true;
                    }
                }
                for (const Fiber& f : fibers)
                    if (!f.done) throw std::logic_error("threads wait at different barriers");
            }
}

}  // namespace emulated

#define threadIdx (emulated::current->thread)
#define blockIdx (emulated::current->block->index)
#define gridDim (emulated::grid)

inline void __syncthreads() { emulated::wait(emulated::current->block->barrier, emulated::threads_per_block); }
inline void __syncwarp() { emulated::sync_warp(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulated::from_lane(value, emulated::lane() ^ mask);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    bool all[32];
    emulated::from_all(predicate != 0, all);
    unsigned out = 0;
    for (int i = 0; i < 32; ++i) out |= unsigned(all[i]) << i;
    return out;
}
inline unsigned __reduce_add_sync(unsigned, unsigned value) {
    unsigned all[32], out = 0;
    emulated::from_all(value, all);
    for (const unsigned one : all) out += one;
    return out;
}
inline int __reduce_max_sync(unsigned, int value) {
    int all[32];
    emulated::from_all(value, all);
    return *std::max_element(all, all + 32);
}
inline int __ffs(unsigned v) { return __builtin_ffs(int(v)); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t both = uint64_t(y) << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; ++i) out |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
inline int atomicAdd(int* target, int value) {
    emulated::Fiber& f = *emulated::current;
    auto& banks = emulated::atomics[{{f.block, f.thread.x / 32}, f.atomics++}];
    auto& places = banks[uintptr_t(target) / 4 % 32];
    if (std::find(places.begin(), places.end(), target) == places.end()) places.push_back(target);
    emulated::worst_conflict = std::max(emulated::worst_conflict, int(places.size()));
    const int before = *target;
    *target += value;
    return before;
}
inline long long atomicMax(long long* target, long long value) {
    const long long before = *target;
    *target = std::max(before, value);
    return before;
}
inline long long __double_as_longlong(double v) {
    long long out;
    std::memcpy(&out, &v, sizeof out);
    return out;
}
inline int __double2loint(double v) { return int(uint32_t(uint64_t(__double_as_longlong(v)))); }
inline int __double2hiint(double v) { return int(uint32_t(uint64_t(__double_as_longlong(v)) >> 32)); }
inline double __longlong_as_double(long long v) {
    double out;
    std::memcpy(&out, &v, sizeof out);
    return out;
}
inline double __hiloint2double(int high, int low) {
    return __longlong_as_double((long long)(uint64_t(uint32_t(high)) << 32 | uint32_t(low)));
}
inline void __pipeline_memcpy_async(void* to, const void* from, size_t size, size_t zeros = 0) {
    if ((uintptr_t(to) | uintptr_t(from)) % size != 0) throw std::logic_error("misaligned asynchronous copy");
    std::memset(to, 0xcd, size);
    emulated::current->copies.back().push_back({to, from, size, zeros});
}
inline void __pipeline_commit() { emulated::current->copies.emplace_back(); }
// Waits for all commits but the last `n`.
inline void __pipeline_wait_prior(size_t n) {
    auto& copies = emulated::current->copies;
    for (size_t i = 0; i + 1 + n < copies.size(); ++i) {
        for (const emulated::Copy& copy : copies[i]) {
            std::memcpy(copy.to, copy.from, copy.size - copy.zeros);
            std::memset(static_cast<char*>(copy.to) + copy.size - copy.zeros, 0, copy.zeros);
        }
        copies[i].clear();
    }
}

namespace geodiff::cuda {

inline unsigned char* shared_memory() { return emulated::aligned(*emulated::current->block); }
inline int cluster_rank() { return int(emulated::current->block->rank); }
inline void cluster_sync() {
    emulated::wait(emulated::cluster_barrier, int(emulated::cluster->size()) * emulated::threads_per_block);
}
template <class T>
const T* of_peer(const T* mine, int rank) {
    const auto offset = reinterpret_cast<const unsigned char*>(mine) - shared_memory();
    return reinterpret_cast<const T*>(emulated::aligned((*emulated::cluster)[size_t(rank)]) + offset);
}

// D = A B + C of PTX's mma.m16n8k32 on bytes, from its documented register layout.
template <class First, class Second>
void mma(int (&c)[4], const uint4& a, unsigned b0, unsigned b1) {
    struct Words {
        unsigned a[4], b[2];
    } all[32];
    emulated::from_all(Words{{a.x, a.y, a.z, a.w}, {b0, b1}}, all);
    First A[16][32];
    Second B[32][8];
    for (int source = 0; source < 32; ++source) {
        const int g = source / 4, t = source % 4;
        for (int k = 0; k < 4; ++k) {
            for (int i = 0; i < 4; ++i) A[g + 8 * (i % 2)][16 * (i / 2) + 4 * t + k] = First(all[source].a[i] >> 8 * k);
            for (int i = 0; i < 2; ++i) B[16 * i + 4 * t + k][g] = Second(all[source].b[i] >> 8 * k);
        }
    }
    const int g = emulated::lane() / 4, t = emulated::lane() % 4;
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 32; ++k) c[i] += int(A[g + 8 * (i / 2)][k]) * int(B[k][2 * t + i % 2]);
}
inline void mma_s8_u8(int (&c)[4], const uint4& a, unsigned b0, unsigned b1) { mma<int8_t, uint8_t>(c, a, b0, b1); }
inline void mma_u8(int (&c)[4], const uint4& a, unsigned b0, unsigned b1) { mma<uint8_t, uint8_t>(c, a, b0, b1); }

// PTX's ldmatrix.x4: what every lane gives, by matrix and row; the rows of a matrix are read at once.
inline void rows_of_matrices(const uint8_t* row, const uint8_t* (&all)[32]) {
    if (uintptr_t(row) % 16 != 0) throw std::logic_error("a misaligned row of a matrix");
    emulated::from_all(row, all);
    for (int matrix = 0; matrix < 4; ++matrix) {
        int meet[8] = {};
        for (int r = 0; r < 8; ++r) {
            int& here = meet[uintptr_t(all[matrix * 8 + r]) / 16 % 8];
            emulated::worst_conflict = std::max(emulated::worst_conflict, ++here);
        }
    }
}
inline uint4 load_matrices(const uint8_t* row) {
    const uint8_t* all[32];
    rows_of_matrices(row, all);
    unsigned out[4];
    for (int i = 0; i < 4; ++i) std::memcpy(out + i, all[8 * i + emulated::lane() / 4] + emulated::lane() % 4 * 4, 4);
    emulated::sync_warp();
    return {out[0], out[1], out[2], out[3]};
}
inline uint4 load_turned(const uint8_t* row) {
    const uint8_t* all[32];
    rows_of_matrices(row, all);
    unsigned out[4] = {};
    for (int i = 0; i < 4; ++i)
        for (int k = 0; k < 4; ++k)  // low and high byte of row 2 t, then of row 2 t + 1
            out[i] |= unsigned(all[8 * i + emulated::lane() % 4 * 2 + k / 2][emulated::lane() / 4 * 2 + k % 2])
                      << 8 * k;
    emulated::sync_warp();
    return {out[0], out[1], out[2], out[3]};
}

inline void add_product(unsigned long long& sum, unsigned a, unsigned b) { sum += uint64_t(a) * b; }

}  // namespace geodiff::cuda
