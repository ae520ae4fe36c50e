// The rows that a first product brings to L2 while it works on others: a row of 3 KiB ends before the processor's own
// prefetcher has got going.
#pragma once

#include <cstdint>

#include "../vec/constants.h"

namespace {

// Of `groups` groups that take the rows of a tile one after the other, `group`. Each asks for its share of the tile at
// `next`. Where there is none, the first one finds rows in memory: it asks for those that it takes next.
struct RowsAhead {
    const uint8_t* next;
    int group, groups;

    // f(first row, how many, whether to bring others meanwhile, these): the R rows of a tile at X, SIZE at a time, then
    // single ones. Both in the middle are constants of the compiler.
    template <int SIZE, class F>
    GEODIFF_INLINE void each_block(const uint8_t* X, int64_t ldx, int R, F&& f) const {
        int r = 0;
        for (; r + SIZE <= R; r += SIZE) {
            if (const uint8_t* ahead = beside(X, ldx, r, SIZE))
                f(r, Constant<SIZE>(), std::true_type(), ahead);
            else
                f(r, Constant<SIZE>(), std::false_type(), X);
        }
        for (; r < R; ++r) f(r, Constant<1>(), std::false_type(), X);
    }

    // What to bring while rows r to r + size of X are worked on, as many; null: nothing.
    GEODIFF_INLINE const uint8_t* beside(const uint8_t* X, int64_t ldx, int r, int size) const {
        if (!next) return group == 0 ? X + (r + size) * ldx : nullptr;
        return r / size % groups == group ? next + r * ldx : nullptr;
    }
};

}  // namespace
