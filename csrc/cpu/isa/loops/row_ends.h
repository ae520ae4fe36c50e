// What rows hold past their last whole block of kPad columns, with zeros behind: copied once for a tile, so that
// register blocks read whole blocks only and never past the last row.
#pragma once

#include "../table.h"

namespace {

using geodiff::kPad;

struct RowEnds {
    alignas(64) uint8_t bytes[geodiff::kMaxTileRows * kPad];

    // Returns them, kPad bytes a row, or null where d is a multiple of kPad. V: store, and first_of(p, n), the first n
    // bytes at p with zeros behind.
    template <class V>
    const uint8_t* copy(const uint8_t* X, int64_t ldx, int R, int64_t d) {
        const int64_t rest = d % kPad;
        if (rest == 0) return nullptr;
        for (int r = 0; r < R; ++r) {
            const uint8_t* end = X + r * ldx + (d - rest);
            for (int64_t i = 0; i < kPad; i += V::bytes) V::store(bytes + r * kPad + i, V::first_of(end + i, rest - i));
        }
        return bytes;
    }
};

}  // namespace
