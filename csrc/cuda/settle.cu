// The parts of an answer joined, and the decision whether its error is within the contract.
#include <cmath>

#include "kernels.h"
#include "settle.h"

namespace geodiff::cuda {
namespace {

struct Merge {
    Call call;
    bool last;  // no pass comes after it
};

__global__ void __launch_bounds__(kThreads) merge_kernel(Merge a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.y, k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (c.result.path[q] == int8_t(Path::dense)) return;       // an open query's may be written meanwhile, below
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
    if (a.last && blockIdx.x == 0) {
        const Online all = joined<kWarps>(c, q, scratch);
        if (threadIdx.x == 0) write_scores(c.result, q, all, all.max + log(all.sum), Path::exact);
    }
    if (k >= p.d) return;
    double sum = 0;
#pragma unroll 4
    for (int64_t part = 0; part < c.parts; ++part)
        if (scale[part] != 0) sum += scale[part] * c.work.sums[(part * c.padded + q) * p.d + k];
    c.result.mean[q * p.d + k] = (sum / weights + p.shift) / p.unit;
}

__global__ void __launch_bounds__(kThreads) settle_kernel(Call c) {
    const Problem& p = c.problem;
    const int64_t q = blockIdx.x;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const Online all = joined<kWarps>(c, q, scratch);
    const double* r = c.result.mean + q * p.d;
    const Lengths length =
        lengths<kWarps>(p, c.work.centred + q * p.d, all.best, scratch, [&](int64_t k) { return r[k] * p.unit; });
    const Query& query = c.work.queries[q];
    if (threadIdx.x == 0 && within_contract(p, query, all, length, 0))
        write_scores(c.result, q, all, log_sum_of(p, query, all, q, length.distance), Path::dense);
}

}  // namespace

void merge(const Call& call, bool last, uintptr_t stream) {
    const Grid grid{unsigned((call.problem.d + kThreads - 1) / kThreads), unsigned(call.problem.batch), 1, 1};
    launch("merge", merge_kernel, grid, kThreads, size_t(call.parts + settle_scratch(kWarps)) * sizeof(double), stream,
           Merge{call, last});
}

void settle(const Call& call, uintptr_t stream) {
    const Grid grid{unsigned(call.problem.batch), 1, 1, 1};
    launch("settle", settle_kernel, grid, kThreads, settle_scratch(kWarps) * sizeof(double), stream, call);
}

}  // namespace geodiff::cuda
