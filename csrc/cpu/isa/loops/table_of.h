// The table of a target, whose vector headers come first.
#pragma once

#include "dot.h"
#include "exact.h"
#include "few_queries.h"
#include "local.h"
#include "peaks.h"
#include "softmax.h"
#include "subset.h"
#include "sum.h"
#include "vectors.h"

namespace {

// INTEGERS, MANY: make its integer products, those for many queries where these are others; none has any of its own.
// FLOATS: products of floats for many queries.
template <geodiff::IntegerProducts (*INTEGERS)() = nullptr, geodiff::IntegerProducts (*MANY)() = nullptr,
          geodiff::FloatTiles (*FLOATS)() = nullptr>
const geodiff::Table& table_of(const char* name) {
    static const geodiff::Table table = [name] {
        geodiff::Table t;
        t.name = name;
        t.floats.lanes = kF;
        t.floats.sum_group = Shape::sum_queries;
        t.floats.few = kFew;
        t.floats.few_lanes = kF;
        t.dot_f32 = dot_f32;
        t.dot_f64 = dot_f64;
        t.sum_f32 = sum_f32;
        t.dot_few = dot_few;
        t.sum_few = sum_few;
        t.to_floats = to_floats;
        t.join_digits = join_digits;
        t.to_logits = to_logits;
        t.reach = reach;
        t.below = below;
        t.softmax = softmax;
        t.softmax_f32 = softmax_f32;
        t.distance = distance;
        t.inner = inner;
        t.axpy = axpy;
        t.row_stats = row_stats;
        t.peak = peak_f32;
        t.vectors = vector_loops();
        t.local_f32 = local_loops<float>();
        t.local_f64 = local_loops<double>();
        t.subset = subset_loops();
        if constexpr (INTEGERS != nullptr) {
            static const geodiff::IntegerProducts integers = INTEGERS();
            t.integers = &integers;
        }
        if constexpr (MANY != nullptr) {
            static const geodiff::IntegerProducts many = MANY();
            t.many = &many;
        }
        if constexpr (FLOATS != nullptr) {
            static const geodiff::FloatTiles tiles = FLOATS();
            t.float_tiles = &tiles;
        }
        return t;
    }();
    return table;
}

}  // namespace
