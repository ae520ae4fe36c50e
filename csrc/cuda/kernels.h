// The steps of one call, in order; each puts its kernel on `stream` and returns.
#pragma once

#include "launch.h"
#include "types.h"

namespace geodiff::cuda {

// Centres the queries, marks them open; with `integer` also cuts them into digits, of padded queries too.
void prepare(const Call& call, bool integer, uintptr_t stream);
// Partial answers from one pass over uint8 rows, `queries` (4 or 16) at a time.
void stream(const Call& call, int queries, uintptr_t stream);
// Whether the code of `stream` that the current device runs is the one written for clusters.
bool streams_in_clusters();
// Partial answers of open queries in float64 from squared differences, over all rows or over `list`.
void exact(const Call& call, uintptr_t stream);
// Joins the parts of open queries into `mean`, model units; after the `last` pass also writes their scores.
void merge(const Call& call, bool last, uintptr_t stream);
// Scores of queries whose error after a pass over bytes is within the contract: the others stay open. `weights`: by
// what factor that pass's may be off.
void settle(const Call& call, double weights, uintptr_t stream);

// One float64 number per query and row, out [batch, n] of rows [0, n).
struct Pairs {
    const void* rows;
    const double* x;  // [batch, d]
    double* out;
    const int64_t* list;  // distances only: [batch, n] rows to take instead, infinity for -1; or null
    int64_t n, d, batch;
    double unit, shift;
    int dtype;
};
void distances(const Pairs& pairs, uintptr_t stream);       // |x - x_i|^2, model units
void inner_products(const Pairs& pairs, uintptr_t stream);  // <x, x_i>, model units

// out [parts, batch, d] = sum over the rows of a part of weights[batch, n] x_i, model units; zero weights are skipped.
struct Weighted {
    const void* rows;
    const double* weights;
    double* out;
    int64_t n, d, batch, parts;
    double unit, shift;
    int dtype;
    int64_t first;  // query of a launch
};
void weighted_sum(const Weighted& weighted, uintptr_t stream);

}  // namespace geodiff::cuda
