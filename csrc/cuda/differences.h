// Logits in float64 from squared differences, right for every sigma; for a warp, every lane of which gets the same. And
// what is made of the weights of a tile.
#pragma once

#include "online.h"
#include "values.h"

namespace geodiff::cuda {

// The log weight that query `q` gives to `row`.
__device__ inline double bias_of(const Problem& p, int64_t q, int64_t row) {
    return p.bias ? p.bias[q * p.bias_stride + row] : 0;
}

// |x - v|^2 of one row, x [d] in centred units.
template <DType T>
__device__ __forceinline__ double square_of(const Problem& p, const double* x, int64_t row) {
    return warp_over_row<T>(p.rows, row, p.d, [&](int64_t k, double v) {
        const double difference = x[k] - v;
        return difference * difference;
    });
}

// |x - v|^2 of some rows for some queries, whose x [d] are in centred units: each value is read once for all.
template <DType T, int Rows, int Queries>
__device__ __forceinline__ void squares_of(const Problem& p, const double* const (&x)[Queries],
                                           const int64_t (&row)[Rows], double (&square)[Rows][Queries]) {
#pragma unroll
    for (int r = 0; r < Rows; ++r)
#pragma unroll
        for (int j = 0; j < Queries; ++j) square[r][j] = 0;
    over_rows<T>(p.rows, row, p.d, [&](int k, const double (&v)[Rows]) {
#pragma unroll
        for (int j = 0; j < Queries; ++j) {
            const double mine = x[j][k];
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
                const double difference = mine - v[r];
                square[r][j] += difference * difference;
            }
        }
    });
#pragma unroll
    for (int r = 0; r < Rows; ++r)
#pragma unroll
        for (int j = 0; j < Queries; ++j) square[r][j] = warp_sum(square[r][j]);
}

// -1 / (2 sigma^2) in centred units.
__device__ inline double scale_of(const Problem& p, int64_t q) {
    const double sigma = p.sigma[q] * p.unit;
    return -0.5 / (sigma * sigma);
}

// sums(j) [d] = rescale[j] sums(j) + sum_r weight[r][j] v_row(r) over a tile, by a whole block. A thread has some
// columns, so that it reads a weight once for all of these, and a value once for all queries.
template <DType T, int Queries, class RowAt, class SumsOf>
__device__ __forceinline__ void add_tile(const Problem& p, const double (&weight)[kRows][Queries], RowAt row,
                                         const double (&rescale)[Queries], SumsOf sums) {
    constexpr int kColumns = 2;
    const auto* rows = static_cast<const typename Stored<T>::Item*>(p.rows);
    for (int64_t first = threadIdx.x; first < p.d; first += kColumns * kThreads) {
        double sum[kColumns][Queries];
        int64_t column[kColumns];  // beyond the last one it is taken again
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
            column[i] = first + i * kThreads < p.d ? first + i * kThreads : first;
#pragma unroll
            for (int j = 0; j < Queries; ++j) sum[i][j] = sums(j)[column[i]] * rescale[j];
        }
#pragma unroll 1
        for (int r = 0; r < kRows; ++r) {
            double own[Queries];
            bool any = false;
#pragma unroll
            for (int j = 0; j < Queries; ++j) {
                own[j] = weight[r][j];
                any |= own[j] != 0;
            }
            if (!any) continue;
            const auto* at = rows + row(r) * p.d;
#pragma unroll
            for (int i = 0; i < kColumns; ++i) {
                const double value = Stored<T>::value(at[column[i]]);
#pragma unroll
                for (int j = 0; j < Queries; ++j) sum[i][j] += own[j] * value;
            }
        }
#pragma unroll
        for (int i = 0; i < kColumns; ++i)
#pragma unroll
            for (int j = 0; j < Queries; ++j) sums(j)[column[i]] = sum[i][j];
    }
}

}  // namespace geodiff::cuda
