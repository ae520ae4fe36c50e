// Open queries in float64 from squared differences: right for every sigma, and the whole answer for float storage.
#include <cmath>

#include "differences.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

template <int Queries>
struct ExactShared {
    Online state[Queries];  // here and not in registers, where every warp would hold what only one needs
    double square[Queries][kRows], weight[kRows][Queries], rescale[Queries];
    int64_t row[kRows];
    int any[Queries];
};

// The query whose softmax this warp does.
template <int Queries>
__device__ __forceinline__ int own(const int (&query)[Queries]) {
    int q = query[0];
#pragma unroll
    for (int j = 1; j < Queries; ++j)
        if (threadIdx.x / 32 == j) q = query[j];
    return q;
}

// One part of the rows for some queries, which read each row together. Of equal ones all write the same.
template <DType T, int Queries>
__device__ __forceinline__ void answer(const Call& c, const int (&query)[Queries]) {
    // Rows of a warp: as many as registers hold beside the values of a load.
    constexpr int kAtOnce = T == DType::f32 ? 4 : 2;
    const Problem& p = c.problem;
    const int64_t part = blockIdx.x, d = p.d;
    auto& shared = *reinterpret_cast<ExactShared<Queries>*>(shared_memory());
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const double* x[Queries];
    const auto sums = [&](int j) { return c.work.sums + (part * c.padded + query[j]) * d; };
#pragma unroll
    for (int j = 0; j < Queries; ++j) {
        x[j] = c.work.centred + query[j] * d;
        for (int64_t k = threadIdx.x; k < d; k += kThreads) sums(j)[k] = 0;
        if (threadIdx.x == 0) shared.state[j] = nothing();
    }
    const int64_t* list = Queries == 1 ? c.list : nullptr;
    const Range range = share(list ? c.listed : p.n, part, c.parts);
    for (int64_t first = range.begin; first < range.end; first += kRows) {
        const int left = int(range.end - first < kRows ? range.end - first : kRows);
#pragma unroll 1
        for (int r = warp; r < kRows; r += kAtOnce * kWarps) {
            int64_t there[kAtOnce];  // where no row is, the first one is read
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i) {
                const int64_t place = first + r + i * kWarps;
                const int64_t row = r + i * kWarps >= left ? -1 : list ? list[query[0] * c.listed + place] : place;
                if (lane == 0) shared.row[r + i * kWarps] = row;
                there[i] = row < 0 ? 0 : row;
            }
            double square[kAtOnce][Queries];
            squares_of<T>(p, x, there, square);
            if (lane == 0)
#pragma unroll
                for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
                    for (int j = 0; j < Queries; ++j) shared.square[j][r + i * kWarps] = square[i][j];
        }
        __syncthreads();
        if (warp < Queries) {
            const int64_t q = own(query), row = shared.row[lane];
            const bool seen = row >= 0 && sees(p, q, row);
            const double bias = seen ? bias_of(p, q, row) : 0;
            const double logit = seen ? scale_of(p, q) * shared.square[warp][lane] + bias : -INFINITY;
            double weight, rescale;
            Online state = shared.state[warp];
            const bool any = take_tile({logit, 0, bias, first + lane}, p.bias, p.cut, state, weight, rescale);
            if (any) state.sum_q += warp_sum(weight);
            shared.weight[lane][warp] = weight;
            __syncwarp();
            if (lane == 0) {
                shared.state[warp] = state;
                shared.rescale[warp] = rescale;
                shared.any[warp] = any;
            }
        }
        __syncthreads();
        bool any = false;
#pragma unroll
        for (int j = 0; j < Queries; ++j) any |= shared.any[j] != 0;
        if (any) add_tile<T>(p, shared.weight, [&](int r) { return shared.row[r]; }, shared.rescale, sums);
        __syncthreads();
    }
    if (threadIdx.x == 0)
        for (int j = 0; j < Queries; ++j) c.work.states[part * c.padded + query[j]] = shared.state[j];
}

// Queries that lie side by side, where the rows are the same for all; of those that are open alone.
template <DType T, int Queries>
__global__ void __launch_bounds__(kThreads, 2) exact_kernel(Call c) {
    int query[Queries], one = -1, open = 0;
#pragma unroll
    for (int j = Queries - 1; j >= 0; --j) {
        const int q = int(blockIdx.y) * Queries + j;
        query[j] = q < c.problem.batch && c.result.path[q] < 0 ? q : -1;
        if (query[j] < 0) continue;
        one = q;
        ++open;
    }
    if (open == 0) return;
    if (open == 1) return answer<T, 1>(c, {one});
#pragma unroll
    for (int& q : query) q = q < 0 ? one : q;
    answer<T, Queries>(c, query);
}

template <int Queries>
void exact_together(const Call& call, uintptr_t stream) {
    const Grid grid{unsigned(call.parts), unsigned((call.problem.batch + Queries - 1) / Queries), 1, 1};
    for_dtype(call.dtype, [&](auto dtype) {
        launch("exact", exact_kernel<dtype(), Queries>, grid, kThreads, sizeof(ExactShared<Queries>), stream, call);
    });
}

}  // namespace

void exact(const Call& call, uintptr_t stream) {
    if (call.list || call.problem.batch == 1)
        exact_together<1>(call, stream);
    else
        exact_together<kTogether>(call, stream);
}

}  // namespace geodiff::cuda
