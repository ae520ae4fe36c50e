// The first product in float32, and in float64: register blocks of rows x queries.
#pragma once

#include "widen.h"

namespace {

using geodiff::kFold;

constexpr int64_t kColumns = 1024;  // of the rows and queries of a register block are in L1 together

// One register block. In<float>: float32 throughout; In<double>: rows widened once per block, products in float64.
template <class T>
struct In;
template <>
struct In<float> {
    typedef VecF Vec;
    static Vec row(const float* p) { return load<VecF>(p); }
    static VecD widened(VecF v) {
        HalfF half[2];
        std::memcpy(half, &v, sizeof v);
        return as_doubles(half[0]) + as_doubles(half[1]);
    }
};
template <>
struct In<double> {
    typedef VecD Vec;
    static Vec row(const float* p) { return as_doubles(load<HalfF>(p)); }
    static VecD widened(VecD v) { return v; }
};

// acc[r][q] of kFold columns into float64: one more addition there costs nothing in error.
template <class T, int RB, int QB>
inline void dot_block(const float* X, int64_t ldx, const T* Q, int64_t ldq, int64_t len, double* S, int64_t lds) {
    typedef typename In<T>::Vec Vec;
    constexpr int64_t kStep = int64_t(sizeof(Vec) / sizeof(T));
    VecD total[RB][QB] = {};
    for (int64_t base = 0; base < len; base += kFold) {
        const int64_t end = len - base < kFold ? len : base + kFold;
        Vec acc[RB][QB] = {};
        for (int64_t k = base; k < end; k += kStep) {
            Vec x[RB];
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = In<T>::row(X + r * ldx + k);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
                const Vec y = load<Vec>(Q + q * ldq + k);
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) acc[r][q] += x[r] * y;
            }
        }
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < QB; ++q) total[r][q] +=
            In<T>::widened(acc[r][q]);
    }
    for (int q = 0; q < QB; ++q)
        for (int r = 0; r < RB; ++r) S[q * lds + r] += lane_sum<VecD, double>(total[r][q]);
}

template <class T, int RB, int QB>
inline void dot_rows(const float* X, int64_t ldx, int R, const T* Q, int64_t ldq, int64_t len, double* S, int64_t lds) {
    int r = 0;
    for (; r + RB <= R; r += RB) dot_block<T, RB, QB>(X + r * ldx, ldx, Q, ldq, len, S + r, lds);
    for (; r < R; ++r) dot_block<T, 1, QB>(X + r * ldx, ldx, Q, ldq, len, S + r, lds);
}

template <class T>
inline void dot(const float* X, int64_t ldx, int R, const T* Q, int64_t ldq, int nq, int64_t dp, double* S,
                int64_t lds) {
    constexpr int RB = Shape::dot_rows, QB = Shape::dot_queries;
    for (int64_t k = 0; k < dp; k += kColumns) {
        const int64_t len = dp - k < kColumns ? dp - k : kColumns;
        int q = 0;
        for (; q + QB <= nq; q += QB) dot_rows<T, RB, QB>(X + k, ldx, R, Q + q * ldq + k, ldq, len, S + q * lds, lds);
        const T* rest = Q + q * ldq + k;
        double* out = S + q * lds;
        switch (nq - q) {
            case 1:
                dot_rows<T, RB, 1>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 2:
                dot_rows<T, RB, 2>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 3:
                dot_rows<T, RB, 3>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 4:
                dot_rows<T, RB, 4>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 5:
                dot_rows<T, RB, 5>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            default:
                break;
        }
    }
}

void dot_f32(const float* X, int64_t ldx, int R, const float* Q, int64_t ldq, int nq, int64_t dp, double* S,
             int64_t lds) {
    dot(X, ldx, R, Q, ldq, nq, dp, S, lds);
}

void dot_f64(const float* X, int64_t ldx, int R, const double* Q, int64_t ldq, int nq, int64_t dp, double* S,
             int64_t lds) {
    dot(X, ldx, R, Q, ldq, nq, dp, S, lds);
}

}  // namespace
