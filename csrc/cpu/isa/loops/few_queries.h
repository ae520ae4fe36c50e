// Both float32 products for few queries, straight from the stored rows: no widened tile is written and read back.
#pragma once

#include "dot.h"
#include "lane_sums.h"

namespace {

using geodiff::kFewFold;

constexpr int kFew = 4;  // most queries that take rows as stored

// acc = the products of columns [base, end), lane by lane
template <DType T, int RB, int QB>
GEODIFF_INLINE void dot_few_columns(const char* X, int64_t d, int64_t base, int64_t end, const float* Q, int64_t ldq,
                                    VecF (&acc)[QB][RB]) {
    GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int r = 0; r < RB; ++r) acc[q][r] = VecF{};
    int64_t k = base;
    for (; k + kF <= end; k += kF) GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            const VecF x = wide<T>(X + r * d * kBytes<T>, k);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) acc[q][r] += x * load<VecF>(Q + q * ldq + k);
        }
    if (k < end) GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            const VecF x = wide_tail<T>(X + r * d * kBytes<T>, k, d);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) acc[q][r] += x * load<VecF>(Q + q * ldq + k);
        }
}

template <DType T, int RB, int QB>
inline void dot_few_block(const char* X, int64_t d, const float* Q, int64_t ldq, double* S, int64_t lds) {
    VecF acc[QB][RB];
    VecD total[QB][RB];
    dot_few_columns<T>(X, d, 0, d < kFewFold ? d : kFewFold, Q, ldq, acc);
    GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int r = 0; r < RB; ++r) total[q][r] =
        both_halves(acc[q][r]);
    for (int64_t base = kFewFold; base < d; base += kFewFold) {
        dot_few_columns<T>(X, d, base, d - base < kFewFold ? d : base + kFewFold, Q, ldq, acc);
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int r = 0; r < RB; ++r) total[q][r] +=
            both_halves(acc[q][r]);
    }
    GEODIFF_UNROLL for (int q = 0; q < QB; ++q) add_lane_sums<RB>(total[q], S + q * lds);
}

template <DType T, int QB>
inline void dot_few_rows(const char* X, int64_t d, int R, const float* Q, int64_t ldq, double* S, int64_t lds) {
    constexpr int RB = QB == 1 ? 8 : QB == 4 ? Shape::few_rows : 4;
    int r = 0;
    for (; r + RB <= R; r += RB) dot_few_block<T, RB, QB>(X + r * d * kBytes<T>, d, Q, ldq, S + r, lds);
    for (; r < R; ++r) dot_few_block<T, 1, QB>(X + r * d * kBytes<T>, d, Q, ldq, S + r, lds);
}

template <DType T, int QB, int CB>
inline void sum_few_block(const char* X, int64_t d, int R, int64_t c, const float* P, int64_t ldp, const float* rescale,
                          float* A, int64_t lda, const char* prefetch) {
    // Rows of float32 keep memory busy as it is.
    constexpr bool kAllAhead = kBytes<T> < 4;
    VecF acc[QB][CB] = {};
    for (int r = 0; r < R; ++r) {
        const char* row = X + r * d * kBytes<T>;
        if (prefetch && (kAllAhead || 2 * r < R))
            GEODIFF_UNROLL for (int64_t byte = 0; byte < CB * kF * kBytes<T>; byte += 64)
                __builtin_prefetch(prefetch + (r * d + c) * kBytes<T> + byte, 0, 2);
        GEODIFF_UNROLL for (int j = 0; j < CB; ++j) {
            const VecF x = c + (j + 1) * kF <= d ? wide<T>(row, c + j * kF) : wide_tail<T>(row, c + j * kF, d);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) acc[q][j] += x * (P[q * ldp + r] - VecF{});
        }
    }
    for (int q = 0; q < QB; ++q)
        for (int j = 0; j < CB; ++j) {
            float* a = A + q * lda + c + j * kF;
            store(a, load<VecF>(a) * rescale[q] + acc[q][j]);
        }
}

template <DType T, int QB>
inline void sum_few_columns(const char* X, int64_t d, int R, const float* P, int64_t ldp, const float* rescale,
                            float* A, int64_t lda, const char* prefetch) {
    constexpr int CB = QB == 1 ? 8 : QB == 2 ? 4 : 2;
    int64_t c = 0;
    for (; c + CB * kF <= d; c += CB * kF) sum_few_block<T, QB, CB>(X, d, R, c, P, ldp, rescale, A, lda, prefetch);
    for (; c < d; c += kF) sum_few_block<T, QB, 1>(X, d, R, c, P, ldp, rescale, A, lda, nullptr);
}

// f(number of queries, storage dtype), both known to the compiler
template <class F>
inline void for_few(int nq, DType dtype, F&& f) {
    for_dtype(dtype, [&](auto t) {
        switch (nq) {
            case 1:
                return f(std::integral_constant<int, 1>{}, t);
            case 2:
                return f(std::integral_constant<int, 2>{}, t);
            case 3:
                return f(std::integral_constant<int, 3>{}, t);
            default:
                return f(std::integral_constant<int, 4>{}, t);
        }
    });
}

void dot_few(const void* X, DType dtype, int64_t d, int R, const float* Q, int64_t ldq, int nq, double* S,
             int64_t lds) {
    for_few(nq, dtype, [&](auto count, auto t) {
        dot_few_rows<decltype(t)::value, decltype(count)::value>(static_cast<const char*>(X), d, R, Q, ldq, S, lds);
    });
}

void sum_few(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale, int nq,
             float* A, int64_t lda, const void* prefetch) {
    for_few(nq, dtype, [&](auto count, auto t) {
        sum_few_columns<decltype(t)::value, decltype(count)::value>(static_cast<const char*>(X), d, R, P, ldp, rescale,
                                                                    A, lda, static_cast<const char*>(prefetch));
    });
}

}  // namespace
