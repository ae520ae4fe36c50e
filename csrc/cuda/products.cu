// Distances, inner products and weighted sums by themselves, in float64: the parts that a coherent trajectory, a list
// of nearest rows or a weighting of one's own is put together from.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "values.h"

namespace geodiff::cuda {
namespace {

// Blocks along x for each query. Queries lie along x too: y ends at 65,535.
__host__ __device__ inline int64_t blocks_of(int64_t items, int per_block) {
    return (items + per_block - 1) / per_block;
}

template <DType T, bool Difference>
__global__ void __launch_bounds__(kThreads) pairs_kernel(Pairs a) {
    const int64_t blocks = blocks_of(a.n, kWarps), q = blockIdx.x / blocks;
    const int64_t place = blockIdx.x % blocks * kWarps + threadIdx.x / 32;
    if (place >= a.n) return;  // a whole warp
    const int64_t row = a.list ? a.list[q * a.n + place] : place;
    double& out = a.out[q * a.n + place];
    if (row < 0) {
        if (threadIdx.x % 32 == 0) out = INFINITY;
        return;
    }
    const double* x = a.x + q * a.d;
    const double inverse = 1 / a.unit;
    const double found = warp_over_row<T>(a.rows, row, a.d, [&](int64_t k, double v) {
        if constexpr (Difference) {
            const double difference = x[k] * a.unit - a.shift - v;  // centred: exact for bytes
            return difference * difference;
        } else {
            return x[k] * (v + a.shift);
        }
    });
    if (threadIdx.x % 32 == 0) out = Difference ? found * inverse * inverse : found * inverse;
}

// Calls work(first query, queries) for as many at a time as a grid has blocks for, `blocks` each. One query never has
// more than that: 2^31 blocks of rows are 2^34 rows.
template <class Work>
void over_queries(int64_t batch, int64_t blocks, Work&& work) {
    const int64_t most = std::max<int64_t>(1, most_blocks() / std::max<int64_t>(1, blocks));
    for (int64_t first = 0; first < batch; first += most) work(first, std::min(most, batch - first));
}

template <bool Difference>
void pairs(const char* name, const Pairs& a, uintptr_t stream) {
    const int64_t blocks = blocks_of(a.n, kWarps);
    over_queries(a.batch, blocks, [&](int64_t first, int64_t count) {
        Pairs some = a;
        some.x += first * a.d;
        some.out += first * a.n;
        if (a.list) some.list += first * a.n;
        some.batch = count;
        const Grid grid{unsigned(blocks * count), 1, 1, 1};
        for_dtype(a.dtype, [&](auto dtype) {
            launch(name, pairs_kernel<dtype(), Difference>, grid, kThreads, 0, stream, some);
        });
    });
}

template <DType T>
__global__ void __launch_bounds__(kThreads) weighted_sum_kernel(Weighted a) {
    using Item = typename Stored<T>::Item;
    const int64_t blocks = blocks_of(a.d, kThreads), q = a.first + blockIdx.x / blocks, part = blockIdx.y;
    const int64_t k = blockIdx.x % blocks * kThreads + threadIdx.x;
    if (k >= a.d) return;
    const int64_t begin = a.n * part / a.parts, end = a.n * (part + 1) / a.parts;
    double sum = 0;
    for (int64_t row = begin; row < end; ++row) {
        const double w = a.weights[q * a.n + row];  // the same address for the whole block: one load serves it
        if (w != 0) sum += w * (Stored<T>::value(static_cast<const Item*>(a.rows)[row * a.d + k]) + a.shift);
    }
    a.out[(part * a.batch + q) * a.d + k] = sum / a.unit;
}

}  // namespace

void distances(const Pairs& a, uintptr_t stream) { pairs<true>("distances", a, stream); }

void inner_products(const Pairs& a, uintptr_t stream) { pairs<false>("inner_products", a, stream); }

void weighted_sum(const Weighted& a, uintptr_t stream) {
    const int64_t blocks = blocks_of(a.d, kThreads);
    over_queries(a.batch, blocks, [&](int64_t first, int64_t count) {
        Weighted some = a;
        some.first = first;
        const Grid grid{unsigned(blocks * count), unsigned(a.parts), 1, 1};
        for_dtype(a.dtype, [&](auto dtype) {
            launch("weighted_sum", weighted_sum_kernel<dtype()>, grid, kThreads, 0, stream, some);
        });
    });
}

}  // namespace geodiff::cuda
