// Draws from the posterior: its distribution function inverted, lot by lot and then row by row of the lot that is hit.
#include <cmath>

#include "../common/draw.h"
#include "block.h"
#include "differences.h"
#include "launch.h"
#include "moments.h"

namespace geodiff::cuda {
namespace {

static_assert(kLot == kThreads, "a thread for each row");

// logit [kLot] of the rows of a lot, -inf where there is none or it is not seen; this thread's one is returned.
template <DType T>
__device__ double logits_of(const Problem& p, int64_t q, int64_t lot, double* logit) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const double* x = static_cast<const double*>(p.x) + q * p.d;
    for (int r = warp; r < kLot; r += kWarps) {
        const int64_t row = lot * kLot + r;
        double l = -INFINITY;
        if (row < p.n && sees(p, q, row)) l = scale_of(p, q) * square_of<T>(p, x, row) + bias_of(p, q, row);
        if (lane == 0) logit[r] = l;
    }
    __syncthreads();
    return logit[threadIdx.x];
}

template <DType T>
__global__ void __launch_bounds__(kThreads) masses_kernel(Masses a) {
    const int64_t lot = blockIdx.x, q = blockIdx.y;
    auto* logit = reinterpret_cast<double*>(shared_memory());
    const double l = logits_of<T>(a.problem, q, lot, logit);
    const double top = block_max(l, logit + kLot);
    const double mass = block_sum(top > -INFINITY ? exp(l - top) : 0, logit + kLot);
    if (threadIdx.x != 0) return;
    a.top[lot * a.problem.batch + q] = top;
    a.mass[lot * a.problem.batch + q] = mass;
}

template <DType T>
__global__ void __launch_bounds__(kThreads) picks_kernel(Picks a) {
    const int64_t draw = int64_t(blockIdx.y) * a.count + blockIdx.x, q = blockIdx.y, lot = a.lot[draw];
    auto* weight = reinterpret_cast<double*>(shared_memory());
    const double l = logits_of<T>(a.problem, q, lot, weight);
    weight[threadIdx.x] = exp(l - a.top[lot * a.problem.batch + q]);
    __syncthreads();
    if (threadIdx.x != 0) return;
    a.row[draw] = lot * kLot + first_beyond(weight, kLot, a.target[draw]);
}

}  // namespace

void masses(const Masses& a, uintptr_t stream) {
    const Grid grid{unsigned((a.problem.n + kLot - 1) / kLot), unsigned(a.problem.batch), 1, 1};
    for_dtype(a.dtype, [&](auto dtype) {
        launch("masses", masses_kernel<dtype()>, grid, kThreads, (kLot + kWarps) * sizeof(double), stream, a);
    });
}

void picks(const Picks& a, uintptr_t stream) {
    const Grid grid{unsigned(a.count), unsigned(a.problem.batch), 1, 1};
    for_dtype(a.dtype, [&](auto dtype) {
        launch("picks", picks_kernel<dtype()>, grid, kThreads, kLot * sizeof(double), stream, a);
    });
}

}  // namespace geodiff::cuda
