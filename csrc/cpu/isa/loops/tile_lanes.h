// Products of short rows with queries in lanes, by products of registers that hold 16 rows of 64 bytes: digits of 16
// queries lie as these want them, four columns of each beside each other. T: the operations of vec/tiles_amx.h.
#pragma once

#include <algorithm>
#include <cstring>

#include "byte_products.h"
#include "lane_products.h"
#include "tile_products.h"

namespace {

// V: of ByteLanes, with as many lanes as T has rows.
template <class T, class V>
struct TileLanes : ByteLanes<V> {
    static constexpr int rows = 2 * T::rows, most_groups = 1, lanes = T::rows;
    static constexpr bool in_tiles = true;
    static_assert(V::bytes == 4 * lanes && V::unsigned_rows && ByteLanes<V>::parts == 2);

    static void open() { T::open({T::rows, T::rows}, lanes); }
    static void close() { T::close(); }

    template <class E, class Also>
    static GEODIFF_BLOCK void multiply(const RowBlock& block, const char* digits, const int32_t* start, Also&& also,
                                       int32_t (*sums)[2 * lanes]) {
        constexpr int P = E::parts, kLine = ByteLanes<V>::parts * T::bytes;
        each_pair<2, P>([&](auto i, auto p) GEODIFF_INLINE_LAMBDA { T::template clear<i, p>(); });
        for (int half = 0; half < E::halves && block.half[half]; ++half)
            for (int64_t k = 0; k < block.width; k += T::bytes) {
                const uint8_t* x = block.half[half] + k;
                T::template load_x<0>(x, block.stride);
                T::template load_x<1>(x + T::rows * block.stride, block.stride);
                const int64_t there = std::min<int64_t>((block.width - k) / kDword, T::rows);
                alignas(64) char last[T::rows * kLine];
                const char* y = digits;
                if (there < T::rows) {  // digits of columns that are not there are 0, whatever rows are
                    std::memcpy(last, digits, size_t(there * kLine));
                    std::memset(last + there * kLine, 0, size_t((T::rows - there) * kLine));
                    y = last;
                }
                each_constant<P>([&](auto p) GEODIFF_INLINE_LAMBDA { T::template load_y<p>(y + p * T::bytes, kLine); });
                each_pair<2, P>([&](auto i, auto p) GEODIFF_INLINE_LAMBDA { T::template dot<false, i, p>(); });
                digits += there * kLine;
                for (int i = 0; i < 2 * rows; ++i) also();
            }
        alignas(64) int32_t all[rows][2 * lanes];
        each_pair<2, P>([&](auto i, auto p) GEODIFF_INLINE_LAMBDA {
            T::template store<i, p>(&all[i * T::rows][p * lanes], sizeof all[0]);
        });
        const Lanes first = at(start), second = at(start + lanes);
        for (int r = 0; r < rows; ++r) {  // wraps on the way, but not in the end
            Lanes sum = (at(all[r]) + first) * 256;
            if constexpr (P > 1) sum += at(all[r] + lanes) + second;
            std::memcpy(sums[r], &sum, sizeof sum);
        }
    }

  private:
    typedef uint32_t Lanes __attribute__((vector_size(4 * lanes)));
    static GEODIFF_INLINE Lanes at(const int32_t* p) {
        Lanes v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
};

// Products of few queries as V has them, but those of lanes.
template <class T, class V>
inline geodiff::IntegerProducts byte_products_in_tiles() {
    geodiff::IntegerProducts p = byte_products<V>();
    p.layout.lanes_from = 2;
    p.layout.dot_asks_from = kTilesAskFrom;
    p.layout.sum_asks_from = 2;
    add_lanes<V, TileLanes<T, V>>(p);
    return p;
}

}  // namespace
