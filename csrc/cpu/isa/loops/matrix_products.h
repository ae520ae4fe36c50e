// The two products in exact 8-bit integers, by products of 2 x 8 by 8 x 2 bytes: one instruction for 32 multiply-adds.
// V: the operations of vec/matrices_neon.h.
//
// A register holds eight columns of two rows, or eight digits of two vectors, and a sum the four products of two by
// two. The first product joins rows in registers as it walks along d, and digits of a group once for all rows of a
// tile. The second contracts over rows: eight rows are interleaved for one block of columns, which stays in L1 while
// every query uses it.
#pragma once

#include "../table.h"
#include "../vec/constants.h"
#include "coordinate_bounds.h"
#include "listed_rows.h"
#include "peaks.h"
#include "query_digits.h"
#include "weight_digits.h"

namespace {

using geodiff::kPad;
using geodiff::kTail;
using geodiff::RowTail;

constexpr int kPairRows = 8;            // rows of a block of the first product: four registers
constexpr int64_t kMatrixChunk = 2048;  // columns whose digits, joined, stay in L1
constexpr int kEight = 8;               // rows or columns that one instruction contracts

// S[q*lds + r] (+)= <u_r, q_q> over `steps` of 8 columns, for PAIRS pairs of digits. Q: [steps][PAIRS][2][8]. X: the
// rows' pointers; those of a block that are not there repeat the last.
template <class V, int PAIRS>
GEODIFF_BLOCK void dot_block_matrices(const uint8_t* const* X, const int8_t* Q, int64_t len, int32_t* sums) {
    typedef typename V::Vec Vec;
    constexpr int RB = kPairRows / 2;
    Vec acc[RB][PAIRS];
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < PAIRS; ++q) acc[r][q] = V::zero();
    const uint8_t* row[kPairRows];
    GEODIFF_UNROLL for (int i = 0; i < kPairRows; ++i) row[i] = X[i];
    int64_t k = 0;
    for (; k + 2 * kEight <= len; k += 2 * kEight)
        GEODIFF_UNROLL for (int half = 0; half < 2; ++half, Q += PAIRS * V::bytes) {
            Vec x[RB];
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] =
                V::join(V::load(row[2 * r] + k), V::load(row[2 * r + 1] + k), half);
            GEODIFF_UNROLL for (int q = 0; q < PAIRS; ++q) {
                const Vec y = V::load(Q + q * V::bytes);
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[r][q], x[r], y);
            }
            asm volatile("" : : : "memory");  // rows are loaded again: no register is left to keep their other half
        }
    for (; k < len; k += kEight, Q += PAIRS * V::bytes) {  // never read past the last row
        Vec x[RB];
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = V::joined(row[2 * r] + k, row[2 * r + 1] + k, len - k);
        GEODIFF_UNROLL for (int q = 0; q < PAIRS; ++q) {
            const Vec y = V::load(Q + q * V::bytes);
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[r][q], x[r], y);
        }
    }
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < PAIRS; ++q)
        V::store(sums + (r * PAIRS + q) * 4, acc[r][q]);
}

// One chunk of `len` columns from X on, whose digits begin at column `at` of Q.
template <class V, int PAIRS>
inline void dot_chunk_matrices(const uint8_t* X, int64_t ldx, int R, const int8_t* Q, int group, int64_t at,
                               int64_t len, double* S, int64_t lds) {
    alignas(64) int8_t joined[kMatrixChunk / kEight * PAIRS * V::bytes];
    for (int64_t c = 0; c < len; c += kEight)
        for (int q = 0; q < 2 * PAIRS; ++q) {  // the last of an odd number is there twice
            const int from = q < group ? q : group - 1;
            const int64_t column = at + c;
            std::memcpy(joined + (c / kEight * 2 * PAIRS + q) * kEight,
                        Q + column / kPad * kPad * group + from * kPad + column % kPad, kEight);
        }
    for (int r = 0; r < R; r += kPairRows) {
        const uint8_t* rows[kPairRows];
        for (int i = 0; i < kPairRows; ++i) rows[i] = X + (r + i < R ? r + i : R - 1) * ldx;
        int32_t sums[kPairRows / 2][PAIRS][2][2];  // [pair of rows][pair of digits][row][digit]
        dot_block_matrices<V, PAIRS>(rows, joined, len, &sums[0][0][0][0]);
        const int there = R - r < kPairRows ? R - r : kPairRows;
        for (int q = 0; q < group; ++q)
            for (int i = 0; i < there; ++i) {
                double& s = S[q * lds + r + i];
                s = (at > 0 ? s : 0) + double(sums[i / 2][q / 2][i % 2][q % 2]);
            }
    }
}

template <class V, int PAIRS>
inline void dot_group_matrices(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const int8_t* Q, int group,
                               int64_t d, double* S, int64_t lds) {
    for (int64_t k = 0; k < d; k += kMatrixChunk) {
        const int64_t len = d - k < kMatrixChunk ? d - k : kMatrixChunk;
        dot_chunk_matrices<V, PAIRS>(X + k, ldx, R, Q, group, k, len, S, lds);
    }
    for (int h = 0; h < 2 && tail.half[h]; ++h)
        dot_chunk_matrices<V, PAIRS>(tail.half[h], kTail, R, Q, group, geodiff::padded(d) + h * kTail, kTail, S, lds);
}

template <class V>
void dot_matrices(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const geodiff::QueryDigits& queries,
                  int64_t d, double* S, int64_t lds, const uint8_t*) {
    const int group = queries.group;
    const int64_t* total = queries.total;
    const int8_t* Q = static_cast<const int8_t*>(queries.digits);
    for (int g = 0; g < queries.groups; ++g, Q += group * queries.columns, S += group * lds, total += group) {
        with_constant<V::pairs + 1>((group + 1) / 2, [&](auto size) {
            constexpr int kPairs = decltype(size)::value;
            if constexpr (kPairs > 0) dot_group_matrices<V, kPairs>(X, ldx, tail, R, Q, group, d, S, lds);
        });
        for (int q = 0; q < group; ++q) {  // v = u - 128
            const double shift = -128.0 * double(total[q]);
            for (int r = 0; r < R; ++r) S[q * lds + r] += shift;
        }
    }
}

// Sums of 2 * PAIRS slots and 8 columns. Xi: [steps][4 pairs of columns][2][8 rows]; digits: [steps][slots][8 rows], of
// which a pair may end beyond the slots of the last step: `last` is that step, with room for it.
template <class V, int PAIRS, bool SIGNED>
GEODIFF_BLOCK void sum_block_matrices(const uint8_t* Xi, int64_t stride, int steps, const int8_t* digits, int64_t step,
                                      const int8_t* last, int32_t* sums) {
    typedef typename V::Vec Vec;
    Vec acc[PAIRS][4];
    GEODIFF_UNROLL for (int s = 0; s < PAIRS; ++s) GEODIFF_UNROLL for (int c = 0; c < 4; ++c) acc[s][c] = V::zero();
    const auto add = [&](const int8_t* p) GEODIFF_INLINE_LAMBDA {
        Vec x[4];
        GEODIFF_UNROLL for (int c = 0; c < 4; ++c) x[c] = V::load(Xi + c * V::bytes);
        GEODIFF_UNROLL for (int s = 0; s < PAIRS; ++s) {
            const Vec y = V::load(p + s * V::bytes);
            GEODIFF_UNROLL for (int c = 0; c < 4; ++c) V::template weigh<SIGNED>(acc[s][c], x[c], y);
        }
    };
    for (int i = 1; i < steps; ++i, Xi += stride, digits += step) add(digits);
    add(last);
    // Two columns of two slots to a sum -> four columns of one slot
    GEODIFF_UNROLL for (int s = 0; s < PAIRS; ++s) GEODIFF_UNROLL for (int c = 0; c < 4; c += 2)
        V::part(acc[s][c], acc[s][c + 1], sums + 2 * s * 8 + 2 * c, sums + (2 * s + 1) * 8 + 2 * c);
}

// A[q][8 columns] = rescale[q] A + quantum[q] (sums - 128 total): rows are taken as stored, whatever the digits' sign.
template <int PARTS>
inline void fold_matrices(const int32_t* sums, const int32_t* total, float quantum, float rescale, float* a) {
    float whole[8] = {};
    for (int part = 0; part < PARTS; ++part)
        for (int c = 0; c < 8; ++c) whole[c] = whole[c] * 256.0f + float(sums[part * 8 + c] - 128 * total[part]);
    for (int c = 0; c < 8; ++c) a[c] = quantum * whole[c] + rescale * a[c];
}

template <class V, int PARTS, bool SIGNED>
inline void sum_group_matrices(const uint8_t* Xi, int steps, const geodiff::WeightDigits& w, int g, float* A,
                               int64_t lda) {
    const int slots = w.group * PARTS, q0 = g * w.group;
    const int64_t step = slots * kEight;
    const int8_t* digits = static_cast<const int8_t*>(w.digits) + g * steps * step;
    int8_t last[2 * V::pairs * kEight] = {};
    std::memcpy(last, digits + (steps - 1) * step, size_t(step));
    for (int64_t c = 0; c < kPad; c += 8, Xi += 4 * V::bytes) {
        int32_t sums[2 * V::pairs * 8];
        with_constant<V::pairs + 1>((slots + 1) / 2, [&](auto size) {
            constexpr int kPairs = decltype(size)::value;
            if constexpr (kPairs > 0)
                sum_block_matrices<V, kPairs, SIGNED>(Xi, kPad * kEight, steps, digits, step, last, sums);
        });
        for (int q = 0; q < w.group; ++q)
            fold_matrices<PARTS>(sums + q * PARTS * 8, w.total + (q0 + q) * PARTS, w.quantum[q0 + q], w.rescale[q0 + q],
                                 A + (q0 + q) * lda + c);
    }
}

template <class V, bool SIGNED>
inline void sum_tile_matrices(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                              int64_t lda, const uint8_t* prefetch) {
    alignas(64) uint8_t Xi[geodiff::kMaxTileRows * kPad];  // [steps][pairs of columns][2][8 rows]
    const int steps = (R + kEight - 1) / kEight;
    for (int64_t c = 0; c < d; c += kPad) {
        for (int r = 0; r < R; r += kEight) {
            const uint8_t* rows[kEight];
            for (int i = 0; i < kEight; ++i) {  // the weight of a row that is not there is zero
                const int row = r + i < R ? r + i : R - 1;
                rows[i] = X + row * ldx + c;
                if (prefetch && 2 * row < R) __builtin_prefetch(prefetch + row * ldx + c, 0, 2);
            }
            for (int64_t k = 0; k < kPad; k += V::bytes) V::interleave(rows, k, d - c, Xi + r * kPad + k * kEight);
        }
        for (int g = 0; g < w.groups; ++g) {
            if (!w.active[g]) continue;
            if (w.parts == 1)
                sum_group_matrices<V, 1, SIGNED>(Xi, steps, w, g, A + c, lda);
            else if (w.parts == 2)
                sum_group_matrices<V, 2, SIGNED>(Xi, steps, w, g, A + c, lda);
            else
                sum_group_matrices<V, 3, SIGNED>(Xi, steps, w, g, A + c, lda);
        }
    }
}

template <class V>
void sum_matrices(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                  int64_t lda, const uint8_t* prefetch) {
    if (w.balanced)
        sum_tile_matrices<V, true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_matrices<V, false>(X, ldx, R, d, w, A, lda, prefetch);
}

// Bytes: the operations of vec/bytes_vnni.h, for products of rows that come one by one and of short ones.
template <class V, class Bytes>
inline geodiff::IntegerProducts matrix_products() {
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 8;
    p.layout.weight_rows = kEight;
    p.layout.dot_group = p.layout.sum_group = 2 * V::pairs;
    p.layout.worth = 4;
    p.layout.free_to = 8;
    p.layout.shaped_from = 17;
    p.layout.lanes_from = 3;
    p.layout.tile = p.layout.crowded_tile = 384 << 10;
    p.layout.row_unit = 24;
    for (int i = 0; i < int(kPad); ++i) p.layout.column_of_slot[i] = uint8_t(i);
    p.place = place_digits<int8_t>;
    p.round = round_weights_of<int8_t, kEight>;
    p.dot = dot_matrices<V>;
    p.dot_listed = dot_listed_bytes<Bytes>;
    add_lanes<Bytes, ByteLanes<Bytes>>(p);
    p.sum = sum_matrices<V>;
    p.peak = peak_integer<V, 8>;
    return p;
}

}  // namespace
