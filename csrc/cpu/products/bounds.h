// The error bounds that decide how many digits a product needs and when an answer is accepted. Derivations:
// csrc/cpu/README.md, "The dense pass" and what follows it. All in centred units.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace geodiff {

constexpr double kUnitRoundoff = 0x1p-24;  // float32
constexpr double kDeviations = 5;  // random errors are bounded at this many standard deviations: 6e-7 in one dimension

constexpr double kUnderflow = 745;  // exp(-745) is 0: as a cut it drops nothing, and answers are smooth in the query
constexpr double kFloat64 = 1e-8;   // a smaller tol asks for float64 arithmetic throughout

// Standard deviation of a logit, <x, v> being summed in float32 in so many rounded additions of |x| in one lane: each
// is off by u |x| |v| at most, by its root of a third on average.
inline double float_noise(int64_t additions, double x, double v, double sigma, double unit = kUnitRoundoff) {
    return std::sqrt(double(additions) / 3) * unit * x * v / (sigma * sigma);
}

// What the dense pass knows about a query once it is done.
struct DenseErrors {
    double measured;       // bound on what all errors of the logits do to r, where it was measured; else 0
    double query_step;     // standard deviation of one coordinate's rounding, of the query
    double logit_noise;    // standard deviation of independent errors of the logits
    double weight_noise;   // sum over rows of the variance of the weights' rounding, relative to (sum p)^2
    double weight;         // sum of w over the rows whose logits err: 1, or less where the heaviest were settled
    double trace;          // sum of w |v - r|^2 over them
    double concentration;  // sum of w^2 over them is at most this times their weight, copies of a row taken together
    double length;         // |r|
    double spread;         // root mean square distance of *all* rows from r
    double sums;           // what float32 loses of the sums, about: see sum_error
};

// How sums of tiles are made, in float32.
struct Additions {
    double together;  // tiles added up one by one
    double folds;     // of such sums, one after the other
    double tiles;     // all
    double rows;      // of a tile, if these are added up in float32, too; else 0
    double repeated;  // sum_g W_g^2, W_g the weight of a row with all its copies; 0 if there are none
    double copies;    // of a row, at most, itself included
};

// The length of what float32 loses as it adds weighted rows up to sums of some length on the way, tile by tile. Each
// addition rounds by up to u of what is there so far: at random, as a rule; but adding the same again and again, always
// to one side, as many times as there are copies of a row to be added. Factors as found (0.24 by arithmetic for numbers
// at random; 0.44 and 0.58 for 3 and for 2 rows with 20,000 and 10,000 copies).
inline double sum_error(const Additions& a, double length) {
    const double random = 0.25 * std::sqrt(a.together / a.folds + a.folds + a.rows / a.tiles);
    const double same = std::min(a.together + a.folds + a.rows, a.copies);
    return kUnitRoundoff * length * (random + 0.75 * std::sqrt(a.repeated) * same);
}

// What the rounding of weights alone does to r, at most.
inline double weights_error(const DenseErrors& e) { return kDeviations * std::sqrt(e.weight_noise) * e.spread; }

// Bound on |r - exact r|. A query rounded by delta answers with r*(x - delta): the error is J delta with J = Cov_w /
// sigma^2, and delta is random with known variance (its last digit is rounded stochastically), so
// E|J delta|^2 = step^2 |J|_F^2 <= (step trace / sigma^2)^2.
inline double dense_error(const DenseErrors& e, double sigma) {
    const double weights = weights_error(e);
    const auto together = [&](double logits) {
        return std::sqrt(logits * logits + weights * weights + e.sums * e.sums);
    };
    if (e.measured > 0) return together(e.measured);
    // Settled rows do not share what <delta, r> / sigma^2 adds to all the others.
    const double common = e.weight < 1 ? e.length * std::sqrt(e.weight * e.trace) : 0;
    const double query = e.query_step * (e.trace + common) / (sigma * sigma);
    const double logits = e.logit_noise * std::sqrt(e.trace * e.concentration);
    return together(kDeviations * std::sqrt(query * query + logits * logits));
}

// Bound on the error of a trace that is E_w |v - mean|^2 less |r - mean|^2: r, which is `far` from the mean, is not
// quite that of these weights.
inline double trace_error(const DenseErrors& e, double far) {
    const double weights = weights_error(e);
    const double off = std::sqrt(weights * weights + e.sums * e.sums);
    return off * (2 * far + off) + 1e-14 * (far * far + e.trace);
}

// What it may be off by: a trace is wanted for itself, and over sigma^2 beside the number of columns.
inline double allowed_of_trace(double trace, double sigma, int64_t d, double tol) {
    return tol * std::max(10 * trace, 0.01 * double(d) * sigma * sigma);
}

// Bound on |log sum - exact|, to first order sum_i w_i e_i over the logits' errors: <delta, r> / sigma^2 from the
// query's rounding, common to all rows and so without effect on r, and what independent errors leave after averaging.
inline double dense_log_error(const DenseErrors& e, double sigma) {
    const double query = e.query_step * e.length * e.weight / (sigma * sigma);
    const double logits = e.logit_noise * std::sqrt(e.weight * e.concentration);
    return kDeviations * std::sqrt(query * query + logits * logits);
}

}  // namespace geodiff
