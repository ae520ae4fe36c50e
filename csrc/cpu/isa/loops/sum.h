// The second product in float32: register blocks of queries x columns.
#pragma once

#include "widen.h"

namespace {

template <int QB, int CB>
inline void sum_block(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, float* A,
                      int64_t lda) {
    VecF acc[QB][CB] = {};
    for (int r = 0; r < R; ++r) {
        VecF x[CB];
        GEODIFF_UNROLL for (int c = 0; c < CB; ++c) x[c] = load<VecF>(X + r * ldx + c * kF);
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

template <int CB>
inline void sum_columns(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                        float* A, int64_t lda) {
    int q = 0;
    for (; q + Shape::sum_queries <= nq; q += Shape::sum_queries)
        sum_block<Shape::sum_queries, CB>(X, ldx, R, P + q * ldp, ldp, rescale + q, A + q * lda, lda);
    for (; q < nq; ++q) sum_block<1, CB>(X, ldx, R, P + q * ldp, ldp, rescale + q, A + q * lda, lda);
}

void sum_f32(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, int nq, int64_t dp,
             float* A, int64_t lda) {
    int64_t c = 0;
    for (; c + Shape::sum_vectors * kF <= dp; c += Shape::sum_vectors * kF)
        sum_columns<Shape::sum_vectors>(X + c, ldx, R, P, ldp, rescale, nq, A + c, lda);
    for (; c < dp; c += kF) sum_columns<1>(X + c, ldx, R, P, ldp, rescale, nq, A + c, lda);
}

}  // namespace
