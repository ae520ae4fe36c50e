// The ring of stages that the copying warp fills and two warpgroups empty, in both blocks of a cluster in step.
#pragma once

#include "dense.h"
#include "launch.h"

namespace geodiff::cuda {

constexpr int kCopying = 40, kMultiplying = 232;  // registers of a thread; a multiprocessor has 65,536
static_assert(kCopying * (kDenseThreads - kConsumers) + kMultiplying * kConsumers <= 65536);

template <int Q>
class Ring {
  public:
    using G = Group<Q>;

    // All threads of the cluster.
    __device__ explicit Ring(unsigned char* shared) {
        const auto base = uintptr_t(shared);
        memory_ = shared + ((base + 1023) / 1024 * 1024 - base);
        barriers_ = reinterpret_cast<Barrier*>(memory_ + G::stages * G::stage);
        if (threadIdx.x == 0) {
            for (int s = 0; s < G::stages; ++s) {
                init(full(s), 1);
                init(empty(s), kPair * kConsumers / 32);  // the digits of a stage are written by both blocks
            }
            fence_init();
        }
        cluster_sync();
    }

    __device__ uint8_t* rows() { return memory_ + stage_ * G::stage; }
    __device__ uint8_t* digits() { return rows() + kTileBytes; }

    // One thread: starts the copies of the next stage when it is free. This block's half of the digits goes to both.
    __device__ void fill(const TensorMap* map, int column, int row, const uint8_t* all_digits) {
        wait(empty(stage_), phase_ ^ 1);
        arrive_expecting(full(stage_), G::stage);
        copy_tile(rows(), map, column, row, full(stage_));
        const int half = cluster_rank() * (G::digit_bytes / kPair);
        copy_to_both(digits() + half, all_digits + half, G::digit_bytes / kPair, full(stage_));
        advance();
    }

    // Waits for the next stage.
    __device__ void take() { wait(full(stage_), phase_); }
    // This warp has done with the stage it took last, or with that before it, and goes on to the next.
    __device__ void release() {
        free(stage_);
        advance();
    }
    __device__ void release_last() { free(stage_ == 0 ? G::stages - 1 : stage_ - 1); }
    __device__ void advance() {
        if (++stage_ == G::stages) {
            stage_ = 0;
            phase_ ^= 1;
        }
    }

  private:
    __device__ void free(int stage) {
        __syncwarp();
        if (threadIdx.x % 32 < kPair) arrive_at(empty(stage), int(threadIdx.x % 32));
    }
    __device__ Barrier* full(int s) { return barriers_ + s; }
    __device__ Barrier* empty(int s) { return barriers_ + G::stages + s; }

    unsigned char* memory_;
    Barrier* barriers_;
    int stage_ = 0;
    unsigned phase_ = 0;
};

// Puts the kernel for groups of 16 or of 64 queries on `stream`, as many clusters as run at once.
inline void launch_clusters(const char* name, void (*of_16)(Dense), void (*of_64)(Dense), const Dense& a,
                            uintptr_t stream) {
    const Grid grid{unsigned(a.layout.clusters * kPair), 1, 1, kPair};
    const bool many = a.layout.group == 64;
    launch(name, many ? of_64 : of_16, grid, kDenseThreads, many ? Group<64>::shared : Group<16>::shared, stream, a);
}

// value = 256^3 a + 256^2 b + 256 c + d
__device__ __forceinline__ int64_t joined_digits(int a, int b, int c, int d) {
    return ((int64_t(a) * 256 + b) * 256 + c) * 256 + d;
}

}  // namespace geodiff::cuda
