// The end of the dense pass, one block per query: shares added up, and the decision whether that is the answer.
#include <cmath>

#include "dense.h"
#include "kernels.h"
#include "settle.h"

namespace geodiff::cuda {
namespace {

constexpr int kFinishWarps = 32;

__global__ void __launch_bounds__(kFinishWarps * 32) finish_kernel(const __grid_constant__ Dense a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.x;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const Online all = joined<kFinishWarps>(c, q, scratch);
    double* r = c.result.mean + q * p.d;
    const Query query = c.work.queries[q];
    const double inverse = 1 / all.sum_q, per_unit = 1 / p.unit;
    const Lengths length = lengths<kFinishWarps>(p, c.work.centred + q * p.d, all.best, scratch, [&](int64_t k) {
        double sum = 0;
#pragma unroll 8
        for (int64_t share = 0; share < a.layout.shares; ++share) sum += c.work.sums[(share * c.padded + q) * p.d + k];
        const double m = sum * inverse + p.shift;
        r[k] = m * per_unit;
        return m;
    });
    if (threadIdx.x == 0 && within_contract(p, query, all, length, kWeightError))
        write_scores(c.result, q, all, log_sum_of(p, query, all, q, length.distance), Path::dense);
}

}  // namespace

void dense_finish(const Dense& a, uintptr_t stream) {
    const Grid grid{unsigned(a.call.problem.batch), 1, 1, 1};
    launch("dense_finish", finish_kernel, grid, kFinishWarps * 32, settle_scratch(kFinishWarps) * sizeof(double),
           stream, a);
}

}  // namespace geodiff::cuda
