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

// -1 / (2 sigma^2) in centred units.
__device__ inline double scale_of(const Problem& p, int64_t q) {
    const double sigma = p.sigma[q] * p.unit;
    return -0.5 / (sigma * sigma);
}

// sums [d] = rescale sums + sum_r weight[r] v_row(r) over a tile, by a whole block.
template <DType T, class RowAt>
__device__ __forceinline__ void add_tile(const Problem& p, const double* weight, RowAt row, double rescale,
                                         double* sums) {
    const auto* rows = static_cast<const typename Stored<T>::Item*>(p.rows);
    for (int64_t k = threadIdx.x; k < p.d; k += kThreads) {
        double sum = sums[k] * rescale;
        for (int r = 0; r < kRows; ++r)
            if (weight[r] != 0) sum += weight[r] * Stored<T>::value(rows[row(r) * p.d + k]);
        sums[k] = sum;
    }
}

}  // namespace geodiff::cuda
