// The dense pass on sm_90a: two products of bytes by tensor cores that read shared memory, and what lies between them.
//
// logits   l = <x, v> - |v|^2 / 2 over sigma^2 of all rows and queries, and the largest of each query
// weights  p = exp(l - largest), as integers of four digits, and the sums over p
// sums     sum_i p_i v_i, in shares of the rows
//
// A tile is 128 rows of 128 bytes. The largest logit is known before the first weight, so weights are integers of one
// unit per query, and sums of products stay integers to the end of a share.
#pragma once

#include "hopper.h"
#include "types.h"

namespace geodiff::cuda {

constexpr int kPair = 2;                         // blocks of a cluster: each copies half of the digits, for both
constexpr int kConsumers = 2 * 128;              // threads that multiply: two warpgroups
constexpr int kDenseThreads = kConsumers + 128;  // and a third one, of which a warp copies
constexpr int kTileBytes = kTile * kTile;
constexpr int64_t kShareRows = 1 << 16;  // an int32 holds 255 * 128 of so many products
constexpr int kWeighed = 8;              // queries of a block of `weights`: one per warp

// `queries` of a group go through the data together, as `slots` columns of the tensor cores' second operand.
template <int Q>
struct Group {
    static constexpr int queries = Q, slots = Q * kDigits, digit_bytes = slots * kTile;
    static constexpr int stage = kTileBytes + digit_bytes;
    static constexpr int stages = (220 << 10) / stage;
    static constexpr int shared = stages * (stage + 16) + 1024;  // and two barriers per stage; tiles start at 1024
};

// The column of digit `k` (0: highest) of query `q` of a group: all four of a query lie in one thread's registers.
__host__ __device__ inline int slot_of(int q, int k) { return q / 4 * 16 + k / 2 * 8 + q % 4 * 2 + k % 2; }

constexpr double kMostWeight = 4294967295.0, kWeightUnit = 1 / kMostWeight;  // the largest weight is all ones

constexpr double kWeightError = 8e-12;  // relative, beside what the digits lose

// A double as an integer that is larger where it is, for atomicMax; the least: nothing yet.
constexpr long long kNoTop = INT64_MIN;
__host__ __device__ inline long long ordered(long long bits) { return bits ^ (bits >> 63 & INT64_MAX); }

struct Dense {
    Call call;  // its parts are those of `weights`
    TensorMap rows;
    DenseWork work;
    int64_t begin;  // the first row, of those that `rows` has
    DenseLayout layout;
};

void dense_prepare(const Dense& dense, uintptr_t stream);
void dense_logits(const Dense& dense, uintptr_t stream);
void dense_weights(const Dense& dense, uintptr_t stream);
void dense_sums(const Dense& dense, uintptr_t stream);
void dense_finish(const Dense& dense, uintptr_t stream);

}  // namespace geodiff::cuda
