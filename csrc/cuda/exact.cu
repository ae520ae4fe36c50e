// Open queries in float64 from squared differences: right for every sigma, and the whole answer for float storage.
#include <cmath>

#include "differences.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

struct ExactShared {
    Online state;  // here and not in registers, where every warp would hold what only the first one needs
    double logit[kRows], bias[kRows], weight[kRows];
    int64_t row[kRows];
    double rescale;
    int any;
};

template <DType T>
__global__ void __launch_bounds__(kThreads, 3) exact_kernel(Call c) {
    const Problem& p = c.problem;
    const int64_t part = blockIdx.x, q = blockIdx.y, d = p.d;
    if (c.result.path[q] >= 0) return;
    auto& shared = *reinterpret_cast<ExactShared*>(shared_memory());
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const double* x = c.work.centred + q * d;
    const double scale = scale_of(p, q);
    double* sums = c.work.sums + (part * c.padded + q) * d;
    for (int64_t k = threadIdx.x; k < d; k += kThreads) sums[k] = 0;
    if (threadIdx.x == 0) shared.state = nothing();
    const Range range = share(c.list ? c.listed : p.n, part, c.parts);
    for (int64_t first = range.begin; first < range.end; first += kRows) {
        for (int r = warp; r < kRows; r += kWarps) {
            const int64_t place = first + r;
            const int64_t row = place >= range.end ? -1 : c.list ? c.list[q * c.listed + place] : place;
            double l = -INFINITY, bias = 0;
            if (row >= 0 && sees(p, q, row)) {
                l = scale * square_of<T>(p, x, row);
                bias = bias_of(p, q, row);
                l += bias;
            }
            if (lane == 0) {
                shared.logit[r] = l;
                shared.bias[r] = bias;
                shared.row[r] = row;
            }
        }
        __syncthreads();
        if (warp == 0) {
            double weight, rescale;
            Online state = shared.state;
            const bool any = take_tile({shared.logit[lane], 0, shared.bias[lane], first + lane}, p.bias, p.cut, state,
                                       weight, rescale);
            if (any) state.sum_q += warp_sum(weight);
            shared.weight[lane] = weight;
            __syncwarp();
            if (lane == 0) {
                shared.state = state;
                shared.rescale = rescale;
                shared.any = any;
            }
        }
        __syncthreads();
        if (shared.any) add_tile<T>(p, shared.weight, [&](int r) { return shared.row[r]; }, shared.rescale, sums);
        __syncthreads();
    }
    if (threadIdx.x == 0) c.work.states[part * c.padded + q] = shared.state;
}

}  // namespace

void exact(const Call& call, uintptr_t stream) {
    const Grid grid{unsigned(call.parts), unsigned(call.problem.batch), 1, 1};
    for_dtype(call.dtype, [&](auto dtype) {
        launch("exact", exact_kernel<dtype()>, grid, kThreads, sizeof(ExactShared), stream, call);
    });
}

}  // namespace geodiff::cuda
