// What rows hold past their last whole block of kPad columns, with zeros behind: copied once for a tile, so that
// register blocks read whole blocks only and never past the last row.
#pragma once

#include "../table.h"
#include "../vec/first_bytes.h"

namespace {

using geodiff::kPad;

struct RowEnds {
    alignas(64) uint8_t bytes[geodiff::kMaxTileRows * kPad];

    // Returns them, kPad bytes a row, or null where d is a multiple of kPad.
    const uint8_t* copy(const uint8_t* X, int64_t ldx, int R, int64_t d) {
        const int64_t rest = d % kPad;
        if (rest == 0) return nullptr;
        for (int r = 0; r < R; ++r) {
            const uint8_t* end = X + r * ldx + (d - rest);
            for (int64_t i = 0; i < kPad; i += 8) {
                const uint64_t word = first_bytes(end + i, rest - i);
                std::memcpy(bytes + r * kPad + i, &word, sizeof word);
            }
        }
        return bytes;
    }
};

}  // namespace
