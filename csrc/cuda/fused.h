// The fused pass on sm_90a, for up to 16 queries: logits, weights and weighted sums of a tile while it is in shared
// memory.
//
// A tile is 64 rows. A cluster of blocks splits its columns, of which each block holds Few<Q>::columns; they lie in
// pieces of 384 columns, which the memory engine brings and the ring below counts. Every query is weighed by one block
// of the cluster, its owner: what the blocks find of its dot products is sent there, and its weights are sent back.
//
// copy      a warp asks for the pieces, as they are free
// multiply  a warpgroup: bytes times the digits of the queries; sends dot products to the owners
// weigh     three warps: logits of the owned queries, their weights as integers; sends them to all blocks
// add up    two warpgroups: weights times bytes, sums of integers in registers for as long as an epoch lasts
//
// Who multiplies goes ahead by two tiles of who adds up, so nobody waits for another block unless all do.
#pragma once

#include "dense.h"
#include "plan.h"

namespace geodiff::cuda {

constexpr int kFewRows = 64;                     // of a tile
constexpr int kBoxes = 3;                        // tiles of 128 columns in a piece
constexpr int kBoxBytes = kFewRows * kTile;      // bytes of one
constexpr int kPieceBytes = kBoxes * kBoxBytes;  // 24 KiB
constexpr int kAhead = 2;                        // tiles whose dot products and weights are under way
constexpr int kAdding = 2 * 128, kFewThreads = kAdding + 2 * 128, kWeighing = 3;  // threads, threads, warps

// What becomes of the sums of a query before a tile is added to them, and whether it is.
struct Order {
    double keep, gain;  // as in Move (epoch.h)
    int64_t used;
    int adds, over;
};
static_assert(sizeof(Order) == 2 * sizeof(uint4));
constexpr int kWeightBytes = kFewRows * kDigits;  // of a query and a tile
constexpr int kLaneBytes = 104;                   // of a Share (fused_weights.h), for each lane
constexpr int kMostStages = 8;
constexpr int kFewTiles = 48;  // of 128 columns, in a block, times queries

// Sums of a block fill 96 registers of the threads that add up, whatever Q is. In its shared memory, tiles start at
// multiples of 1024.
template <int Q>
struct Few {
    static constexpr int slots = Q * kDigits, tiles = kFewTiles / Q, columns = tiles * kTile;
    static constexpr int pieces_of_tile = tiles / kBoxes, digit_bytes = slots * kTile;
    static_assert(pieces_of_tile * kBoxes == tiles && kAhead * kFewRows == kTile);

    static constexpr int barriers = 0;                        // Barrier [2 + 3 kAhead + 2 kMostStages]
    static constexpr int staged = 256;                        // byte    [kWeighing][digits][64]
    static constexpr int orders = staged + 3 * kWeightBytes;  // Order   [kAhead + 1][Q]
    static constexpr int digits = (orders + (kAhead + 1) * Q * int(sizeof(Order)) + 1023) / 1024 * 1024;
    static constexpr int weights = digits + tiles * digit_bytes;  // byte [slots][kAhead * 64], swizzled as are digits
    static constexpr int pieces = weights + digit_bytes;          // byte [stages][kBoxes][64][128], swizzled
    // Then int64 [kAhead][owned][cluster][64] for dot products, and Share [owned][32].
    __host__ __device__ static constexpr int of_query(int cluster) {
        return kAhead * cluster * kFewRows * 8 + 32 * kLaneBytes;
    }
    static constexpr int64_t shared(int cluster, int stages) {
        return 1024 + pieces + stages * kPieceBytes + (Q + cluster - 1) / cluster * of_query(cluster);
    }
};
static_assert((2 + 3 * kAhead + 2 * kMostStages) * 8 <= 256 && kWeighing == 3);

// What a call of `batch` queries takes: queries that go through the data together, and blocks of a cluster; 0: neither
// shared memory nor registers hold it.
struct FewShape {
    int queries, cluster, stages;
};
FewShape few_shape(int64_t batch, int64_t columns, int64_t shared);

// How many clusters of that shape run at once.
int fused_resident(const Machine& machine, const FewShape& shape);
void fused(const Dense& dense, uintptr_t stream);

}  // namespace geodiff::cuda
