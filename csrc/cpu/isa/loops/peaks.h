// Loops over registers alone: what an instruction set does while memory costs nothing. For `geodiff bench --peaks`.
#pragma once

#include "../vec/floats.h"

namespace {

// The compiler no longer knows what is there: products of what it knows would leave the loop, equal ones become one.
inline void forget(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// ROWS x COLUMNS sums, as in a block of the first product, whose factors come from L1 once a round. Ops: zero(), and
// add(sum, x, y) for sum += x y. Returns the number of products of registers.
template <class Ops, int ROWS, int COLUMNS>
inline int64_t peak_of(int64_t rounds) {
    typedef typename Ops::Vec Vec;
    Vec x[ROWS], y[COLUMNS], sums[ROWS][COLUMNS];
    GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) x[r] = Ops::zero();
    GEODIFF_UNROLL for (int c = 0; c < COLUMNS; ++c) y[c] = Ops::zero();
    GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) GEODIFF_UNROLL for (int c = 0; c < COLUMNS; ++c) sums[r][c] =
        Ops::zero();
    for (int64_t i = 0; i < rounds; ++i) {
        forget(x);
        forget(y);
        GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) GEODIFF_UNROLL for (int c = 0; c < COLUMNS; ++c)
            Ops::add(sums[r][c], x[r], y[c]);
    }
    GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) GEODIFF_UNROLL for (int c = 0; c < COLUMNS; ++c) {
        const Vec taken = sums[r][c];  // a copy: what `forget` has seen is not kept in a register
        forget(&taken);
    }
    return rounds * ROWS * COLUMNS;
}

struct FloatOps {
    typedef VecF Vec;
    static Vec zero() { return Vec{}; }
    static void add(Vec& sum, Vec x, Vec y) { sum += x * y; }
};

template <class V>
struct IntegerOps {
    typedef typename V::Vec Vec;
    static Vec zero() { return V::zero(); }
    static void add(Vec& sum, const Vec& x, const Vec& y) { V::dot(sum, x, y); }
};

// Both return the multiply-adds of so many rounds; PRODUCTS of integers are added in a dword.
int64_t peak_f32(int64_t rounds) {
    return peak_of<FloatOps, Shape::accumulators / Shape::dot_vectors, Shape::dot_vectors>(rounds) * kF;
}
// ROWS: as many as registers hold sums for, so that one is there again before its turn.
template <class V, int PRODUCTS, int ROWS = 2>
int64_t peak_integer(int64_t rounds) {
    return peak_of<IntegerOps<V>, ROWS, 4>(rounds) * PRODUCTS * (V::bytes / 4);
}

}  // namespace
