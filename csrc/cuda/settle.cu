// The parts of an answer joined, and the decision whether its error is within the contract.
#include <cmath>

#include "kernels.h"
#include "settle.h"

namespace geodiff::cuda {
namespace {

// Queries of which one alone has too few blocks for a GPU: then a warp adds up every eighth part.
constexpr int64_t kFewBlocks = 16;

struct Merge {
    Call call;
    bool last;  // no pass comes after it
};

// The warps of a block take `Groups` shares of the parts, for as many columns as that leaves them.
template <int Groups>
__global__ void __launch_bounds__(kThreads) merge_kernel(Merge a) {
    constexpr int kColumns = kThreads / Groups;
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.y, k = int64_t(blockIdx.x) * kColumns + threadIdx.x % kColumns;
    if (c.result.path[q] == int8_t(Path::dense)) return;      // an open query's may be written meanwhile, below
    auto* sums = reinterpret_cast<double*>(shared_memory());  // [kThreads]
    auto *scale = sums + kThreads, *scratch = scale + c.parts;
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
    double sum = 0;
    if (k < p.d)
#pragma unroll 8
        for (int64_t part = threadIdx.x / kColumns; part < c.parts; part += Groups)
            if (scale[part] != 0) sum += scale[part] * c.work.sums[(part * c.padded + q) * p.d + k];
    if (Groups > 1) {
        sums[threadIdx.x] = sum;
        __syncthreads();
        for (int group = 1; group < Groups; ++group) sum += sums[group * kColumns + threadIdx.x % kColumns];
    }
    if (k < p.d && threadIdx.x < kColumns) c.result.mean[q * p.d + k] = (sum / weights + p.shift) / p.unit;
}

constexpr int kSettleWarps = 32;

struct Settle {
    Call call;
    double weights;  // as in within_contract
};

__global__ void __launch_bounds__(kSettleWarps * 32) settle_kernel(Settle a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int64_t q = blockIdx.x;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const Online all = joined<kSettleWarps>(c, q, scratch);
    const double* r = c.result.mean + q * p.d;
    const Lengths length =
        lengths<kSettleWarps>(p, c.work.centred + q * p.d, all.best, scratch, [&](int64_t k) { return r[k] * p.unit; });
    const Query& query = c.work.queries[q];
    if (threadIdx.x == 0 && within_contract(p, query, all, length, a.weights))
        write_scores(c.result, q, all, log_sum_of(p, query, all, q, length.distance), Path::dense);
}

}  // namespace

void merge(const Call& call, bool last, uintptr_t stream) {
    const bool few = call.problem.batch <= kFewBlocks;
    const int64_t columns = few ? kThreads / kWarps : kThreads;
    const Grid grid{unsigned((call.problem.d + columns - 1) / columns), unsigned(call.problem.batch), 1, 1};
    launch("merge", few ? merge_kernel<kWarps> : merge_kernel<1>, grid, kThreads,
           size_t(kThreads + call.parts + settle_scratch(kWarps)) * sizeof(double), stream, Merge{call, last});
}

void settle(const Call& call, double weights, uintptr_t stream) {
    const Grid grid{unsigned(call.problem.batch), 1, 1, 1};
    launch("settle", settle_kernel, grid, kSettleWarps * 32, settle_scratch(kSettleWarps) * sizeof(double), stream,
           Settle{call, weights});
}

}  // namespace geodiff::cuda
