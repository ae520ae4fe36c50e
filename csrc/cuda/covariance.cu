// Covariances under the posterior in one pass over the rows: an online softmax whose weights carry a factor of their
// own.
#include <cmath>

#include "block.h"
#include "differences.h"
#include "launch.h"
#include "layout.h"
#include "moments.h"

namespace geodiff::cuda {
namespace {

constexpr int kState = 5;

struct Shared {
    Online state;
    double logit[kRows], c[kRows], far[kRows], weighted[kRows][1];
    double sum_c, sum_far, crossed, rescale[1];
    int any;
};

template <DType T>
__global__ void __launch_bounds__(kThreads, 3) covariance_kernel(Covariance a) {
    const Problem& p = a.problem;
    const int64_t part = blockIdx.x, q = blockIdx.y, d = p.d;
    auto& shared = *reinterpret_cast<Shared*>(shared_memory());
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const double *x = static_cast<const double*>(p.x) + q * d, *v = a.v + q * d;
    const double level = a.along[q], origin = a.along[p.batch + q], slope = a.along[2 * p.batch + q];
    double* sums = a.sums + (part * p.batch + q) * d;
    for (int64_t k = threadIdx.x; k < d; k += kThreads) sums[k] = 0;
    if (threadIdx.x == 0) {
        shared.state = nothing();
        shared.sum_c = shared.sum_far = shared.crossed = 0;
    }
    const Range range = share(p.n, part, a.parts);
    for (int64_t first = range.begin; first < range.end; first += kRows) {
        for (int r = warp; r < kRows; r += kWarps) {
            const int64_t row = first + r;
            double l = -INFINITY, c = 0, far = 0;
            if (row < range.end && sees(p, q, row)) {
                const double square = square_of<T>(p, x, row);
                l = scale_of(p, q) * square + bias_of(p, q, row);
                far = square - origin;
                c = warp_over_row<T>(p.rows, row, d, [&](int64_t k, double u) { return v[k] * u; }) - level +
                    slope * far;
            }
            if (lane == 0) {
                shared.logit[r] = l;
                shared.c[r] = c;
                shared.far[r] = far;
            }
        }
        __syncthreads();
        if (warp == 0) {
            double weight, rescale;
            Online state = shared.state;
            const bool any = take_tile({shared.logit[lane], 0, 0, first + lane}, false, p.cut, state, weight, rescale);
            const double weighted = weight * shared.c[lane], far = shared.far[lane];
            const double sum_c = warp_sum(weighted), sum_far = warp_sum(weight * far);
            const double crossed = warp_sum(weighted * far);
            shared.weighted[lane][0] = weighted;
            __syncwarp();
            if (lane == 0) {
                shared.state = state;
                shared.sum_c = shared.sum_c * rescale + sum_c;
                shared.sum_far = shared.sum_far * rescale + sum_far;
                shared.crossed = shared.crossed * rescale + crossed;
                shared.rescale[0] = rescale;
                shared.any = any;
            }
        }
        __syncthreads();
        if (shared.any)
            add_tile<T>(
                p, shared.weighted, [&](int r) { return first + r; }, shared.rescale, [&](int) { return sums; });
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    double* out = a.states + (part * p.batch + q) * kState;
    const double state[kState] = {shared.state.max, shared.state.sum, shared.sum_c, shared.sum_far, shared.crossed};
    for (int i = 0; i < kState; ++i) out[i] = state[i];
}

// Joins the parts: 256 numbers of one query per block.
__global__ void __launch_bounds__(kThreads) covariance_merge_kernel(Covariance a) {
    const Problem& p = a.problem;
    const int64_t q = blockIdx.y, k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    auto* scale = reinterpret_cast<double*>(shared_memory());  // [parts]
    auto* scratch = scale + a.parts;
    const auto state = [&](int64_t part) { return a.states + (part * p.batch + q) * kState; };
    double top = kNothing;
    for (int64_t part = threadIdx.x; part < a.parts; part += kThreads) top = fmax(top, state(part)[0]);
    top = block_max(top, scratch);
    double all[kState - 1] = {};
    for (int64_t part = threadIdx.x; part < a.parts; part += kThreads) {
        const double* s = state(part);
        scale[part] = s[0] == kNothing ? 0 : exp(s[0] - top);
        if (scale[part] != 0)
            for (int i = 0; i < kState - 1; ++i) all[i] += scale[part] * s[i + 1];
    }
    block_sums<kWarps>(all, scratch);  // and the scales are there
    const double total = all[0], mean_c = all[1] / total;
    if (blockIdx.x == 0 && threadIdx.x == 0) a.with_far[q] = all[3] / total - mean_c * (all[2] / total);
    if (k >= p.d) return;
    double sum = 0;
    for (int64_t part = 0; part < a.parts; ++part)
        if (scale[part] != 0) sum += scale[part] * a.sums[(part * p.batch + q) * p.d + k];
    a.with_rows[q * p.d + k] = sum / total - mean_c * a.mean[q * p.d + k];
}

}  // namespace

void covariance(const Covariance& a, uintptr_t stream) {
    const Problem& p = a.problem;
    for_dtype(a.dtype, [&](auto dtype) {
        launch("covariance", covariance_kernel<dtype()>, Grid{unsigned(a.parts), unsigned(p.batch), 1, 1}, kThreads,
               sizeof(Shared), stream, a);
    });
    const Grid grid{unsigned((p.d + kThreads - 1) / kThreads), unsigned(p.batch), 1, 1};
    const size_t shared = size_t(a.parts + (kState - 1) * (kWarps + 1)) * sizeof(double);
    launch("covariance_merge", covariance_merge_kernel, grid, kThreads, shared, stream, a);
}

}  // namespace geodiff::cuda
