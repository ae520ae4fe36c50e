// What rows hold past their last whole block of kPad columns, with zeros behind, and the tail that they may have in
// another place: as blocks beside each other, so that register blocks read whole blocks only and never past the last
// row.
#pragma once

#include <cstring>

#include "../table.h"

namespace {

using geodiff::kPad;
using geodiff::kTail;
using geodiff::RowTail;

struct RowEnds {
    struct Part {
        const uint8_t* at = nullptr;
        int64_t stride = 0, blocks = 0;  // bytes from a row to the next, and blocks of a row
    };
    static constexpr int parts = 2;
    Part part[parts + 1];  // the last one is empty

    RowEnds from(int r) const {
        RowEnds later = *this;
        for (Part& p : later.part) p.at += r * p.stride;
        return later;
    }
};

// Room for the ends of a tile's rows where they must be copied.
struct RowEndsRoom {
    alignas(64) uint8_t bytes[geodiff::kMaxTileRows * (kPad + kTail)];

    // V: store, and first_of(p, n), the first n bytes at p with zeros behind.
    template <class V>
    RowEnds fill(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, int64_t d) {
        const auto half = [&](int h) {
            return tail.half[h] ? RowEnds::Part{tail.half[h], kTail, kTail / kPad} : RowEnds::Part{};
        };
        const int64_t rest = d % kPad;
        if (rest == 0) return {{half(0), half(1)}};
        const int64_t stride = kPad + (tail.half[0] ? kTail : 0);
        for (int r = 0; r < R; ++r) {
            const uint8_t* end = X + r * ldx + (d - rest);
            for (int64_t i = 0; i < kPad; i += V::bytes)
                V::store(bytes + r * stride + i, V::first_of(end + i, rest - i));
            if (tail.half[0]) std::memcpy(bytes + r * stride + kPad, tail.half[0] + r * kTail, size_t(kTail));
        }
        return {{{bytes, stride, stride / kPad}, half(1)}};
    }
};

}  // namespace
