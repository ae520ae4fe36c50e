// The two products in exact 8-bit integers: u8 data times s8 query digits, and data times weight digits, one factor u8
// and the other s8, four products to a dword, summed in int32. V: the operations of vec/bytes_vnni.h.
//
// Both read the data as stored. The first product walks along d, so rows need no rearranging. The second contracts over
// rows: four rows are interleaved byte-wise for one block of columns at a time, which stays in L1 while every query
// uses it.
#pragma once

#include "../table.h"
#include "peaks.h"

namespace {

// V::bytes divides this block of packed digits.
constexpr int64_t kDigitBlock = 64;
constexpr int kByteDotGroup = 8;     // query digits held in registers by the first product
constexpr int kByteSumGroup = 12;    // weight digits held in registers by the second
constexpr int64_t kDotChunk = 4096;  // 8 vectors of this length: 32 KiB, resident in L1 while rows stream by

// S[q*lds + r] (+)= <u_r, q_q> over `len` columns. An int32 cannot overflow below 2^31 / (255 128) = 65,793 of them.
template <class V, int RB, int QB>
inline void dot_block_bytes(const uint8_t* X, int64_t ldx, const int8_t* Q, int64_t len, double* S, int64_t lds,
                            bool add) {
    typedef typename V::Vec Vec;
    Vec acc[RB][8];
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < QB; ++q) acc[r][q] = V::zero();
    int64_t k = 0;
    for (; k + V::bytes <= len; k += V::bytes) {
        const int8_t* digits = Q + k / kDigitBlock * kDigitBlock * QB + k % kDigitBlock;
        Vec x[RB];
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = V::load(X + r * ldx + k);
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
            const Vec y = V::load(digits + q * kDigitBlock);
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[r][q], x[r], y);
        }
    }
    if (k < len) {  // never read past the last row: the rest of the register is masked off
        const int8_t* digits = Q + k / kDigitBlock * kDigitBlock * QB + k % kDigitBlock;
        const typename V::Mask mask = V::first(len - k);
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            const Vec x = V::load(mask, X + r * ldx + k);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) V::dot(acc[r][q], x, V::load(digits + q * kDigitBlock));
        }
    }
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
        GEODIFF_UNROLL for (int q = QB; q < 8; ++q) acc[r][q] = V::zero();
        int32_t sums[8];
        V::sums8(acc[r], sums);
        for (int q = 0; q < QB; ++q) S[q * lds + r] = (add ? S[q * lds + r] : 0) + double(sums[q]);
    }
}

template <class V, int QB>
inline void dot_group_bytes(const uint8_t* X, int64_t ldx, int R, const int8_t* Q, int64_t d, double* S, int64_t lds) {
    constexpr int RB = QB <= 4 ? V::few_digits_rows : V::many_digits_rows;
    for (int64_t k = 0; k < d; k += kDotChunk, Q += kDotChunk * QB) {
        const int64_t len = d - k < kDotChunk ? d - k : kDotChunk;
        int r = 0;
        for (; r + RB <= R; r += RB) dot_block_bytes<V, RB, QB>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
        for (; r < R; ++r) dot_block_bytes<V, 1, QB>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
    }
}

template <class V>
void dot_bytes(const uint8_t* X, int64_t ldx, int R, const void* digits, const int64_t* total, int64_t dq, int groups,
               int group, int64_t d, double* S, int64_t lds) {
    const int8_t* Q = static_cast<const int8_t*>(digits);
    for (int g = 0; g < groups; ++g, Q += group * dq, S += group * lds, total += group) {
        switch (group) {
            case 1:
                dot_group_bytes<V, 1>(X, ldx, R, Q, d, S, lds);
                break;
            case 2:
                dot_group_bytes<V, 2>(X, ldx, R, Q, d, S, lds);
                break;
            case 3:
                dot_group_bytes<V, 3>(X, ldx, R, Q, d, S, lds);
                break;
            case 4:
                dot_group_bytes<V, 4>(X, ldx, R, Q, d, S, lds);
                break;
            case 5:
                dot_group_bytes<V, 5>(X, ldx, R, Q, d, S, lds);
                break;
            case 6:
                dot_group_bytes<V, 6>(X, ldx, R, Q, d, S, lds);
                break;
            case 7:
                dot_group_bytes<V, 7>(X, ldx, R, Q, d, S, lds);
                break;
            default:
                dot_group_bytes<V, 8>(X, ldx, R, Q, d, S, lds);
                break;
        }
        for (int q = 0; q < group; ++q) {  // v = u - 128
            const double shift = -128.0 * double(total[q]);
            for (int r = 0; r < R; ++r) S[q * lds + r] += shift;
        }
    }
}

// acc += four rows of a column times four digits of a weight: rows are u8 under signed digits, and s8 under unsigned.
template <class V, bool SIGNED>
inline void weigh(typename V::Vec& acc, typename V::Vec rows, typename V::Vec digits) {
    if constexpr (SIGNED)
        V::dot(acc, rows, digits);
    else
        V::dot(acc, digits, rows);
}

// Where the sums of one slot of digits start: rows taken as u8 owe -128 for each digit.
template <class V, bool SIGNED>
inline typename V::Vec start_of_sum(int32_t total) {
    return V::set1(SIGNED ? -128 * total : 0);
}

// What the second product needs of one group's weights.
struct ByteGroup {
    const int8_t* digits;  // [steps][queries][parts][4 rows]
    const int32_t* total;
    const float *rescale, *quantum;
};

// A[q][columns] = rescale[q] A + quantum[q] sum_r digit(p_r) v_r, for one group and interleaved columns of one block.
template <class V, int QB, int PARTS, bool SIGNED>
inline void sum_block_bytes(const uint8_t* Xi, int steps, const ByteGroup& w, float* A, int64_t lda) {
    typedef typename V::Vec Vec;
    for (int half = 0; half < 2; ++half, Xi += 2 * V::bytes, A += V::bytes / 2) {
        Vec acc[QB * PARTS][2];
        GEODIFF_UNROLL for (int s = 0; s < QB * PARTS; ++s) acc[s][0] = acc[s][1] = start_of_sum<V, SIGNED>(w.total[s]);
        const int8_t* p = w.digits;
        for (int i = 0; i < steps; ++i, p += QB * PARTS * 4) {
            const Vec x0 = V::load(Xi + i * 4 * V::bytes), x1 = V::load(Xi + i * 4 * V::bytes + V::bytes);
            GEODIFF_UNROLL for (int s = 0; s < QB * PARTS; ++s) {
                const Vec y = V::broadcast4(p + s * 4);
                weigh<V, SIGNED>(acc[s][0], x0, y);
                weigh<V, SIGNED>(acc[s][1], x1, y);
            }
        }
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < 2; ++c)
            V::template fold<PARTS>(&acc[q * PARTS][c], 2, w.quantum[q], w.rescale[q], A + q * lda + c * V::bytes / 4);
    }
}

// Four rows from r of one block of columns, interleaved; `mask` cuts off what lies past d. Only the first half of the
// next tile is prefetched: the first product then reads the rest from memory, and memory is busy through both products.
template <class V, bool SIGNED>
inline void load_four(const uint8_t* X, int64_t ldx, int R, int r, typename V::Mask mask, const uint8_t* prefetch,
                      typename V::Vec* out) {
    typename V::Vec v[4];
    GEODIFF_UNROLL for (int i = 0; i < 4; ++i) {
        const int row = r + i < R ? r + i : R - 1;  // weights past R are zero; only the address must be valid
        v[i] = V::load(mask, X + row * ldx);
        if (prefetch && 2 * row < R) __builtin_prefetch(prefetch + row * ldx, 0, 2);
    }
    V::interleave(v, out);
    if constexpr (!SIGNED) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) out[j] = V::centred(out[j]);
}

// One or two queries alone: interleaved rows are used once, straight from the registers they are made in.
template <class V, int SLOTS, int PARTS, bool SIGNED>
inline void sum_few_bytes(const uint8_t* X, int64_t ldx, int R, typename V::Mask mask, const geodiff::WeightDigits& w,
                          float* A, int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    Vec acc[SLOTS][4];
    GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[s][j] =
        start_of_sum<V, SIGNED>(w.total[s]);
    const int8_t* p = static_cast<const int8_t*>(w.digits);
    for (int r = 0; r < R; r += 4, p += SLOTS * 4) {
        Vec x[4];
        load_four<V, SIGNED>(X, ldx, R, r, mask, prefetch, x);
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) {
            const Vec y = V::broadcast4(p + s * 4);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) weigh<V, SIGNED>(acc[s][j], x[j], y);
        }
    }
    GEODIFF_UNROLL for (int q = 0; q < SLOTS / PARTS; ++q) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
        V::template fold<PARTS>(&acc[q * PARTS][j], 4, w.quantum[q], w.rescale[q], A + q * lda + j * V::bytes / 4);
}

template <class V, int PARTS, bool SIGNED>
inline void sum_group_bytes(int queries, const uint8_t* Xi, int steps, const ByteGroup& w, float* A, int64_t lda) {
    switch (queries) {
        case 1:
            return sum_block_bytes<V, 1, PARTS, SIGNED>(Xi, steps, w, A, lda);
        case 2:
            return sum_block_bytes<V, 2, PARTS, SIGNED>(Xi, steps, w, A, lda);
        case 3:
            return sum_block_bytes<V, 3, PARTS, SIGNED>(Xi, steps, w, A, lda);
        case 4:
            return sum_block_bytes<V, 4, PARTS, SIGNED>(Xi, steps, w, A, lda);
        default:
            break;
    }
    if constexpr (PARTS <= 2) {
        if (queries == 5)
            sum_block_bytes<V, 5, PARTS, SIGNED>(Xi, steps, w, A, lda);
        else
            sum_block_bytes<V, 6, PARTS, SIGNED>(Xi, steps, w, A, lda);
    }
}

template <class V, bool SIGNED>
inline void sum_tile_bytes(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                           int64_t lda, const uint8_t* prefetch) {
    alignas(64) uint8_t Xi[geodiff::kMaxTileRows * V::bytes];
    const int steps = (R + 3) / 4;
    const int64_t group_bytes = int64_t(steps) * 4 * w.group * w.parts;
    for (int64_t c = 0; c < d; c += V::bytes) {
        const typename V::Mask mask = V::first(d - c);
        const uint8_t* next = prefetch ? prefetch + c : nullptr;
        if (w.groups == 1 && w.group * w.parts <= 4) {
            switch (w.group * w.parts) {
                case 2:
                    sum_few_bytes<V, 2, 2, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
                case 3:
                    sum_few_bytes<V, 3, 3, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
                default:
                    sum_few_bytes<V, 4, 2, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
            }
            continue;
        }
        for (int r = 0; r < 4 * steps; r += 4) {
            typename V::Vec x[4];
            load_four<V, SIGNED>(X + c, ldx, R, r, mask, next, x);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) V::store(Xi + (r + j) * V::bytes, x[j]);
        }
        for (int g = 0; g < w.groups; ++g) {
            if (!w.active[g]) continue;
            const int q = g * w.group;
            const ByteGroup group{static_cast<const int8_t*>(w.digits) + g * group_bytes, w.total + q * w.parts,
                                  w.rescale + q, w.quantum + q};
            if (w.parts == 2)
                sum_group_bytes<V, 2, SIGNED>(w.group, Xi, steps, group, A + q * lda + c, lda);
            else
                sum_group_bytes<V, 3, SIGNED>(w.group, Xi, steps, group, A + q * lda + c, lda);
        }
    }
}

template <class V>
void sum_bytes(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
               const uint8_t* prefetch) {
    if (w.balanced)
        sum_tile_bytes<V, true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_bytes<V, false>(X, ldx, R, d, w, A, lda, prefetch);
}

template <class V>
inline geodiff::IntegerProducts byte_products() {
    static_assert(kDigitBlock % V::bytes == 0);
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 8;
    p.layout.weight_rows = 4;
    p.layout.dot_group = kByteDotGroup;
    p.layout.sum_group = kByteSumGroup;
    p.layout.worth = 4;
    p.layout.free_to = 8;
    p.layout.tile = p.layout.crowded_tile = 384 << 10;
    p.layout.row_unit = 24;  // 3 or 6 in the first product, 4 in the second, 8 in the softmax
    for (int i = 0; i < int(geodiff::kPad); ++i) p.layout.column_of_slot[i] = uint8_t(V::column_of_slot(i));
    p.dot = dot_bytes<V>;
    p.sum = sum_bytes<V>;
    p.peak = peak_integer<V, 4>;
    return p;
}

}  // namespace
