// The bounds that products of principal coordinates make: passes/prune.h.
#pragma once

#include <limits>

#include "lane_products.h"

namespace {

using geodiff::CoordinateQueries;
using geodiff::CoordinateRows;

// Goes through the lines of rows that are to be brought, some at a time.
class Bringing {
  public:
    explicit Bringing(const geodiff::RowsToBring& all)
        : next_(all.rows), end_(all.rows + all.count), bytes_(all.bytes) {}

    GEODIFF_INLINE void operator()() {
        for (int i = 0; i < kTogether && next_ < end_; ++i) {
            __builtin_prefetch(*next_ + at_, 0, 2);
            at_ += kPad;
            if (at_ >= bytes_) at_ = 0, ++next_;
        }
    }

  private:
    static constexpr int kTogether = 2;  // more in a row are not all brought: csrc/cpu/SPEED.md, "One query"
    const uint8_t* const* next_;
    const uint8_t* const* end_;
    int64_t bytes_, at_ = 0;
};

// f(row, sums, first query, groups) for every row and all queries, one or two groups at a time.
template <class V, class L, class E, class Also, class F>
GEODIFF_INLINE void each_product(const CoordinateRows& rows, const LaneQueries& queries, Also& also, F&& f) {
    constexpr int kLanes = V::bytes / 4;
    const ShortRows all = rows.coordinates.rows(rows.R);
    const int64_t step = lane_step<V, L>(all);
    RowBlocks<L::rows> blocks(all);
    L::open();
    for (int first = 0; first < rows.R; first += L::rows) {
        const RowBlock block = blocks.at(first);
        const auto some = [&](int g, auto groups) GEODIFF_INLINE_LAMBDA {
            alignas(64) int32_t sums[L::rows][2 * kLanes];
            products_of_block<V, L, E, groups>(block, static_cast<const char*>(queries.digits) + g * step, step,
                                               queries.start + g * L::parts * kLanes, also, sums);
            for (int r = 0; r < L::rows && first + r < rows.R; ++r) f(first + r, sums[r], g * kLanes, groups);
        };
        each_groups<L>(queries.groups, some);
    }
    L::close();
}

template <class V, class L>
void nearest_by_coordinates(const CoordinateRows& rows, const CoordinateQueries& queries, float* best, int32_t* row) {
    constexpr int kLanes = V::bytes / 4;
    std::fill_n(best, queries.in_lanes.groups * kLanes, -std::numeric_limits<float>::infinity());
    std::fill_n(row, queries.in_lanes.groups * kLanes, 0);
    NothingElse nothing;
    each_product<V, L, Extent<1, 1>>(rows, queries.in_lanes, nothing,
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
    std::fill_n(count, queries.in_lanes.groups * kLanes, 0);
    Bringing bringing(bring);
    each_product<V, L, Extent<L::parts, 2>>(
        rows, queries.in_lanes, bringing, [&](int r, const int32_t* sums, int q0, auto groups) GEODIFF_INLINE_LAMBDA {
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
void add_lanes(geodiff::IntegerProducts& p) {
    p.layout.side_by_side = V::bytes / 4;
    p.dot_lanes = dot_lanes<V, L>;
    p.nearest = nearest_by_coordinates<V, L>;
    p.left = left_by_coordinates<V, L>;
}

}  // namespace
