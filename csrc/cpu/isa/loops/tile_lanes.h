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
        Registers<E> all;
        sum_in_registers<E>(block, digits, also);
        all.take();
        const Lanes first = joined<E>(start);
        for (int r = 0; r < rows; ++r) {
            const Lanes sum = all.sum(r) + first;
            std::memcpy(sums[r], &sum, sizeof sum);
        }
    }

    // S of as many groups as there are, block by block: while registers sum one, the one before is turned over.
    template <class E>
    static void dot(const ShortRows& rows_of_all, const LaneQueries& queries, int count, double* S, int64_t lds) {
        const int64_t step = lane_step<V, TileLanes>(rows_of_all);
        RowBlocks<rows> blocks(rows_of_all);
        Registers<E> all;
        int row = -1, group = 0;  // whose sums `all` has
        const auto spread = [&] {
            if (row < 0) return;
            const Lanes first = joined<E>(queries.start + group * ByteLanes<V>::parts * lanes);
            for (int half = row; half < std::min(row + rows, rows_of_all.R); half += T::rows) {
                Lanes sums[T::rows];
                for (int r = 0; r < T::rows; ++r) sums[r] = all.sum(half - row + r) + first;
                turn(sums, std::min(rows_of_all.R - half, T::rows), std::min(count - group * lanes, lanes),
                     S + group * lanes * lds + half, lds);
            }
        };
        open();
        for (int r = 0; r < rows_of_all.R; r += rows) {
            const RowBlock block = blocks.at(r);
            for (int g = 0; g < queries.groups; ++g) {
                sum_in_registers<E>(block, static_cast<const char*>(queries.digits) + g * step, NothingElse());
                spread();
                all.take();
                row = r;
                group = g;
            }
        }
        spread();
        close();
    }

  private:
    typedef uint32_t Lanes __attribute__((vector_size(4 * lanes)));
    static GEODIFF_INLINE Lanes at(const int32_t* p) {
        Lanes v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    // Of the digits of a number together; wraps on the way, but not in the end.
    template <class E>
    static GEODIFF_INLINE Lanes joined(const int32_t* p) {
        Lanes sum = at(p) * 256;
        if constexpr (E::parts > 1) sum += at(p + lanes);
        return sum;
    }

    // Sums of a block as they leave the registers.
    template <class E>
    struct Registers {
        alignas(64) int32_t at[rows][2 * lanes];
        GEODIFF_INLINE void take() {
            each_pair<2, E::parts>([&](auto i, auto p) GEODIFF_INLINE_LAMBDA {
                T::template store<i, p>(&at[i * T::rows][p * lanes], sizeof at[0]);
            });
        }
        GEODIFF_INLINE Lanes sum(int r) const { return joined<E>(at[r]); }
    };

    template <class E, class Also>
    static GEODIFF_INLINE void sum_in_registers(const RowBlock& block, const char* digits, Also&& also) {
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
    }

    // S[q][r] of 16 rows' sums, of which `there` count, and so many queries.
    static GEODIFF_INLINE void turn(const Lanes (&sums)[T::rows], int there, int queries, double* S, int64_t lds) {
        alignas(64) int32_t turned[T::rows][T::rows];
        T::turn(reinterpret_cast<const int32_t*>(sums), sizeof sums[0], turned[0]);
        for (int q = 0; q < queries; ++q, S += lds) {
            if (there == T::rows)
                for (int r = 0; r < T::rows; ++r) S[r] = double(turned[q][r]);
            else
                for (int r = 0; r < there; ++r) S[r] = double(turned[q][r]);
        }
    }
};

template <class T, class V>
void dot_tile_lanes(const ShortRows& rows, const LaneQueries& queries, int count, double* S, int64_t lds) {
    if (queries.parts == 1)
        TileLanes<T, V>::template dot<Extent<1, 2>>(rows, queries, count, S, lds);
    else
        TileLanes<T, V>::template dot<Extent<2, 2>>(rows, queries, count, S, lds);
}

// Products of few queries as V has them, but those of lanes.
template <class T, class V>
inline geodiff::IntegerProducts byte_products_in_tiles() {
    geodiff::IntegerProducts p = byte_products<V>();
    p.layout.lanes_from = 2;
    p.layout.dot_asks_from = kTilesAskFrom;
    p.layout.sum_asks_from = 2;
    add_lanes<V, TileLanes<T, V>>(p);
    p.dot_lanes = dot_tile_lanes<T, V>;
    return p;
}

}  // namespace
