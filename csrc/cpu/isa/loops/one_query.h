// The second product for one query by itself on instruction sets that multiply numbers of 16 bits: weights of 15 bits
// as two digits, which are multiplied with bytes. 45 instructions for 4 rows of a register where one digit of 16 bits
// takes 51, since no row is widened; and no sum of columns is kept. V: the operations of vec/one_query_x86.h.
#pragma once

#include <algorithm>

#include "half_products.h"

namespace {

constexpr int kLowBits = 7;  // of the second digit; the first has 8
// What the weights of two neighbours, a and b, come to before rounding adds up to 1 to each. Their first digits come to
// a/128 + b/128, rounded down, <= (a + b)/128, their second ones to 127 + 127: with bytes, both are in 16 bits.
constexpr int kMostOfTwo = 255 << kLowBits;
static_assert(kMostOfTwo + 2 < 256 << kLowBits && 255 * 128 <= INT16_MAX);

// p[0..R) as digits [R/4][2][4 rows]; `to.units`: the largest sum of two neighbours.
geodiff::RoundedWeights round_for_one_query(const double* p, int R, const geodiff::WeightPlace& to) {
    constexpr int kRows = 4;
    const int all = (R + kRows - 1) / kRows * kRows;
    double padded[geodiff::kMaxTileRows + kRows], top = 0;
    std::copy_n(p, R, padded);
    std::fill(padded + R, padded + all, 0.0);
    for (int r = 0; r < all; r += 2) top = std::max(top, padded[r] + padded[r + 1]);
    int32_t value[geodiff::kMaxTileRows + kRows];
    geodiff::RoundedWeights found = round_to<false>(padded, all, top, to, value, nullptr);
    uint8_t* digits = static_cast<uint8_t*>(to.digits);
    for (int r = 0; r < all; r += kRows, digits += 2 * kRows)
        for (int i = 0; i < kRows; ++i) {
            digits[i] = uint8_t(value[r + i] >> kLowBits);
            digits[kRows + i] = uint8_t(value[r + i] & ((1 << kLowBits) - 1));
        }
    return found;
}

// A cache line of 16 rows at a time, for the reason given at sum_few_halves; every four rows some of those at `ahead`
// are asked for, as there.
template <class V, bool AHEAD>
GEODIFF_BLOCK void sum_line_bytes(const uint8_t* X, int64_t ldx, int R, const geodiff::WeightDigits& w, float* A,
                                  const uint8_t* ahead) {
    typedef typename V::Vec Vec;
    constexpr int kParts = int(kPad / V::bytes), kRows = 16;
    const typename V::Multipliers multipliers;
    Vec acc[kParts][4] = {};
    const int8_t* digits = static_cast<const int8_t*>(w.digits);
    for (int left = R; left > 0; left -= kRows, X += kRows * ldx, digits += 2 * kRows) {
        GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) {
            const uint8_t* at = X + part * V::bytes;
            const int8_t* p = digits;
            Vec a[4];
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) a[j] = acc[part][j];
            const auto add = [&](int there) GEODIFF_INLINE_LAMBDA {
                Vec rows[4], x[4];
                GEODIFF_UNROLL for (int i = 0; i < 4; ++i)  // the weight of a row that is not there is zero
                    rows[i] = V::centred(V::load(at + (i < there ? i : there - 1) * ldx));
                V::interleave(rows, x);
                const Vec h = V::broadcast4(p), l = V::broadcast4(p + 4);
                GEODIFF_UNROLL for (int j = 0; j < 4; ++j) V::weigh(a[j], x[j], h, l, multipliers);
            };
            int rows = in_register(left < kRows ? left : kRows);
            for (; rows >= 4; rows -= 4, at += 4 * ldx, p += 8) {
                if constexpr (AHEAD) {
                    GEODIFF_UNROLL for (int i = 0; i < 4 / kParts; ++i) {
                        __builtin_prefetch(ahead, 0, 2);
                        ahead += ldx;
                    }
                }
                add(4);
            }
            if (rows > 0) add(rows);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[part][j] = a[j];
        }
    }
    GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
        V::template fold<1>(acc[part] + j, 1, w.quantum[0], w.rescale[0], A + part * V::bytes + j * V::bytes / 4);
}

template <class V>
void sum_one_query_bytes(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                         const uint8_t* prefetch) {
    int64_t c = 0;
    for (; c + kPad <= d; c += kPad)
        if (prefetch)
            sum_line_bytes<V, true>(X + c, ldx, R, w, A + c, prefetch + c);
        else
            sum_line_bytes<V, false>(X + c, ldx, R, w, A + c, nullptr);
    if (c == d) return;
    alignas(64) uint8_t last[geodiff::kMaxTileRows * kPad];  // columns that do not fill a cache line
    for (int r = 0; r < R; ++r)
        std::fill(std::copy_n(X + r * ldx + c, d - c, last + r * kPad), last + (r + 1) * kPad, uint8_t(0));
    sum_line_bytes<V, false>(last, kPad, R, w, A + c, nullptr);
}

template <class Halves, class One>
inline geodiff::IntegerProducts half_products_and_one_query() {
    static_assert(kPad % One::bytes == 0);
    geodiff::IntegerProducts p = half_products<Halves>();
    p.one_query.bits = 8 + kLowBits;
    p.one_query.most_of_two = kMostOfTwo;
    for (int i = 0; i < int(kPad); ++i) p.one_query.column_of_slot[i] = uint8_t(One::column_of_slot(i));
    p.one_query.round = round_for_one_query;
    p.one_query.sum = sum_one_query_bytes<One>;
    return p;
}

}  // namespace
