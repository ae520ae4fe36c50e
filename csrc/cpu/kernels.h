// The inner loops, one table of them per instruction set. Everything above this file is ISA-free.
//
// Shapes: R rows of a tile, nq query vectors, d columns (dp: d rounded up to `pad` columns).
#pragma once

#include <cstdint>

#include "types.h"

namespace geodiff {

constexpr int64_t kPad = 64;     // columns are padded to this many elements, with zeros
constexpr int kMaxDotGroup = 8;  // query vectors held in registers by the first product
constexpr int kFewVectors = 4;   // float queries that are multiplied with rows as stored
constexpr int kSumSlots = 12;    // queries x digits held in registers by the second product
constexpr int kMaxTileRows = 256;
constexpr int64_t kFold = 256;       // columns summed in float32 before the partial sum moves to float64
constexpr int64_t kIntDims = 61440;  // an int32 dot product of u8 x s8 cannot overflow below this many dimensions

inline int64_t padded(int64_t d) { return (d + kPad - 1) / kPad * kPad; }

// Running state of one query's online softmax; `max` is the largest logit seen, sums are relative to it.
struct Online {
    double max;    // m
    double sum;    // sum p,         p = exp(l - m)
    double sum_l;  // sum p (l - m)  -> entropy
    double sum_2;  // sum p^2        -> effective sample size
    double sum_h;  // sum p |v|^2/2  -> trace of the posterior covariance
    double sum_q;  // sum of the weights as the second product sees them (rounded to integers on the int8 path)
    double noise;  // variance carried by that rounding
};

// Weights of a tile as integers: p = quantum * (d0 256^(parts-1) + d1 256^(parts-2) + ...). One factor of the products
// is unsigned and the other signed. Softmax weights are never negative: their digits are unsigned and the rows signed,
// v = u - 128, which holds a weight twice as finely as the other way round. Weights of either sign have signed digits.
struct WeightDigits {
    bool either_sign;
    int groups, group, parts;  // queries in groups of `group` <= kSumSlots / parts
    const int8_t* digits;      // [groups][ceil(R/4)][group][parts][4 rows]
    const uint8_t* active;     // [groups]   0: no query of the group takes anything from this tile
    const int32_t* offset;     // [groups*group][parts]   either_sign: -128 * sum_r digit turns u into v; else 0
    const float* rescale;      // [groups*group]
    const float* quantum;      // [groups*group]
};

// Where column c of a row is kept by the second integer product: inside each block of 64 it is dword (4 lane + i) of
// register j with c = 16 lane + 4 j + i.
inline int64_t column_of_slot(int64_t slot) {
    const int64_t j = slot / 16 % 4, lane = slot / 4 % 4, i = slot % 4;
    return slot / 64 * 64 + 16 * lane + 4 * j + i;
}

struct Kernels {
    const char* name;
    bool int8;  // has the exact integer products for uint8 data

    // dst[0..d) = centred row as float32, zero up to dp
    void (*widen)(const void* row, DType dtype, int64_t d, int64_t dp, float* dst);
    // S[q*lds + r] += <X_r, Q_q>, folded into float64 every 1024 columns
    void (*dot_f32)(const float* X, int64_t ldx, int R, const float* Q, int64_t ldq, int nq, int64_t dp, double* S,
                    int64_t lds);
    // The same product wholly in float64, for logits that float32 cannot hold to the contract
    void (*dot_f64)(const float* X, int64_t ldx, int R, const double* Q, int64_t ldq, int nq, int64_t dp, double* S,
                    int64_t lds);
    // A[q] = rescale[q] A[q] + sum_r P[q*ldp + r] X_r
    void (*sum_f32)(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                    int64_t dp, float* A, int64_t lda);

    // The two float32 products for nq <= kFewVectors, straight from rows as stored, d values each: widened in
    // registers, since a tile of float32 written and read back would cost more than the products.
    void (*dot_few)(const void* X, DType dtype, int64_t d, int R, const float* Q, int64_t ldq, int nq, double* S,
                    int64_t lds);
    // `prefetch` (or null): the next R rows, half of which are brought to L2 meanwhile
    void (*sum_few)(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale,
                    int nq, float* A, int64_t lda, const void* prefetch);

    // S[q*lds + r] = <u_r, q_q>, uint8 x int8 in int32, for `groups` groups of `group` <= kMaxDotGroup query vectors.
    // Q: [groups][dq/64][group][64]
    void (*dot_u8)(const uint8_t* X, int64_t ldx, int R, const int8_t* Q, int64_t dq, int groups, int group, int64_t d,
                   int32_t* S, int64_t lds);
    // A[q] = rescale[q] A[q] + quantum[q] sum_r digits(p_r) v_r; columns of A in the order of `column_of_slot`.
    // `prefetch` (or null) is the next tile, brought to L2 meanwhile.
    void (*sum_u8)(const uint8_t* X, int64_t ldx, int R, int64_t d, const WeightDigits& w, float* A, int64_t lda,
                   const uint8_t* prefetch);

    // dot_f32 sums column k of each kFold columns in lane k % dot_lanes, so dot_terms additions in a row: what its
    // rounding bounds stand on.
    int dot_lanes, dot_terms;
    int sum_block;  // queries per register block of sum_f32

    // p = exp(l - m) and the running sums; returns false, touching nothing but the state, if no row of the tile can
    // matter. `rescale` is what older partial sums must be multiplied with.
    bool (*softmax)(const double* l, const double* half_norm, int R, double cut, Online* state, double* p,
                    double* rescale);

    // sum_k (x_k - v_k)^2, <x, v> and acc += w v, in float64
    double (*distance)(const double* x, const void* row, DType dtype, int64_t d);
    void (*axpy)(double w, const void* row, DType dtype, int64_t d, double* acc);
    // |v|^2 in float64; the sum of the row into acc; false if the row holds NaN or Inf
    bool (*row_stats)(const void* row, DType dtype, int64_t d, double* norm2, double* acc);
};

// Null where the compiler or the processor cannot.
const Kernels* kernels_portable();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512_vnni();

}  // namespace geodiff
