// Products of principal coordinates, and the bounds that they make: passes/prune.h. Queries lie in lanes beside each
// other and a few coordinates of a row are broadcast to them: products are short, and sums across lanes would take
// longer than they.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "../table.h"
#include "../vec/constants.h"

namespace {

using geodiff::CoordinateQueries;
using geodiff::CoordinateRows;
using geodiff::kPad;
using geodiff::kTail;

constexpr int kBoundRows = 4;  // of a block

GEODIFF_INLINE int32_t dword_at(const void* p) {
    int32_t both;
    std::memcpy(&both, p, 4);
    return both;
}

// Bytes in registers V of loops/byte_products.h: two digits.
template <class V>
struct ByteLanes {
    static constexpr int parts = 2, most_groups = V::registers >= 30 ? 2 : 1, unit = 4, base = 256;
    typedef uint8_t Coordinate;

    // kBoundRows rows of kTail coordinates as products take them
    static GEODIFF_INLINE const uint8_t* coordinates(const uint8_t* rows, Coordinate*) { return rows; }
    static GEODIFF_INLINE typename V::Vec row(const uint8_t* four) { return V::row(V::set1(dword_at(four))); }
    static GEODIFF_INLINE typename V::Vec digits(const void* p) { return V::load(p); }
    // rows as V::row leaves them
    static GEODIFF_INLINE typename V::Vec start(const int32_t* p) { return V::unsigned_rows ? V::load(p) : V::zero(); }
};

// The same for V of loops/half_products.h: one digit.
template <class V>
struct HalfLanes {
    static constexpr int parts = 1, most_groups = 2, unit = 2, base = 65536;
    typedef int16_t Coordinate;

    static GEODIFF_INLINE const int16_t* coordinates(const uint8_t* rows, Coordinate* room) {
        for (int64_t j = 0; j < kBoundRows * kTail; j += V::columns) V::store(room + j, V::widen(rows + j));
        return room;
    }
    static GEODIFF_INLINE typename V::Vec row(const int16_t* two) { return V::broadcast2(two); }
    static GEODIFF_INLINE typename V::Vec digits(const void* p) { return V::digits(p); }
    static GEODIFF_INLINE typename V::Vec start(const int32_t* p) { return V::load(p); }
};

// Goes through the lines of rows that are to be brought, some at a time.
class Bringing {
  public:
    explicit Bringing(const geodiff::RowsToBring& all)
        : next_(all.rows), end_(all.rows + all.count), bytes_(all.bytes) {}

    GEODIFF_INLINE void some() {
        for (int i = 0; i < kTogether && next_ < end_; ++i) {
            __builtin_prefetch(*next_ + at_, 0, 2);
            at_ += kPad;
            if (at_ >= bytes_) at_ = 0, ++next_;
        }
    }

  private:
    static constexpr int kTogether = 2;  // more in a row are not all brought: csrc/cpu/README.md, "One query"
    const uint8_t* const* next_;
    const uint8_t* const* end_;
    int64_t bytes_, at_ = 0;
};

// What of products is made: so many of the digits, and of the halves of the columns.
template <int PARTS, int HALVES>
struct Extent {
    static constexpr int parts = PARTS, halves = HALVES;
};

// sums[r][q] of kBoundRows rows with G groups of queries, whose digits lie `step` bytes apart.
template <class V, class L, class E, int G>
GEODIFF_BLOCK void multiply_lanes(const uint8_t* const* rows, const char* digits, int64_t step, const int32_t* start,
                                  Bringing& bringing, int32_t (*sums)[2 * V::bytes / 4]) {
    constexpr int P = E::parts, kLanes = V::bytes / 4;
    typename V::Vec acc[kBoundRows][P][G];
    GEODIFF_UNROLL for (int r = 0; r < kBoundRows; ++r) GEODIFF_UNROLL for (int p = 0; p < P; ++p)
        GEODIFF_UNROLL for (int g = 0; g < G; ++g) acc[r][p][g] = L::start(start + (g * L::parts + p) * kLanes);
    for (int half = 0; half < E::halves && rows[half]; ++half) {
        alignas(64) typename L::Coordinate room[kBoundRows * kTail];
        const typename L::Coordinate* c = L::coordinates(rows[half], room);
        for (int64_t j = 0; j < kTail; j += L::unit, digits += L::parts * V::bytes) {
            bringing.some();
            typename V::Vec y[P][G];
            GEODIFF_UNROLL for (int p = 0; p < P; ++p) GEODIFF_UNROLL for (int g = 0; g < G; ++g) y[p][g] =
                L::digits(digits + g * step + p * V::bytes);
            GEODIFF_UNROLL for (int r = 0; r < kBoundRows; ++r) {
                const auto x = L::row(c + r * kTail + j);
                GEODIFF_UNROLL for (int p = 0; p < P; ++p) GEODIFF_UNROLL for (int g = 0; g < G; ++g)
                    V::dot(acc[r][p][g], x, y[p][g]);
            }
        }
    }
    alignas(64) int32_t parts[kBoundRows][P][G * kLanes];
    GEODIFF_UNROLL for (int r = 0; r < kBoundRows; ++r) GEODIFF_UNROLL for (int p = 0; p < P; ++p)
        GEODIFF_UNROLL for (int g = 0; g < G; ++g) V::store(parts[r][p] + g * kLanes, acc[r][p][g]);
    for (int r = 0; r < kBoundRows; ++r)
        for (int q = 0; q < G * kLanes; ++q) {
            int32_t sum = parts[r][0][q];
            for (int part = 1; part < L::parts; ++part) sum = sum * L::base + (part < P ? parts[r][part][q] : 0);
            sums[r][q] = sum;
        }
}

// f(row, sums, first query, groups) for every row and all queries, one or two groups at a time.
template <class V, class L, class E, class F>
GEODIFF_INLINE void each_product(const CoordinateRows& rows, const CoordinateQueries& queries, Bringing& bringing,
                                 F&& f) {
    constexpr int kLanes = V::bytes / 4;
    const int64_t step = rows.coordinates.columns() / L::unit * L::parts * V::bytes;
    for (int first = 0; first < rows.R; first += kBoundRows) {
        // The last rows beside each other and, where they are too few, the last one again.
        uint8_t last[2][kBoundRows * kTail];
        const uint8_t* at[2];
        for (int half = 0; half < 2; ++half) {
            const uint8_t* all = rows.coordinates.half[half];
            at[half] = all ? all + first * kTail : nullptr;
            if (!all || first + kBoundRows <= rows.R) continue;
            for (int r = 0; r < kBoundRows; ++r)
                std::memcpy(last[half] + r * kTail, all + std::min(first + r, rows.R - 1) * kTail, size_t(kTail));
            at[half] = last[half];
        }
        const auto some = [&](int g, auto groups) GEODIFF_INLINE_LAMBDA {
            alignas(64) int32_t sums[kBoundRows][2 * kLanes];
            multiply_lanes<V, L, E, groups>(at, static_cast<const char*>(queries.digits) + g * step, step,
                                            queries.start + g * L::parts * kLanes, bringing, sums);
            for (int r = 0; r < kBoundRows && first + r < rows.R; ++r) f(first + r, sums[r], g * kLanes, groups);
        };
        int g = 0;
        if constexpr (L::most_groups > 1)
            for (; g + 1 < queries.groups; g += 2) some(g, Constant<2>());
        for (; g < queries.groups; ++g) some(g, Constant<1>());
    }
}

template <class V, class L>
void nearest_by_coordinates(const CoordinateRows& rows, const CoordinateQueries& queries, float* best, int32_t* row) {
    constexpr int kLanes = V::bytes / 4;
    std::fill_n(best, queries.groups * kLanes, -std::numeric_limits<float>::infinity());
    std::fill_n(row, queries.groups * kLanes, 0);
    Bringing nothing({});
    each_product<V, L, Extent<1, 1>>(rows, queries, nothing,
                                     [&](int r, const int32_t* sums, int q0, auto groups) GEODIFF_INLINE_LAMBDA {
                                         const float half = rows.half[r];
                                         const float* scale = queries.scale + q0;
                                         float* most = best + q0;
                                         int32_t* at = row + q0;
#pragma omp simd
                                         for (int q = 0; q < groups * kLanes; ++q) {
                                             const float p = float(sums[q]) * scale[q] - half;
                                             at[q] = p > most[q] ? r : at[q];
                                             most[q] = p > most[q] ? p : most[q];
                                         }
                                     });
}

template <class V, class L>
void left_by_coordinates(const CoordinateRows& rows, const CoordinateQueries& queries, int32_t* list, int64_t ld,
                         int32_t* count, const geodiff::RowsToBring& bring) {
    constexpr int kLanes = V::bytes / 4;
    std::fill_n(count, queries.groups * kLanes, 0);
    Bringing bringing(bring);
    each_product<V, L, Extent<L::parts, 2>>(
        rows, queries, bringing, [&](int r, const int32_t* sums, int q0, auto groups) GEODIFF_INLINE_LAMBDA {
            const float outside = rows.outside[r], rounded = rows.rounded[r], half = rows.half[r];
            const float *scale = queries.scale + q0, *beside = queries.outside + q0, *along = queries.along + q0,
                        *least = queries.least + q0;
            constexpr int kQueries = groups * kLanes;
            int32_t stays[kQueries], any = 0;
#pragma omp simd reduction(| : any)
            for (int q = 0; q < kQueries; ++q) {
                const float upper = float(sums[q]) * scale[q] + (outside * beside[q] + (rounded * along[q] - half));
                stays[q] = upper >= least[q] ? 1 : 0;
                any |= stays[q];
            }
            if (!any) return;
            for (int q = 0; q < kQueries; ++q)
                if (stays[q]) list[(q0 + q) * ld + count[q0 + q]++] = r;
        });
}

template <class V, class L>
void add_bounds(geodiff::IntegerProducts& p) {
    p.layout.side_by_side = V::bytes / 4;
    p.nearest = nearest_by_coordinates<V, L>;
    p.left = left_by_coordinates<V, L>;
}

}  // namespace
