// What the roles of the fused pass share: places in shared memory, the ring of pieces, barriers between blocks.
#pragma once

#include "fused_weights.h"
#include "launch.h"

namespace geodiff::cuda {

// One block's part of a call, and where things lie in its shared memory.
template <int Q>
class FewPlaces {
  public:
    using F = Few<Q>;

    int rank, cluster, stages;
    int live, per, owned;      // queries that there are; of an owner; of this block
    int64_t part, begin, end;  // tiles

    // All threads of the cluster.
    __device__ explicit FewPlaces(const Dense& a, unsigned char* shared) {
        cluster = a.layout.cluster;
        stages = a.layout.stages;
        rank = cluster_rank();
        live = int(a.call.problem.batch);
        per = (live + cluster - 1) / cluster;
        owned = live - rank * per < per ? live - rank * per : per;
        part = blockIdx.x / unsigned(cluster);
        begin = a.layout.row_tiles * part / a.call.parts;
        end = a.layout.row_tiles * (part + 1) / a.call.parts;
        const auto base = uintptr_t(shared);
        memory_ = shared + ((base + 1023) / 1024 * 1024 - base);
        if (threadIdx.x == 0) {
            init(digits_full(), 1);
            init(last_full(), 1);
            for (int k = 0; k < kAhead; ++k) {
                init(dots_full(k), 1);
                init(weights_full(k), 1);
                init(added(k), kAdding / 32);
            }
            for (int s = 0; s < stages; ++s) {
                init(piece_full(s), 1);
                init(piece_empty(s), kAdding / 32);
            }
            fence_init();
        }
        cluster_sync();
    }

    // What they count: that digits and the last orders have come; of tile `t`, that dot products have, weights and
    // their orders, and that it is added up; of a stage of the ring, that it has come, and is free.
    __device__ Barrier* digits_full() const { return barrier(0); }
    __device__ Barrier* last_full() const { return barrier(1); }
    __device__ Barrier* dots_full(int64_t t) const { return barrier(2 + int(t % kAhead)); }
    __device__ Barrier* weights_full(int64_t t) const { return barrier(2 + kAhead + int(t % kAhead)); }
    __device__ Barrier* added(int64_t t) const { return barrier(2 + 2 * kAhead + int(t % kAhead)); }
    __device__ Barrier* piece_full(int stage) const { return barrier(2 + 3 * kAhead + stage); }
    __device__ Barrier* piece_empty(int stage) const { return barrier(2 + 3 * kAhead + kMostStages + stage); }
    // Waits until tile `t` has room: the tile before that took its place is added up. Then its dot products have been
    // taken by every owner, too, since its weights are there.
    __device__ void wait_for_room(int64_t t) const {
        if (t < kAhead) return;
        wait(added(t), phase(t) ^ 1);
    }
    // How often what the barriers of tile `t` count has come to an end before.
    __device__ static unsigned phase(int64_t t) { return unsigned(t / kAhead); }

    __device__ uint8_t* digits() const { return memory_ + F::digits; }
    __device__ uint8_t* weights() const { return memory_ + F::weights; }
    __device__ uint8_t* staged(int warp) const { return memory_ + F::staged + warp * kWeightBytes; }
    __device__ uint8_t* box(int stage, int k) const { return memory_ + F::pieces + (stage * kBoxes + k) * kBoxBytes; }
    __device__ Order* orders(int64_t t) const { return last_orders() + (1 + t % kAhead) * Q; }
    __device__ Order* last_orders() const { return reinterpret_cast<Order*>(memory_ + F::orders); }

    __device__ int owner(int q) const { return q / per; }
    // Dot products of the owned query `o` that block `from` sends, for tile `t` of the part.
    __device__ int64_t* dots(int64_t t, int o, int from) const {
        return reinterpret_cast<int64_t*>(of_query(o)) + (int(t % kAhead) * cluster + from) * kFewRows;
    }
    __device__ Share& share(int o) const {
        const int lane = threadIdx.x % 32;
        return *reinterpret_cast<Share*>(of_query(o) + kAhead * cluster * kFewRows * 8 + lane * kLaneBytes);
    }

  private:
    __device__ Barrier* barrier(int i) const { return reinterpret_cast<Barrier*>(memory_ + F::barriers) + i; }
    __device__ uint8_t* of_query(int o) const {
        return memory_ + F::pieces + stages * kPieceBytes + o * F::of_query(cluster);
    }

    unsigned char* memory_;
};

// Pieces of a tile, in their order, and of tiles: who copies fills them, who multiplies takes them, who adds up takes
// and releases them.
template <int Q>
class PieceRing {
  public:
    __device__ explicit PieceRing(const FewPlaces<Q>& at) : at_(at) {}

    __device__ uint8_t* box(int k) { return at_.box(stage_, k); }
    // One thread: asks for the next piece when it is free.
    __device__ void fill(const TensorMap* map, int column, int row) {
        wait(at_.piece_empty(stage_), phase_ ^ 1);
        arrive_expecting(at_.piece_full(stage_), kPieceBytes);
        for (int k = 0; k < kBoxes; ++k) copy_tile(box(k), map, column + k * kTile, row, at_.piece_full(stage_));
        advance();
    }
    __device__ void take() { wait(at_.piece_full(stage_), phase_); }
    // This warp has done with the piece.
    __device__ void release() {
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(at_.piece_empty(stage_));
        advance();
    }
    __device__ void advance() {
        if (++stage_ == at_.stages) {
            stage_ = 0;
            phase_ ^= 1;
        }
    }

  private:
    const FewPlaces<Q>& at_;
    int stage_ = 0;
    unsigned phase_ = 0;
};

}  // namespace geodiff::cuda
