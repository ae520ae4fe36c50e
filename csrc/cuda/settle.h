// The parts of an answer joined, and the decision whether its error is within the contract: for a whole block.
#pragma once

#include <cmath>

#include "block.h"
#include "online.h"

namespace geodiff::cuda {

// Doubles of shared memory that what follows takes.
constexpr int settle_scratch(int warps) { return 7 * (warps + 1); }

constexpr double kLogProbShare = 5e-4;  // of the 1e-3 that the contract allows log_prob
constexpr double kMeanShare = 0.9;      // of the error allowed; rows beyond the cut take up to 0.04

// Query q over all parts, by a whole block: always in the same order.
template <int Warps>
__device__ Online joined(const Call& c, int64_t q, double* scratch) {
    Online all = nothing();
    for (int64_t part = threadIdx.x; part < c.parts; part += Warps * 32)
        all.max = fmax(all.max, c.work.states[part * c.padded + q].max);
    all.max = block_max<Warps>(all.max, scratch);
    double best = -INFINITY;  // the lowest row of equals, negative
    double sums[7] = {};
    for (int64_t part = threadIdx.x; part < c.parts; part += Warps * 32) {
        const Online& s = c.work.states[part * c.padded + q];
        if (s.max == kNothing) continue;
        if (s.max == all.max && s.best >= 0) best = fmax(best, -double(s.best));
        const double step = s.max - all.max, scale = step == 0 ? 1 : exp(step);
        sums[0] += s.sum * scale;
        sums[1] += (s.sum_l + step * s.sum) * scale;
        sums[2] += s.sum_2 * scale * scale;
        sums[3] += s.sum_h * scale;
        sums[4] += s.sum_b * scale;
        sums[5] += s.sum_q * scale;
        sums[6] += s.lost * scale;
    }
    block_sums<Warps>(sums, scratch);
    all.sum = sums[0];
    all.sum_l = sums[1];
    all.sum_2 = sums[2];
    all.sum_h = sums[3];
    all.sum_b = sums[4];
    all.sum_q = sums[5];
    all.lost = sums[6];
    best = block_max<Warps>(best, scratch);
    all.best = best > -INFINITY ? -int64_t(best) : -1;
    return all;
}

// Lengths about the answer: |r|^2 about the centre of stored values and about the origin of model space, the latter
// times unit^2; and |x - v|^2 of the best row.
struct Lengths {
    double square, model, distance;
};

// Of query q, whose mean is `r(k)` at number k < d, in model units times `unit`.
template <int Warps, class R>
__device__ Lengths lengths(const Problem& p, const double* x, int64_t row, double* scratch, R r) {
    double sums[3] = {};
    const auto* v = static_cast<const uint8_t*>(p.rows) + (row < 0 ? 0 : row) * p.d;
    for (int64_t k = threadIdx.x; k < p.d; k += Warps * 32) {
        const double m = r(k), centred = m - p.shift, away = x[k] - double(int(v[k]) - 128);
        sums[0] += centred * centred;
        sums[1] += m * m;
        sums[2] += away * away;
    }
    block_sums<Warps>(sums, scratch);
    return {sums[0], sums[1], sums[2]};
}

// Whether the answer that a pass over bytes found for a query is within the contract; `weights` as that pass makes
// them are right to that factor, beside what the logits do.
__device__ inline bool within_contract(const Problem& p, const Query& query, const Online& all, const Lengths& length,
                                       double weights) {
    // A logit differs from the exact one by what all rows have in common and at most `error`: the query's rest
    // against row - mean, and the rounding of a few float64 operations. Then every weight is right to a factor
    // exp(+-2 error), and |r - exact r| <= (exp(2 error) - 1) E_w |v - r|.
    const double rounding = 1e-15 * (query.length + p.max_norm) * p.max_norm;
    const double error = (query.residual * p.radius + rounding) * query.inv_sigma2 + weights;
    const double factor = expm1(2 * error);
    const double lost = all.lost / all.sum;
    const double trace =
        fmax(0.0, 2 * all.sum_h / all.sum - length.square) + (8 * lost + 1e-13) * p.max_norm * p.max_norm;
    const double tail = (all.sum - 1) / all.sum;  // weight of all rows but the best, which has p = 1
    // What the sums cannot show, and an error in the logits may have hidden: rows beyond the cut, and weights that
    // vanish when they are added to the best row's 1.
    const double unseen = double(p.n) * (exp(-p.cut) + 0x1p-53);
    const double spread = fmin(sqrt(trace), 4 * p.radius * tail) + 4 * p.radius * unseen;
    const double allowed = kMeanShare * p.tol * fmax(sqrt(length.model), p.least_scale);
    return factor * spread + 2 * lost * p.radius <= allowed && factor * (tail + unseen) <= kLogProbShare;
}

// One thread: writes what is asked of the weights of query q.
__device__ inline void write_scores(const Result& to, int64_t q, const Online& all, double log_sum, Path path) {
    to.log_sum[q] = log_sum;
    to.entropy[q] = log(all.sum) - all.sum_l / all.sum;
    to.ess[q] = all.sum * all.sum / all.sum_2;
    to.mean_bias[q] = all.sum_b / all.sum;
    to.path[q] = int8_t(path);
}

// log sum_i exp of the logits, given |x - v|^2 of the best row, worked out exactly: the part of the logits' error that
// all rows have in common would show in it.
__device__ inline double log_sum_of(const Problem& p, const Query& query, const Online& all, int64_t q,
                                    double distance) {
    const double bias = p.bias ? p.bias[q * p.bias_stride + (all.best < 0 ? 0 : all.best)] : 0;
    return -0.5 * distance * query.inv_sigma2 + bias + log(all.sum);
}

}  // namespace geodiff::cuda
