// The first product in float32, and in float64: register blocks of rows x vectors of queries.
//
// Queries lie side by side in a register (packed so once a call), and a value of a row is broadcast to them: no sum
// ever runs across lanes. A few rows at a time are widened to a buffer in L1, one block of columns after the other.
#pragma once

#include "transpose.h"
#include "widen.h"

namespace {

using geodiff::kDotQueries;
using geodiff::kFold;
using geodiff::kFoldBlocks;

constexpr int kDotRows = 24;   // rows widened at a time: a multiple of every register block's
constexpr int kDotTile = 120;  // rows whose sums are kept beside each other

// What the products compute in: float32, or float64 for logits that float32 cannot hold to the contract.
template <class T>
struct In;
template <>
struct In<float> {
    typedef VecF Vec;
    static constexpr int lanes = kF;
};
template <>
struct In<double> {
    typedef VecD Vec;
    static constexpr int lanes = kD;
};

inline VecD both_halves(VecF v) {
    HalfF half[2];
    std::memcpy(half, &v, sizeof v);
    return as_doubles(half[0]) + as_doubles(half[1]);
}

// S[0..n) += part, in float64; part = 0. n is a multiple of the lanes.
inline void fold(float* part, int64_t n, double* S) {
    for (int64_t i = 0; i < n; i += kF) {
        store(S + i, load<VecD>(S + i) + as_doubles(load<HalfF>(part + i)));
        store(S + i + kD, load<VecD>(S + i + kD) + as_doubles(load<HalfF>(part + i + kD)));
        store(part + i, VecF{});
    }
}
inline void fold(double* part, int64_t n, double* S) {
    for (int64_t i = 0; i < n; i += kD) {
        store(S + i, load<VecD>(S + i) + load<VecD>(part + i));
        store(part + i, VecD{});
    }
}

// S[v*lds + r*lanes + i] += <x_r, query i of vector v> over `len` <= kFold columns; vectors of queries lie ldq apart.
template <class T, int RB, int NV>
inline void dot_block(const T* X, const T* Q, int64_t ldq, int64_t len, T* S, int64_t lds) {
    typedef typename In<T>::Vec Vec;
    constexpr int kLanes = In<T>::lanes;
    Vec acc[RB][NV] = {};
    for (int64_t k = 0; k < len; ++k) {
        Vec y[NV];
        GEODIFF_UNROLL for (int v = 0; v < NV; ++v) y[v] = load<Vec>(Q + v * ldq + k * kLanes);
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            const Vec x = X[r * kFold + k] - Vec{};
            GEODIFF_UNROLL for (int v = 0; v < NV; ++v) acc[r][v] += x * y[v];
        }
    }
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int v = 0; v < NV; ++v)
        store(S + v * lds + r * kLanes, load<Vec>(S + v * lds + r * kLanes) + acc[r][v]);
}

// NV vectors of queries against all rows of the buffer.
template <class T, int NV>
inline void dot_vectors(const T* X, int rows, const T* Q, int64_t ldq, int64_t len, T* S, int64_t lds) {
    constexpr int RB = Shape::accumulators / NV;
    static_assert(kDotRows % RB == 0);
    for (int r = 0; r < rows; r += RB) dot_block<T, RB, NV>(X + r * kFold, Q, ldq, len, S + r * In<T>::lanes, lds);
}

// R <= kDotTile rows and nq <= kDotQueries queries; `sums` has room for all of them, and so has `part`, which holds the
// sums of up to kFoldBlocks blocks of columns: to fold every block would take an eighth of the time.
template <DType D, class T>
inline void dot_tile(const char* X, int64_t d, int R, const T* Q, int nq, T* part, double* sums) {
    constexpr int kLanes = In<T>::lanes, NV = Shape::dot_vectors;
    constexpr int64_t lds = kDotTile * kLanes;
    const int vectors = (nq + kLanes - 1) / kLanes;
    const int64_t ldq = d * kLanes;
    alignas(64) T wide_rows[kDotRows * kFold] = {};
    std::memset(sums, 0, size_t(vectors * lds) * sizeof(double));
    std::memset(part, 0, size_t(vectors * lds) * sizeof(T));
    for (int64_t k = 0; k < d; k += kFold) {
        const int64_t len = d - k < kFold ? d - k : kFold;
        for (int r = 0; r < R; r += kDotRows) {
            const int rows = R - r < kDotRows ? R - r : kDotRows;  // others of a block: left over, summed for nothing
            for (int i = 0; i < rows; ++i) widen_part<D>(X + (r + i) * d * kBytes<D>, k, len, wide_rows + i * kFold);
            T* out = part + r * kLanes;
            const T* q = Q + k * kLanes;
            int v = 0;
            for (; v + NV <= vectors; v += NV)
                dot_vectors<T, NV>(wide_rows, rows, q + v * ldq, ldq, len, out + v * lds, lds);
            if constexpr (NV > 2)
                if (v + 2 <= vectors) {
                    dot_vectors<T, 2>(wide_rows, rows, q + v * ldq, ldq, len, out + v * lds, lds);
                    v += 2;
                }
            if (v < vectors) dot_vectors<T, 1>(wide_rows, rows, q + v * ldq, ldq, len, out + v * lds, lds);
        }
        if (k + kFold >= d || k / kFold % kFoldBlocks == kFoldBlocks - 1)
            for (int v = 0; v < vectors; ++v) fold(part + v * lds, int64_t(R) * kLanes, sums + v * lds);
    }
}

// S[q*lds + r] = sums of query q and row r, where those of so many lanes lie side by side.
template <int LANES>
inline void spread_lanes(const double* sums, int rows, int nq, double* S, int64_t lds) {
    each_element(
        rows, nq,
        [&](int r, int q) GEODIFF_INLINE_LAMBDA {  // `sums` has room for more rows than a tile
            return load<VecD>(sums + q / LANES * LANES * kDotTile + r * LANES + q % LANES);
        },
        [&](int q, int r, VecD v, int there) GEODIFF_INLINE_LAMBDA { store_first(S + q * lds + r, v, there); });
}

template <class T>
inline void dot(const void* X, DType dtype, int64_t d, int R, const T* Q, int nq, double* S, int64_t lds) {
    constexpr int kLanes = In<T>::lanes;
    constexpr int64_t kSums = (kDotQueries + kLanes - 1) / kLanes * kLanes * kDotTile;
    alignas(64) double sums[kSums];
    alignas(64) T part[kSums];
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        for (int r0 = 0; r0 < R; r0 += kDotTile) {
            const int rows = R - r0 < kDotTile ? R - r0 : kDotTile;
            dot_tile<D>(static_cast<const char*>(X) + r0 * d * kBytes<D>, d, rows, Q, nq, part, sums);
            spread_lanes<kLanes>(sums, rows, nq, S + r0, lds);
        }
    });
}

void dot_f32(const void* X, DType dtype, int64_t d, int R, const float* Q, int nq, double* S, int64_t lds) {
    dot(X, dtype, d, R, Q, nq, S, lds);
}

void dot_f64(const void* X, DType dtype, int64_t d, int R, const double* Q, int nq, double* S, int64_t lds) {
    dot(X, dtype, d, R, Q, nq, S, lds);
}

}  // namespace
