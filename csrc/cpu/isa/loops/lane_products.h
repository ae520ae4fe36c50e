// Products of short rows, exact: queries lie in lanes beside each other and a few columns of a row are broadcast to
// them, where sums across lanes would take longer than the products.
#pragma once

#include <algorithm>
#include <cstring>

#include "../table.h"
#include "../vec/constants.h"
#include "transpose.h"

namespace {

using geodiff::kPad;
using geodiff::kTail;
using geodiff::LaneQueries;
using geodiff::ShortRows;

GEODIFF_INLINE int32_t dword_at(const void* p) {
    int32_t both;
    std::memcpy(&both, p, 4);
    return both;
}

// As many rows as a block takes, of which up to kTail bytes of each half can be read.
struct RowBlock {
    const uint8_t* half[2];
    int64_t stride, width;
};

// How queries in lanes are multiplied, below: so many rows in a block; from `open` to `close`.
struct InRegisters {
    static constexpr int rows = 4;
    static constexpr bool in_tiles = false;
    static void open() {}
    static void close() {}
};

// Bytes in registers V of loops/byte_products.h: two digits.
template <class V>
struct ByteLanes : InRegisters {
    static constexpr int parts = 2, most_groups = V::registers >= 30 ? 2 : 1, unit = 4, base = 256;
    typedef uint8_t Column;

    // The columns of a block as products take them, and how far apart its rows then lie.
    static GEODIFF_INLINE const uint8_t* columns(const uint8_t* rows, int64_t, int64_t, Column*) { return rows; }
    static GEODIFF_INLINE int64_t stride(int64_t of_rows) { return of_rows; }
    static GEODIFF_INLINE typename V::Vec row(const uint8_t* four) { return V::row(V::set1(dword_at(four))); }
    static GEODIFF_INLINE typename V::Vec digits(const void* p) { return V::load(p); }
    // rows as V::row leaves them
    static GEODIFF_INLINE typename V::Vec start(const int32_t* p) { return V::unsigned_rows ? V::load(p) : V::zero(); }
};

// The same for V of loops/half_products.h: one digit.
template <class V>
struct HalfLanes : InRegisters {
    static constexpr int parts = 1, most_groups = 2, unit = 2, base = 65536;
    typedef int16_t Column;

    static GEODIFF_INLINE const int16_t* columns(const uint8_t* from, int64_t stride, int64_t width, Column* room) {
        GEODIFF_UNROLL for (int r = 0; r < rows; ++r) for (int64_t j = 0; j < width; j += V::columns)
            V::store(room + r * kTail + j, V::widen(from + r * stride + j));
        return room;
    }
    static GEODIFF_INLINE int64_t stride(int64_t) { return kTail; }
    static GEODIFF_INLINE typename V::Vec row(const int16_t* two) { return V::broadcast2(two); }
    static GEODIFF_INLINE typename V::Vec digits(const void* p) { return V::digits(p); }
    static GEODIFF_INLINE typename V::Vec start(const int32_t* p) { return V::load(p); }
};

// Cuts rows into blocks of ROWS.
template <int ROWS>
class RowBlocks {
  public:
    explicit RowBlocks(const ShortRows& rows) : rows_(rows) {}

    // The block at row `first`: the last ones are copied, and where rows are too few the last one is there again.
    RowBlock at(int first) {
        RowBlock block{{}, rows_.stride, rows_.width};
        const bool copied = (rows_.R - first - ROWS + 1) * rows_.stride < kTail;
        if (copied) block.stride = kTail;
        for (int half = 0; half < 2 && rows_.half[half]; ++half) {
            const uint8_t* from = rows_.half[half];
            block.half[half] = copied ? last_[half] : from + first * rows_.stride;
            if (!copied) continue;
            for (int r = 0; r < ROWS; ++r)
                std::memcpy(last_[half] + r * kTail, from + std::min(first + r, rows_.R - 1) * rows_.stride,
                            size_t(std::min(rows_.width, rows_.stride)));
        }
        return block;
    }

  private:
    const ShortRows& rows_;
    alignas(64) uint8_t last_[2][ROWS * kTail] = {};
};

// What of products is made: so many of the digits, and of the halves of the columns.
template <int PARTS, int HALVES>
struct Extent {
    static constexpr int parts = PARTS, halves = HALVES;
};

struct NothingElse {
    void operator()() const {}
};

// sums[r][q] of the rows of a block with G groups of queries, whose digits lie `step` bytes apart. `also()` is done for
// every few columns.
template <class V, class L, class E, int G, class Also>
GEODIFF_BLOCK void multiply_lanes(const RowBlock& rows, const char* digits, int64_t step, const int32_t* start,
                                  Also&& also, int32_t (*sums)[2 * V::bytes / 4]) {
    constexpr int P = E::parts, kLanes = V::bytes / 4, kRows = L::rows;
    typename V::Vec acc[kRows][P][G];
    GEODIFF_UNROLL for (int r = 0; r < kRows; ++r) GEODIFF_UNROLL for (int p = 0; p < P; ++p)
        GEODIFF_UNROLL for (int g = 0; g < G; ++g) acc[r][p][g] = L::start(start + (g * L::parts + p) * kLanes);
    const int64_t stride = L::stride(rows.stride);
    for (int half = 0; half < E::halves && rows.half[half]; ++half) {
        alignas(64) typename L::Column room[kRows * kTail];
        const typename L::Column* c = L::columns(rows.half[half], rows.stride, rows.width, room);
        for (int64_t j = 0; j < rows.width; j += L::unit, digits += L::parts * V::bytes) {
            also();
            typename V::Vec y[P][G];
            GEODIFF_UNROLL for (int p = 0; p < P; ++p) GEODIFF_UNROLL for (int g = 0; g < G; ++g) y[p][g] =
                L::digits(digits + g * step + p * V::bytes);
            GEODIFF_UNROLL for (int r = 0; r < kRows; ++r) {
                const auto x = L::row(c + r * stride + j);
                GEODIFF_UNROLL for (int p = 0; p < P; ++p) GEODIFF_UNROLL for (int g = 0; g < G; ++g)
                    V::dot(acc[r][p][g], x, y[p][g]);
            }
        }
    }
    alignas(64) int32_t parts[kRows][P][G * kLanes];
    GEODIFF_UNROLL for (int r = 0; r < kRows; ++r) GEODIFF_UNROLL for (int p = 0; p < P; ++p)
        GEODIFF_UNROLL for (int g = 0; g < G; ++g) V::store(parts[r][p] + g * kLanes, acc[r][p][g]);
    for (int r = 0; r < kRows; ++r)
        for (int q = 0; q < G * kLanes; ++q) {
            int32_t sum = parts[r][0][q];
            for (int part = 1; part < L::parts; ++part) sum = sum * L::base + (part < P ? parts[r][part][q] : 0);
            sums[r][q] = sum;
        }
}

template <class V, class L, class E, int G, class Also>
GEODIFF_INLINE void products_of_block(const RowBlock& rows, const char* digits, int64_t step, const int32_t* start,
                                      Also&& also, int32_t (*sums)[2 * V::bytes / 4]) {
    if constexpr (L::in_tiles) {
        static_assert(G == 1);
        L::template multiply<E>(rows, digits, start, also, sums);
    } else {
        multiply_lanes<V, L, E, G>(rows, digits, step, start, also, sums);
    }
}

// Bytes from the digits of a group of queries to those of the next.
template <class V, class L>
GEODIFF_INLINE int64_t lane_step(const ShortRows& rows) {
    return rows.width * (rows.half[1] ? 2 : 1) / L::unit * L::parts * V::bytes;
}

// f(first group, so many), one or two groups at a time
template <class L, class F>
GEODIFF_INLINE void each_groups(int groups, F&& f) {
    int g = 0;
    if constexpr (L::most_groups > 1)
        for (; g + 1 < groups; g += 2) f(g, Constant<2>());
    for (; g < groups; ++g) f(g, Constant<1>());
}

constexpr int kLaneSums = 64;  // rows, whose sums stay in L1

// S for rows [from, from + some) and G groups of queries from the g-th on.
template <class V, class L, class E, int G>
GEODIFF_BLOCK void dot_groups(RowBlocks<L::rows>& blocks, int from, int some, const LaneQueries& queries, int64_t step,
                              int g, int count, double* S, int64_t lds) {
    constexpr int kLanes = V::bytes / 4;
    alignas(64) int32_t sums[kLaneSums + kD][2 * kLanes];
    for (int r = 0; r < some; r += L::rows)
        products_of_block<V, L, E, G>(blocks.at(from + r), static_cast<const char*>(queries.digits) + g * step, step,
                                      queries.start + g * L::parts * kLanes, NothingElse(), sums + r);
    each_element(
        some, std::min(count - g * kLanes, G * kLanes),
        [&](int r, int q) GEODIFF_INLINE_LAMBDA { return load<HalfI>(sums[r] + q); },
        [&](int q, int r, HalfI v, int there)
            GEODIFF_INLINE_LAMBDA { store_first(S + (g * kLanes + q) * lds + from + r, as_doubles(v), there); });
}

template <class V, class L, class E>
void dot_in_lanes(const ShortRows& rows, const LaneQueries& queries, int count, double* S, int64_t lds) {
    const int64_t step = lane_step<V, L>(rows);
    RowBlocks<L::rows> blocks(rows);
    L::open();
    for (int from = 0; from < rows.R; from += kLaneSums) {
        const int some = std::min(rows.R - from, kLaneSums);
        const auto groups = [&](int g, auto size) GEODIFF_INLINE_LAMBDA {
            dot_groups<V, L, E, decltype(size)::value>(blocks, from, some, queries, step, g, count, S, lds);
        };
        each_groups<L>(queries.groups, groups);
    }
    L::close();
}

template <class V, class L>
void dot_lanes(const ShortRows& rows, const LaneQueries& queries, int count, double* S, int64_t lds) {
    if constexpr (L::parts > 1) {
        if (queries.parts == 1) return dot_in_lanes<V, L, Extent<1, 2>>(rows, queries, count, S, lds);
    }
    dot_in_lanes<V, L, Extent<L::parts, 2>>(rows, queries, count, S, lds);
}

}  // namespace
