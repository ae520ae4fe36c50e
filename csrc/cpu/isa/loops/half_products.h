// The two products in exact 16-bit integers: u8 data, widened, times digits of 16 bits, two products to a dword, summed
// in int32 modulo 2^32. V: the operations of vec/halves_avx2.h.
//
// Both read the data as stored. The first product walks along d and widens rows in registers. The second contracts over
// rows: two rows at a time are interleaved, as numbers of 16 bits, for one block of columns, which stays in L1 while
// every query uses it. Blocks of 8 accumulators: with more, GCC 12 spills (2 x 4 and 4 x 2 reach the registers' peak).
#pragma once

#include "../table.h"
#include "peaks.h"

#ifndef GEODIFF_UNROLL
#define GEODIFF_UNROLL _Pragma("GCC unroll 32")
#endif

namespace {

using geodiff::kPad;

constexpr int kHalfDotGroup = 4;    // query digits held in registers by the first product
constexpr int kHalfSumGroup = 4;    // weight digits held in registers by the second
constexpr int kHalfBias = 1 << 15;  // unsigned digits are stored less this: see `start_of_halves`

// Columns that a dword sums without overflow, |u q| <= 255 2^15 each: a lane takes two of every V::columns.
constexpr int64_t kHalfChunk = 2048;

// S[q*lds + r] (+)= <u_r, q_q> over `len` <= kHalfChunk columns. STREAM: rows come from memory and are used once. The
// next RB rows are prefetched then: a row of 3 KiB ends before the processor's own prefetcher has got going.
template <class V, int RB, int QB, bool STREAM>
inline void dot_block_halves(const uint8_t* X, int64_t ldx, const int16_t* Q, int64_t len, double* S, int64_t lds,
                             bool add) {
    static_assert(kHalfChunk / V::columns * 2 * 255 * 32768 < (int64_t(1) << 31));
    typedef typename V::Vec Vec;
    constexpr int kSums = (RB * QB + 3) / 4 * 4;
    Vec acc[kSums];
    GEODIFF_UNROLL for (int i = 0; i < kSums; ++i) acc[i] = V::zero();
    int64_t k = 0;
    for (; k + kPad <= len; k += kPad, Q += kPad * QB) {
        if constexpr (STREAM)
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) __builtin_prefetch(X + (RB + r) * ldx + k, 0, 3);
        GEODIFF_UNROLL for (int64_t i = 0; i < kPad; i += V::columns) {
            Vec x[RB];
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = V::widen(X + r * ldx + k + i);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
                const Vec y = V::load(Q + q * kPad + i);
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[q * RB + r], x[r], y);
            }
        }
    }
    for (int64_t i = 0; k + i < len; i += V::columns) {  // never read past the last row
        const int64_t rest = len - k - i < V::columns ? len - k - i : V::columns;
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            uint8_t row[V::columns] = {};
            std::memcpy(row, X + r * ldx + k + i, size_t(rest));
            const Vec x = V::widen(row);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) V::dot(acc[q * RB + r], x, V::load(Q + q * kPad + i));
        }
    }
    double sums[kSums];
    GEODIFF_UNROLL for (int i = 0; i < kSums; i += 4) V::sums4(acc + i, sums + i);
    for (int q = 0; q < QB; ++q)
        for (int r = 0; r < RB; ++r) S[q * lds + r] = (add ? S[q * lds + r] : 0) + sums[q * RB + r];
}

template <class V, int QB, bool STREAM>
inline void dot_group_halves(const uint8_t* X, int64_t ldx, int R, const int16_t* Q, int64_t d, double* S,
                             int64_t lds) {
    constexpr int RB = QB == 1 ? 8 : QB == 2 ? 4 : QB == 3 ? 2 : 2;
    for (int64_t k = 0; k < d; k += kHalfChunk, Q += kHalfChunk * QB) {
        const int64_t len = d - k < kHalfChunk ? d - k : kHalfChunk;
        int r = 0;
        for (; r + RB <= R; r += RB)
            dot_block_halves<V, RB, QB, STREAM>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
        for (; r < R; ++r) dot_block_halves<V, 1, QB, false>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
    }
}

template <class V>
void dot_halves(const uint8_t* X, int64_t ldx, int R, const void* digits, const int64_t* total, int64_t dq, int groups,
                int group, int64_t d, double* S, int64_t lds) {
    const int16_t* Q = static_cast<const int16_t*>(digits);
    for (int g = 0; g < groups; ++g, Q += group * dq, S += group * lds, total += group) {
        switch (group) {
            case 1:
                dot_group_halves<V, 1, true>(X, ldx, R, Q, d, S, lds);
                break;
            case 2:
                dot_group_halves<V, 2, true>(X, ldx, R, Q, d, S, lds);
                break;
            case 3:
                dot_group_halves<V, 3, false>(X, ldx, R, Q, d, S, lds);
                break;
            default:
                if (groups == 1)
                    dot_group_halves<V, 4, true>(X, ldx, R, Q, d, S, lds);
                else
                    dot_group_halves<V, 4, false>(X, ldx, R, Q, d, S, lds);
                break;
        }
        for (int q = 0; q < group; ++q) {  // v = u - 128
            const double shift = -128.0 * double(total[q]);
            for (int r = 0; r < R; ++r) S[q * lds + r] += shift;
        }
    }
}

// What the second product needs of one group's weights.
struct HalfGroup {
    const int16_t* digits;  // [steps][slots][2 rows]
    const int32_t* total;
    const float *rescale, *quantum;
};

// Where the sum of one slot of digits p starts, modulo 2^32: sum p v = sum p u - 128 sum p, and for unsigned digits,
// stored as p - 2^15, sum p u = sum (p - 2^15) u + 2^15 sum u. The result is exact: |sum p v| <= 256 65535 128 < 2^31.
template <class V>
inline typename V::Vec start_of_halves(int32_t total, typename V::Vec columns) {
    return V::add(V::set1(int32_t(uint32_t(total) * uint32_t(-128))), columns);
}

// A[q][columns] = rescale[q] A + quantum[q] sum_r digit(p_r) v_r, for one group and interleaved columns of one block;
// `columns`: what start_of_halves adds for each.
template <class V, int QB, int PARTS>
inline void sum_block_halves(const uint8_t* Xi, const uint8_t* columns, int steps, const HalfGroup& w, float* A,
                             int64_t lda) {
    typedef typename V::Vec Vec;
    constexpr int kSlots = QB * PARTS;
    for (int half = 0; half < 2; ++half, Xi += 2 * V::bytes, columns += 2 * V::bytes, A += V::bytes / 2) {
        Vec acc[kSlots][2];
        GEODIFF_UNROLL for (int s = 0; s < kSlots; ++s) GEODIFF_UNROLL for (int c = 0; c < 2; ++c) acc[s][c] =
            start_of_halves<V>(w.total[s], V::load(columns + c * V::bytes));
        const int16_t* p = w.digits;
        for (int i = 0; i < steps; ++i, p += kSlots * 2) {
            const Vec x0 = V::load(Xi + i * 4 * V::bytes), x1 = V::load(Xi + i * 4 * V::bytes + V::bytes);
            GEODIFF_UNROLL for (int s = 0; s < kSlots; ++s) {
                const Vec y = V::broadcast2(p + s * 2);
                V::dot(acc[s][0], x0, y);
                V::dot(acc[s][1], x1, y);
            }
        }
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < 2; ++c)
            V::template fold<PARTS>(&acc[q * PARTS][c], 2, w.quantum[q], w.rescale[q], A + q * lda + c * V::bytes / 4);
    }
}

// One register's columns of two rows, interleaved; zero from `len` columns on.
template <class V>
inline void load_two(const uint8_t* a, const uint8_t* b, int64_t len, typename V::Vec* out) {
    if (len >= V::bytes) return V::pairs(a, b, out);
    uint8_t rest[2][V::bytes] = {};
    if (len > 0) {
        std::memcpy(rest[0], a, size_t(len));
        std::memcpy(rest[1], b, size_t(len));
    }
    V::pairs(rest[0], rest[1], out);
}

// Only the first half of the next tile is prefetched: the first product then reads the rest from memory, and memory is
// busy through both products.
inline void prefetch_two(const uint8_t* next, int64_t ldx, int R, int r) {
    if (!next || 2 * r >= R) return;
    __builtin_prefetch(next + r * ldx, 0, 2);
    __builtin_prefetch(next + (r + 1 < R ? r + 1 : r) * ldx, 0, 2);
}

// Sums over the rows of a block, as start_of_halves wants them: 2^15 sum u of unsigned digits.
template <class V>
inline void finish_columns(const typename V::Vec* sums, uint8_t* columns) {
    GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
        typename V::Vec both = V::zero();
        V::dot(both, sums[j], V::set1(0x00010001));  // at most 128 rows of 255 in a half
        V::store(columns + j * V::bytes, V::shifted15(both));
    }
}

// One or two slots alone: interleaved rows are used once, straight from the registers they are made in. A cache line of
// a few rows at a time: rows a multiple of 1 KiB apart share so few lines of L1 that a whole column of them does not
// fit.
template <class V, int SLOTS, int PARTS, bool BIASED>
inline void sum_few_halves(const uint8_t* X, int64_t ldx, int R, int64_t len, const geodiff::WeightDigits& w, float* A,
                           int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    constexpr int kParts = int(kPad / V::bytes), kRows = 16;
    const int16_t* digits = static_cast<const int16_t*>(w.digits);
    Vec acc[kParts][SLOTS][4] = {}, sums[kParts][4] = {};
    for (int first = 0; first < R; first += kRows) {
        const int last = first + kRows < R ? first + kRows : R;
        for (int r = first; r < last; r += 2) prefetch_two(prefetch, ldx, R, r);
        for (int part = 0; part < kParts; ++part) {
            const uint8_t* column = X + part * V::bytes;
            Vec a[SLOTS][4], s4[4];
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                s4[j] = sums[part][j];
                GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) a[s][j] = acc[part][s][j];
            }
            const int16_t* p = digits + first * SLOTS;
            for (int r = first; r < last; r += 2, p += SLOTS * 2) {
                Vec x[4];
                const int next = r + 1 < R ? r + 1 : r;  // its weight is zero
                load_two<V>(column + r * ldx, column + next * ldx, len - part * V::bytes, x);
                GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) {
                    const Vec y = V::broadcast2(p + s * 2);
                    GEODIFF_UNROLL for (int j = 0; j < 4; ++j) V::dot(a[s][j], x[j], y);
                }
                if constexpr (BIASED) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) s4[j] = V::add_halves(s4[j], x[j]);
            }
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                sums[part][j] = s4[j];
                GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) acc[part][s][j] = a[s][j];
            }
        }
    }
    for (int part = 0; part < kParts; ++part, A += V::bytes) {
        uint8_t columns[4 * V::bytes];
        finish_columns<V>(sums[part], columns);
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[part][s][j] =
            V::add(acc[part][s][j], start_of_halves<V>(w.total[s], V::load(columns + j * V::bytes)));
        GEODIFF_UNROLL for (int q = 0; q < SLOTS / PARTS; ++q) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
            V::template fold<PARTS>(&acc[part][q * PARTS][j], 4, w.quantum[q], w.rescale[q],
                                    A + q * lda + j * V::bytes / 4);
    }
}

// All groups of queries against interleaved columns of one register's width.
template <class V>
inline void sum_groups_halves(const uint8_t* Xi, const uint8_t* columns, int steps, const geodiff::WeightDigits& w,
                              float* A, int64_t lda) {
    const int64_t group_digits = int64_t(steps) * 2 * w.group * w.parts;
    for (int g = 0; g < w.groups; ++g) {
        if (!w.active[g]) continue;
        const int q = g * w.group;
        const HalfGroup group{static_cast<const int16_t*>(w.digits) + g * group_digits, w.total + q * w.parts,
                              w.rescale + q, w.quantum + q};
        float* a = A + q * lda;
        switch (w.parts * 8 + w.group) {
            case 8 + 1:
                sum_block_halves<V, 1, 1>(Xi, columns, steps, group, a, lda);
                break;
            case 8 + 2:
                sum_block_halves<V, 2, 1>(Xi, columns, steps, group, a, lda);
                break;
            case 8 + 3:
                sum_block_halves<V, 3, 1>(Xi, columns, steps, group, a, lda);
                break;
            case 8 + 4:
                sum_block_halves<V, 4, 1>(Xi, columns, steps, group, a, lda);
                break;
            case 16 + 1:
                sum_block_halves<V, 1, 2>(Xi, columns, steps, group, a, lda);
                break;
            default:
                sum_block_halves<V, 2, 2>(Xi, columns, steps, group, a, lda);
                break;
        }
    }
}

template <class V, bool BIASED>
inline void sum_tile_halves(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                            int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    constexpr int kParts = int(kPad / V::bytes), kSteps = geodiff::kMaxTileRows / 2;
    alignas(64) uint8_t Xi[kParts][kSteps * 4 * V::bytes];
    alignas(64) uint8_t columns[4 * V::bytes];
    const int steps = (R + 1) / 2, slots = w.group * w.parts;
    for (int64_t c = 0; c < d; c += kPad) {  // a cache line of every row
        const uint8_t* next = prefetch ? prefetch + c : nullptr;
        if (w.groups == 1 && slots <= 2) {
            if (slots == 1)
                sum_few_halves<V, 1, 1, BIASED>(X + c, ldx, R, d - c, w, A + c, lda, next);
            else if (w.parts == 1)
                sum_few_halves<V, 2, 1, BIASED>(X + c, ldx, R, d - c, w, A + c, lda, next);
            else
                sum_few_halves<V, 2, 2, BIASED>(X + c, ldx, R, d - c, w, A + c, lda, next);
            continue;
        }
        Vec sums[kParts][4] = {};
        for (int i = 0; i < steps; ++i) {
            const int second = 2 * i + 1 < R ? 2 * i + 1 : 2 * i;  // its weight is zero
            prefetch_two(next, ldx, R, 2 * i);
            GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) {
                Vec x[4];
                const int64_t at = c + part * V::bytes;
                load_two<V>(X + 2 * i * ldx + at, X + second * ldx + at, d - at, x);
                GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                    V::store(Xi[part] + (4 * i + j) * V::bytes, x[j]);
                    if constexpr (BIASED) sums[part][j] = V::add_halves(sums[part][j], x[j]);
                }
            }
        }
        for (int part = 0; part < kParts; ++part) {
            finish_columns<V>(sums[part], columns);
            sum_groups_halves<V>(Xi[part], columns, steps, w, A + c + part * V::bytes, lda);
        }
    }
}

template <class V>
void sum_halves(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
                const uint8_t* prefetch) {
    if (!w.balanced)
        sum_tile_halves<V, true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_halves<V, false>(X, ldx, R, d, w, A, lda, prefetch);
}

template <class V>
inline geodiff::IntegerProducts half_products() {
    static_assert(kPad % V::bytes == 0);
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 16;
    p.layout.weight_rows = 2;
    p.layout.dot_group = kHalfDotGroup;
    p.layout.sum_group = kHalfSumGroup;
    p.layout.worth = 1;  // README.md has the figures
    p.layout.dot_to = 16;
    p.layout.shaped_from = 2;
    p.layout.sum_to = 2;
    p.layout.row_unit = 24;  // kDotRows too: the first product may be in float32
    p.layout.tile = 384 << 10;
    p.layout.crowded_tile = 736 << 10;  // more than L2: sums that come from L3 for each tile cost more
    p.layout.bias = kHalfBias;
    for (int i = 0; i < int(kPad); ++i) p.layout.column_of_slot[i] = uint8_t(V::column_of_slot(i));
    p.dot = dot_halves<V>;
    p.sum = sum_halves<V>;
    p.peak = peak_integer<V, 2>;
    return p;
}

}  // namespace
