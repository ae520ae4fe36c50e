// What every pass is asked: queries against rows, with what is known about the rows and the kernels to use.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "../common/contract.h"
#include "../common/stored.h"
#include "isa/table.h"
#include "products/known.h"
#include "products/shaping.h"

namespace geodiff {

// The log weight of a row that a query does not see: its logit is this before any maximum is taken.
constexpr double kUnseen = -std::numeric_limits<double>::infinity();

// The data set as stored: n rows of d values, contiguous.
struct Rows {
    const void* ptr;
    DType dtype;
    int64_t n, d;
    bool mapped = false;  // from a file, which passes read ahead

    const void* row(int64_t i) const { return static_cast<const char*>(ptr) + i * d * item_size(dtype); }
    int64_t bytes() const { return n * d * item_size(dtype); }
    Rows part(int64_t begin, int64_t end) const { return {row(begin), dtype, end - begin, d, mapped}; }
};

// What one pass over the rows tells about them, in centred units.
struct Stats {
    const double* half_norm;  // [n]  |v_i|^2 / 2
    const float* away;        // [n]  |v_i - mean|, rounded up
    const double* half_away;  // [n]  |v_i - mean|^2 / 2
    const double* mean;       // [d]
    double mean_square;       // mean_i |v_i - mean|^2
    double max_norm;          // max_i |v_i|
    double mean_norm;         // |mean|
    double alike;             // how many rows are one and the same, at most
    Scale scale;              // max_i |x_i| in model space times `unit`, and max_i |v_i - mean|
    double unit, shift;       // model = (v + shift) / unit

    // sum_g W_g^2 at most, W_g the weight of all rows that are the same, for sum_i w_i^2: what rows err by that have
    // one error, since they are one and the same, does not average out.
    double with_copies(double squares) const { return std::min(1.0, alike * squares); }

    // The same for the rows from `first` on.
    Stats from(int64_t first) const {
        Stats other = *this;
        other.half_norm += first;
        other.away += first;
        other.half_away += first;
        return other;
    }
};

constexpr int64_t kShortRow = 128;  // bytes

struct Request {
    const Table& kernels;
    const Rows& rows;
    const Stats& stats;
    int64_t batch = 0;
    const double* x = nullptr;                   // [batch, d]  centred units
    const double* sigma = nullptr;               // [batch]     centred units
    const double* log_prior = nullptr;           // [n] or [batch, n] or null: log weight of every row
    int64_t log_prior_stride = 0;                // 0: the same for every query; else from one query's to the next
    const int64_t* exclude = nullptr;            // [batch] or null: the row that a query must not see, -1 for none
    Shaping shaping{};                           // principal coordinates of the rows, where they are at hand
    const ShapingSource* coordinates = nullptr;  // where to ask for them, or null
    Known* known = nullptr;      // inner products with the rows that are at hand, which passes update, or null
    double tol = 0;              // contract 1
    double log_tol = kLogError;  // absolute error allowed in the log sum
    int64_t topk = 0;
    int threads = 1;
    int64_t* rows_read = nullptr;  // counts rows that passes read, or null

    void read(int64_t count) const {
        if (rows_read) *rows_read += count;
    }
    const double* query(int64_t q) const { return x + q * rows.d; }
    double length(int64_t q) const {  // |x|
        return std::sqrt(kernels.vectors.dot(query(q), query(q), rows.d));
    }
    const double* prior_of(int64_t q) const { return log_prior ? log_prior + q * log_prior_stride : nullptr; }
    // -1 where there is none: no row has that number.
    int64_t excluded_of(int64_t q) const { return exclude ? exclude[q] : -1; }
    double prior_at(int64_t q, int64_t row) const {
        if (row == excluded_of(q)) return kUnseen;
        return log_prior ? log_prior[q * log_prior_stride + row] : 0;
    }
    double cut() const { return stats.scale.cut(rows.n, tol, log_tol); }
    // What contract 1 will allow r, guessed: r is hardly shorter than the mean of the rows, nor than where the query
    // was when it was asked last.
    double expected_allowance(int64_t q) const {
        const double before = known ? known->entry(q).length : 0;
        return stats.scale.allowed(std::max(stats.mean_norm, before), tol);
    }

    // The exact integer products, where the instruction set has them and the rows are bytes; else null.
    const IntegerProducts* integers() const { return rows.dtype == DType::u8 ? kernels.integers : nullptr; }
    const IntegerProducts* integers_for(int64_t queries) const {
        return rows.dtype == DType::u8 ? kernels.integers_for(queries) : nullptr;
    }
    // The same for weights: of short rows these take longer to become digits than to be multiplied in float32.
    const IntegerProducts* weight_integers() const { return rows.d > kShortRow ? integers() : nullptr; }
    bool short_bytes() const { return rows.dtype == DType::u8 && rows.d <= kShortRow; }
    // The products of floats by tiles for so many queries; null: those of the table.
    const FloatTiles* float_tiles(int64_t queries) const {
        const FloatTiles* tiles = kernels.float_tiles;
        const bool fits = stats.max_norm >= FloatTiles::least && stats.max_norm <= FloatTiles::largest;
        return tiles && fits && queries >= tiles->from(rows.dtype) ? tiles : nullptr;
    }
    // sum_k (x_k - v_k)^2 for query q and a row
    double distance(int64_t q, int64_t row) const {
        return kernels.distance(query(q), rows.row(row), rows.dtype, rows.d);
    }
    // The exact logit -|x - v|^2 / (2 sigma^2) + log prior of a row, in difference form.
    double logit(int64_t q, int64_t row) const {
        return -0.5 * distance(q, row) / (sigma[q] * sigma[q]) + prior_at(q, row);
    }
    // to[0..d) += w v
    void add_row(double w, int64_t row, double* to) const { kernels.axpy(w, rows.row(row), rows.dtype, rows.d, to); }

    Request shaped(const Shaping& with) const {
        Request other = *this;
        other.shaping = with;
        return other;
    }
    Request with_threads(int count) const {
        Request other = *this;
        other.threads = count;
        return other;
    }
};

// All pointers [batch] unless noted; `log_sum` refers to the logits -|x - x_i|^2 / (2 sigma^2) + log prior_i.
struct Answer {
    double* mean;     // [batch, d]  centred units
    double* log_sum;  // log sum_i exp(logit_i)
    double* entropy;  // nats
    double* ess;      // 1 / sum w^2
    double* trace;    // sum w |v - r|^2, centred units; null: not wanted
    int64_t* index;   // [batch, topk]
    double* weight;   // [batch, topk]
    int8_t* path;     // which path answered: see Path
    // Bounds on |mean - exact| (centred units) and |log_sum - exact|, rounding in float64 left aside.
    double* mean_error;
    double* log_error;
};

}  // namespace geodiff
