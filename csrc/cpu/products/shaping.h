// Principal coordinates of the rows: they carry what a rounded query loses where the data vary most.
//
// A query rounded to digits is off by delta, and a logit by <delta, v_i> / sigma^2. Nearly all of that lies along the
// few directions u_j in which the data vary most, so <u_j, v_i> is kept of every row, as a byte, and
//     <delta, v_i> = sum_j <u_j, delta> <u_j, v_i> + <what is left of delta, v_i>
// gives the first part back, for as many more columns of the first product. csrc/cpu/README.md, "Shaped digits".
#pragma once

#include <cstdint>

#include "../isa/table.h"

namespace geodiff {

constexpr int64_t kDirections = kTail;  // or twice as many
constexpr int64_t kDrawn = 96;          // rows on which the error that is left is measured

// A view, as Stats is; null pointers where there are no coordinates.
struct Shaping {
    const float* directions = nullptr;  // [count(), d]  orthonormal u_j
    const uint8_t* coordinates =
        nullptr;                      // [n, kDirections]  bytes b: <u_j, v> = centre_j + step_j (b - 128) + an error
    const uint8_t* beyond = nullptr;  // [n, kDirections]  the same along kDirections more; null: there are none
    const double* centre = nullptr;   // [count()]
    const double* step = nullptr;     // [count()]
    const float* log_size = nullptr;  // [n]  log f: rows are drawn in proportion to weight times f, see passes/drawn.h
    const float* chance = nullptr;    // [n]  log f plus a Gumbel number: the largest logit + chance are drawn
    // What the bytes do not say of a row: see passes/prune.h.
    const float* unsaid = nullptr;   // [n]  the square of the length of what bytes and directions do not say
    const float* outside = nullptr;  // [n]  the length of what lies along no direction, rounded up
    const float* rounded = nullptr;  // [n]  the length of what bytes have lost along them, over the root of their steps
    const double* mean = nullptr;    // [d]  of the rows, which the directions begin at
    double skew = 0;                 // how far they are from orthonormal: |U U^T - 1|, at most
    double left = 0;                 // mean_i |v_i - mean|^2 without what lies along the directions
    double mean_square = 0;          // with it

    explicit operator bool() const { return coordinates != nullptr; }
    int64_t count() const { return beyond ? 2 * kDirections : kDirections; }
    // The bytes of the rows from `first` on.
    RowTail of_rows(int64_t first) const {
        return {{coordinates + first * kDirections, beyond ? beyond + first * kDirections : nullptr}};
    }
    // The same for the rows from `first` on.
    Shaping from(int64_t first) const {
        Shaping other = *this;
        if (*this) other.coordinates += first * kDirections;
        if (beyond) other.beyond += first * kDirections;
        if (*this) other.log_size += first;
        if (*this) other.chance += first;
        if (*this) other.outside += first;
        if (*this) other.rounded += first;
        if (*this) other.unsaid += first;
        return other;
    }
    // What `error_of_logits` (passes/drawn.h) is to find, before any pass: `query_step` as in DenseErrors.
    double expected_error(double query_step, double sigma) const;
    // The same where bytes alone say what a vector of some length adds to logits, and the weight is that of so many
    // `rows`.
    double expected_error_of_bytes(double length, double sigma, double rows) const;
};

// Where they come from: they are made when a dense pass first wants them, or when passes that screen have read as much
// for want of them as makes up for it.
class ShapingSource {
  public:
    virtual Shaping wanted() const = 0;
    virtual Shaping at_hand() const = 0;  // none where they are not made yet
    // For a pass that would otherwise read `rows` of which they tell most from the nearest ones.
    virtual Shaping sparing(int64_t rows) const = 0;

  protected:
    ~ShapingSource() = default;
};

// What makes coordinates worth their making: about as long as a dense pass of kDirections queries.
bool worth_shaping(int64_t n, int64_t d);

// Passes that screen before coordinates are made for them: by then these would have spared about what making takes.
// On two cores of an Emerald Rapids, 50,000 rows of 3,072 bytes, one query at sigma = 1: 0.7 s to make them; 5.3 ms a
// pass without and 3.2 with, at best 3.5 and 2.0. All go with the size of the data.
constexpr int64_t kPassesWorthShaping = 256;

}  // namespace geodiff
