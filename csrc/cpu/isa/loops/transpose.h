// Squares of numbers turned over: what lies row by row in sums comes to lie query by query.
#pragma once

#include <utility>

#include "../vec/constants.h"

namespace {

// kD vectors of so many lanes, of which vector i has element j of vector j as its element i: pairs of vectors exchange
// halves of ever larger blocks.
template <int S, class Vec, int... I>
GEODIFF_INLINE void exchange(Vec* a, std::integer_sequence<int, I...>) {
    GEODIFF_UNROLL for (int i = 0; i < kD; ++i) {
        if (i & S) continue;
        const Vec x = a[i], y = a[i + S];
        a[i] = __builtin_shufflevector(x, y, (I & S ? kD + I - S : I)...);
        a[i + S] = __builtin_shufflevector(x, y, (I & S ? kD + I : I + S)...);
    }
    if constexpr (2 * S < kD) exchange<2 * S>(a, std::integer_sequence<int, I...>{});
}
template <class Vec>
GEODIFF_INLINE void transpose(Vec* a) {
    exchange<1>(a, std::make_integer_sequence<int, kD>{});
}

// f(element, row, vector, how many of its rows there are), for `count` elements of every row: kD rows of one element,
// from row `row` on. row(r, q) loads elements q to q + kD of row r, which must be there up to a multiple of kD rows.
template <class Row, class F>
GEODIFF_INLINE void each_element(int rows, int count, Row&& row, F&& f) {
    for (int q = 0; q < count; q += kD) {
        const int some = count - q < kD ? count - q : kD;
        for (int r = 0; r < rows; r += kD) {
            decltype(row(0, 0)) block[kD];
            GEODIFF_UNROLL for (int i = 0; i < kD; ++i) block[i] = row(r + i, q);
            transpose(block);
            const int there = rows - r < kD ? rows - r : kD;
            GEODIFF_UNROLL for (int i = 0; i < kD; ++i) {
                if (i < some) f(q + i, r, block[i], there);
            }
        }
    }
}

}  // namespace
