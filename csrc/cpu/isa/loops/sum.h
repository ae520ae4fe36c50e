// The second product in float32: register blocks of queries x vectors of columns. A block of columns of the tile is
// widened to a buffer, which stays in L1 or close while every query uses it.
#pragma once

#include "../vec/constants.h"
#include "widen.h"

namespace {

using geodiff::kMaxTileRows;
using geodiff::kPad;

template <int QB, int CB>
inline void sum_block(const float* X, int R, const float* P, int64_t ldp, const float* rescale, float* A, int64_t lda) {
    VecF acc[QB][CB] = {};
    for (int r = 0; r < R; ++r) {
        VecF x[CB];
        GEODIFF_UNROLL for (int c = 0; c < CB; ++c) x[c] = load<VecF>(X + r * kPad + c * kF);
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
            const VecF p = P[q * ldp + r] - VecF{};
            GEODIFF_UNROLL for (int c = 0; c < CB; ++c) acc[q][c] += x[c] * p;
        }
    }
    for (int q = 0; q < QB; ++q)
        for (int c = 0; c < CB; ++c) {
            float* a = A + q * lda + c * kF;
            store(a, load<VecF>(a) * rescale[q] + acc[q][c]);
        }
}

template <int QB>
inline void sum_columns(const float* X, int R, const float* P, int64_t ldp, const float* rescale, float* A,
                        int64_t lda) {
    constexpr int CB = Shape::sum_vectors;
    static_assert(kPad % (CB * kF) == 0);
    for (int64_t c = 0; c < kPad; c += CB * kF) sum_block<QB, CB>(X + c, R, P, ldp, rescale, A + c, lda);
}

template <DType D>
inline void sum_tile(const char* X, int64_t d, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                     float* A, int64_t lda, const char* prefetch) {
    constexpr int QB = Shape::sum_queries;
    alignas(64) float columns[kMaxTileRows * kPad];
    for (int64_t c = 0; c < d; c += kPad) {
        const int64_t len = d - c < kPad ? d - c : kPad;
        for (int r = 0; r < R; ++r) {
            const int64_t at = (r * d + c) * kBytes<D>;
            widen_part<D>(X + r * d * kBytes<D>, c, len, columns + r * kPad);
            if (len < kPad) std::memset(columns + r * kPad + len, 0, size_t(kPad - len) * sizeof(float));
            if (prefetch)
                for (int64_t byte = 0; byte < kPad * kBytes<D>; byte += 64)
                    __builtin_prefetch(prefetch + at + byte, 0, 2);
        }
        int q = 0;
        for (; q + QB <= nq; q += QB) sum_columns<QB>(columns, R, P + q * ldp, ldp, rescale + q, A + q * lda + c, lda);
        with_constant<QB>(nq - q, [&](auto rest) {
            sum_columns<decltype(rest)::value>(columns, R, P + q * ldp, ldp, rescale + q, A + q * lda + c, lda);
        });
    }
}

void sum_f32(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale, int nq,
             float* A, int64_t lda, const void* prefetch) {
    for_dtype(dtype, [&](auto t) {
        sum_tile<decltype(t)::value>(static_cast<const char*>(X), d, R, P, ldp, rescale, nq, A, lda,
                                     static_cast<const char*>(prefetch));
    });
}

}  // namespace
