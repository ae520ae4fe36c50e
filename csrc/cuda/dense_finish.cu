// The end of the dense pass: shares of the weighted sums added up.
#include "block.h"
#include "dense.h"
#include "kernels.h"

namespace geodiff::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ Dense a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.y, k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    double weights = 0;  // of all parts, in one unit
    for (int64_t part = threadIdx.x; part < c.parts; part += kThreads)
        weights += c.work.states[part * c.padded + q].sum_q;
    weights = block_sum(weights, reinterpret_cast<double*>(shared_memory()));
    if (k >= p.d) return;
    double sum = 0;
#pragma unroll 8
    for (int64_t share = 0; share < a.layout.shares; ++share) sum += c.work.sums[(share * c.padded + q) * p.d + k];
    c.result.mean[q * p.d + k] = (sum / weights + p.shift) / p.unit;
}

}  // namespace

void dense_finish(const Dense& a, uintptr_t stream) {
    const Problem& p = a.call.problem;
    const Grid grid{unsigned((p.d + kThreads - 1) / kThreads), unsigned(p.batch), 1, 1};
    launch("dense_finish", finish_kernel, grid, kThreads, kWarps * sizeof(double), stream, a);
}

}  // namespace geodiff::cuda
