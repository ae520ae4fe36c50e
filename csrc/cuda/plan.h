// How one call is laid out on a GPU: plain arithmetic, but for one question to the machine.
#pragma once

#include "types.h"

namespace geodiff::cuda {

struct Machine {
    int multiprocessors;
    int64_t shared;  // bytes of shared memory that one block may have
    bool clusters;   // sm_90 and later
    int device;
    bool dense;  // sm_90a, and rows that its memory engine can copy
    Pass pass = Pass::planned;
};

// How many clusters of so many blocks of the streaming kernel for `queries` run at once, with so much shared memory
// each. No quotient: a cluster lies within one of the groups of multiprocessors of a chip, and those differ in size.
int resident(const Machine& machine, int queries, int cluster, int64_t shared);

// How many clusters of the dense pass run at once, for groups of so many queries.
int dense_resident(const Machine& machine, int group);

struct Plan {
    int64_t n, d, batch;  // batch: queries per round
    DenseLayout dense;    // where its group is not 0, the dense pass serves, or the fused one
    bool streams;         // else one pass by `stream`, or float64 alone
    int queries;          // per cluster: 4 or 16, in the fused pass also 8
    int cluster, stages;
    int64_t slice, padded, parts, exact_parts;

    int64_t workspace() const;  // bytes
    struct Carved {
        Workspace work;
        DenseWork dense;
        int64_t bytes;
    };
    Carved carve(void* memory) const;
};

constexpr int64_t kBatch = 64;                     // queries per round of `stream`
constexpr int64_t kDenseBytes = int64_t(1) << 30;  // budget of the dense pass's logits and weights
constexpr int64_t kSumBytes = 64 << 20;            // budget of the parts' weighted sums

Plan make_plan(const Machine& machine, DType dtype, int64_t n, int64_t d, int64_t batch);

}  // namespace geodiff::cuda
