// The parts of an answer joined, and the decision whether its error is within the contract.
#include <cmath>

#include "block.h"
#include "kernels.h"
#include "online.h"
#include "values.h"

namespace geodiff::cuda {
namespace {

constexpr double kLogProbShare = 5e-4;  // of the 1e-3 that the contract allows log_prob
constexpr double kMeanShare = 0.9;      // of the error allowed; rows beyond the cut take up to 0.04

// Query q over all parts, by a whole block: always in the same order.
__device__ Online joined(const Call& c, int64_t q, double* scratch) {
    Online all = nothing();
    for (int64_t part = threadIdx.x; part < c.parts; part += kThreads)
        all.max = fmax(all.max, c.work.states[part * c.padded + q].max);
    all.max = block_max(all.max, scratch);
    double best = -INFINITY;  // the lowest row of equals, negative
    for (int64_t part = threadIdx.x; part < c.parts; part += kThreads) {
        const Online& s = c.work.states[part * c.padded + q];
        if (s.max == kNothing) continue;
        if (s.max == all.max && s.best >= 0) best = fmax(best, -double(s.best));
        const double step = s.max - all.max, scale = exp(step);
        all.sum += s.sum * scale;
        all.sum_l += (s.sum_l + step * s.sum) * scale;
        all.sum_2 += s.sum_2 * scale * scale;
        all.sum_h += s.sum_h * scale;
        all.sum_b += s.sum_b * scale;
        all.sum_q += s.sum_q * scale;
        all.lost += s.lost * scale;
    }
    for (double* sum : {&all.sum, &all.sum_l, &all.sum_2, &all.sum_h, &all.sum_b, &all.sum_q, &all.lost})
        *sum = block_sum(*sum, scratch);
    best = block_max(best, scratch);
    all.best = best > -INFINITY ? -int64_t(best) : -1;
    return all;
}

__global__ void __launch_bounds__(kThreads) merge_kernel(Call c) {
    const Problem& p = c.problem;
    const int64_t q = blockIdx.y, k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (c.result.path[q] >= 0) return;
    auto* scale = reinterpret_cast<double*>(shared_memory());  // [parts]
    auto* scratch = scale + c.parts;
    double top = kNothing, weights = 0;
    for (int64_t part = threadIdx.x; part < c.parts; part += kThreads)
        top = fmax(top, c.work.states[part * c.padded + q].max);
    top = block_max(top, scratch);
    for (int64_t part = threadIdx.x; part < c.parts; part += kThreads) {
        const Online& s = c.work.states[part * c.padded + q];
        scale[part] = s.max == kNothing ? 0 : exp(s.max - top);
        if (scale[part] != 0) weights += scale[part] * s.sum_q;
    }
    weights = block_sum(weights, scratch);  // and the scales are there
    if (k >= p.d) return;
    double sum = 0;
#pragma unroll 4
    for (int64_t part = 0; part < c.parts; ++part)
        if (scale[part] != 0) sum += scale[part] * c.work.sums[(part * c.padded + q) * p.d + k];
    c.result.mean[q * p.d + k] = (sum / weights + p.shift) / p.unit;
}

struct Settle {
    Call call;
    bool streamed;
};

__global__ void __launch_bounds__(kThreads) settle_kernel(Settle a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.x;
    if (c.result.path[q] >= 0) return;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const Online all = joined(c, q, scratch);
    double log_sum = all.max + log(all.sum);
    bool good = true;
    if (a.streamed) {
        double square = 0, model = 0;  // |r|^2 about the centre and about the origin of model space
        for (int64_t k = threadIdx.x; k < p.d; k += kThreads) {
            const double m = c.result.mean[q * p.d + k] * p.unit;
            model += m * m;
            square += (m - p.shift) * (m - p.shift);
        }
        square = block_sum(square, scratch);
        model = block_sum(model, scratch);
        const Query& query = c.work.queries[q];
        // A logit differs from the exact one by what all rows have in common and at most `error`: the query's rest
        // against row - mean, and the rounding of a few float64 operations. Then every weight is right to a factor
        // exp(+-2 error), and |r - exact r| <= (exp(2 error) - 1) E_w |v - r|.
        const double rounding = 1e-15 * (query.length + p.max_norm) * p.max_norm;
        const double error = (query.residual * p.radius + rounding) * query.inv_sigma2;
        const double factor = expm1(2 * error);
        const double lost = all.lost / all.sum;
        const double trace = fmax(0.0, 2 * all.sum_h / all.sum - square) + (8 * lost + 1e-13) * p.max_norm * p.max_norm;
        const double tail = (all.sum - 1) / all.sum;  // weight of all rows but the best, which has p = 1
        // What the sums cannot show, and an error in the logits may have hidden: rows beyond the cut, and weights that
        // vanish when they are added to the best row's 1.
        const double unseen = double(p.n) * (exp(-p.cut) + 0x1p-53);
        const double spread = fmin(sqrt(trace), 4 * p.radius * tail) + 4 * p.radius * unseen;
        const double allowed = kMeanShare * p.tol * fmax(sqrt(model), p.least_scale);
        good = factor * spread + 2 * lost * p.radius <= allowed && factor * (tail + unseen) <= kLogProbShare;
        // The common part of the logits' error would show in log_sum: the best row's is worked out exactly.
        const int64_t row = all.best < 0 ? 0 : all.best;
        const double* x = c.work.centred + q * p.d;
        const double distance =
            warp_over_row<DType::u8>(p.rows, row, p.d, [&](int64_t k, double v) { return (x[k] - v) * (x[k] - v); });
        log_sum = -0.5 * distance * query.inv_sigma2 + (p.bias ? p.bias[q * p.bias_stride + row] : 0) + log(all.sum);
    }
    if (threadIdx.x != 0 || !good) return;
    c.result.log_sum[q] = log_sum;
    c.result.entropy[q] = log(all.sum) - all.sum_l / all.sum;
    c.result.ess[q] = all.sum * all.sum / all.sum_2;
    c.result.mean_bias[q] = all.sum_b / all.sum;
    c.result.path[q] = int8_t(a.streamed ? Path::dense : Path::exact);
}

}  // namespace

void merge(const Call& call, uintptr_t stream) {
    const Grid grid{unsigned((call.problem.d + kThreads - 1) / kThreads), unsigned(call.problem.batch), 1, 1};
    launch("merge", merge_kernel, grid, kThreads, size_t(call.parts + kWarps) * sizeof(double), stream, call);
}

void settle(const Call& call, bool streamed, uintptr_t stream) {
    const Grid grid{unsigned(call.problem.batch), 1, 1, 1};
    launch("settle", settle_kernel, grid, kThreads, kWarps * sizeof(double), stream, Settle{call, streamed});
}

}  // namespace geodiff::cuda
