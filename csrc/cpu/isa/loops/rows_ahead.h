// The rows that a first product brings to L2 while it works on others: a row of 3 KiB ends before the processor's own
// prefetcher has got going.
#pragma once

#include <cstdint>

#include "../vec/macros.h"

namespace {

// Of `groups` groups that take the rows of a tile one after the other, `group`. Each asks for its share of the tile at
// `next`. A group alone, and the first one where there is no `next`, find rows in memory: they ask for those that they
// take next.
struct RowsAhead {
    const uint8_t* next;
    int group, groups;

    // What to bring while rows r to r + size of X are worked on, as many; null: nothing.
    GEODIFF_INLINE const uint8_t* beside(const uint8_t* X, int64_t ldx, int r, int size) const {
        if (groups == 1 || (!next && group == 0)) return X + (r + size) * ldx;
        return next && r / size % groups == group ? next + r * ldx : nullptr;
    }
};

}  // namespace
