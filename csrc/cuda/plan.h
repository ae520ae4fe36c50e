// How one call is laid out on a GPU: plain arithmetic, no CUDA.
#pragma once

#include "types.h"

namespace geodiff::cuda {

struct Machine {
    int multiprocessors;
    int64_t shared;  // bytes of shared memory that one block may have
    bool clusters;   // sm_90 and later
};

struct Plan {
    int64_t n, d, batch;  // batch: queries per round, at most kBatch
    bool streams;         // false: float64 alone
    int queries;          // per cluster: 4 or 16
    int cluster, stages;
    int64_t slice, padded, parts, exact_parts;

    int64_t workspace() const;  // bytes
    Workspace carve(void* memory) const;
};

constexpr int64_t kBatch = 64;
constexpr int64_t kSumBytes = 64 << 20;  // budget of the parts' weighted sums

Plan make_plan(const Machine& machine, DType dtype, int64_t n, int64_t d, int64_t batch);

}  // namespace geodiff::cuda
