// What the kernels read and write. All addresses are device addresses; everything is in centred units (common/stored.h)
// unless a name says otherwise.
#pragma once

#include <cstdint>

#include "../common/stored.h"

namespace geodiff::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kRows = 32;          // rows of a tile: one per lane in the softmax, one k-step of the second product
constexpr int kTogether = 4;       // queries that read rows together in float64
constexpr int kDigits = 4;         // base-256 digits of a query and of a weight: 31 bits
constexpr int kQueriesPerMma = 4;  // times kDigits: the 16 rows of one mma
constexpr int kTile = 128;         // rows of a tile of the dense pass, and bytes of each
constexpr int64_t kTopDigits = 127ll << 24;  // the largest number that four balanced digits hold

// Constants of the data set and of one call.
struct Problem {
    const void* rows;         // [n, d] as stored
    const double* half_norm;  // [n]
    const double* bias;       // [n] or null: log weight of every row; of query q, bias_stride q further on
    const int64_t*
        exclude;          // [batch] or null: the row that each query does not see, as numbers of rows from `first` on
    const void* x;        // [batch, d] model units, float if `single`, else double
    const double* sigma;  // [batch] model units
    int64_t n, d, batch, bias_stride, first;
    bool single;
    double unit, shift;       // model = (v + shift) / unit
    double radius, max_norm;  // of the rows: max |v - mean|, max |v|
    double cut;               // logits so far below the largest count for nothing
    double tol, least_scale;  // contract 1; least_scale in centred units
};

// One query, prepared.
struct Query {
    double inv_sigma2, step, residual, length;  // x = step * integer + rest, |rest| <= residual; length = |x|
    int64_t offset;                             // 128 times the sum of the integers: <integer, u> - <integer, v>
};

// Running softmax of one query over the rows one part has seen; sums are relative to `max`.
struct Online {
    double max;    // largest logit
    double sum;    // sum p
    double sum_l;  // sum p (l - max)
    double sum_2;  // sum p^2
    double sum_h;  // sum p |v|^2 / 2
    double sum_b;  // sum p bias
    double sum_q;  // sum of the weights as the second product used them
    double lost;   // sum |p - the weight used|
    int64_t best;  // row of the largest logit, the lowest of equals
};

constexpr double kNothing = -1e308;  // `max` of a part that has seen no weight

// Everything one call needs besides its answer.
struct Workspace {
    double* centred;  // [batch, d]
    Query* queries;   // [padded batch]
    void* digits;     // uint4 [padded batch / 4][k-steps][32 lanes]   first operand of the first product
    Online* states;   // [parts, padded batch]
    double* sums;     // [parts, padded batch, d]    unnormalised weighted sums
};

// Answer, [batch] unless noted.
struct Result {
    double* mean;     // [batch, d] model units
    double* log_sum;  // log sum_i exp(-|x - v_i|^2 / (2 sigma^2) + bias_i)
    double* entropy;
    double* ess;
    double* mean_bias;  // sum_i w_i bias_i, 0 without
    int8_t* path;       // -1: open; else the Path that answered
};

// A matrix of bytes in global memory, cut into tiles of 128 bytes of some rows, as the driver writes it down
// (launch.h).
struct alignas(128) TensorMap {
    unsigned char bytes[128];
};

// Which pass over uint8 rows a caller wants; where it does not serve, the plan takes another.
enum class Pass : int { planned = 0, stream = 1, dense = 2, fused = 3 };

// How the dense pass (dense.h), or the fused one (fused.h), cuts a call up.
struct DenseLayout {
    int group;                        // queries that go through the data together; 0: there is no dense pass
    int clusters;                     // of blocks, at once
    int cluster, stages;              // the fused pass: blocks of a cluster, pieces in shared memory; else 0
    int64_t groups;                   // of queries
    int64_t row_tiles, column_tiles;  // of the data
    int64_t shares;                   // of the row tiles, in the second product
    int64_t stride;                   // from the logits of one query to the next
};

struct DenseWork {
    uint8_t* digits;   // [groups][tiles of columns][slots][128], swizzled
    double* logits;    // [padded][stride]
    uint8_t* weights;  // [groups][tiles of rows][slots][128], swizzled, rows in the order of row_at
    uint8_t* active;   // [groups][tiles of rows]: whether a row of it has a weight
    long long* top;    // [padded] `ordered` largest logit
};

struct Call {
    Problem problem;
    Workspace work;
    Result result;
    int64_t parts, padded;  // parts of the rows; batch rounded up to a whole number of query groups
    int64_t slice;          // columns of one block of a cluster, a multiple of 32
    int cluster, stages;
    int copy;             // bytes that may be copied at once: 16, 4 or 1
    const int64_t* list;  // [batch, listed] rows to look at instead of all, -1 for none; or null
    int64_t listed;
    int dtype;
};

}  // namespace geodiff::cuda
