// First product: logits of 128 rows and a group of queries at a time, and the largest of each query.
#include <cmath>

#include "dense_pipeline.h"
#include "kernels.h"
#include "online.h"

namespace geodiff::cuda {
namespace {

// c[4 j + i] of this thread: row g + i / 2 * 8, column 8 j + 2 t + i % 2 (hopper.h). Query 4 i + t of the group has its
// digits in c[8 i + 0, 1, 4, 5] for row g, and in those two further on for row g + 8.
template <int Q>
__device__ void keep(const Dense& a, int64_t group, int64_t tile, const int (&c)[2 * Q], int warp) {
    const Problem& p = a.call.problem;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int64_t first = tile * kTile + warp * 16 + g;
#pragma unroll
    for (int i = 0; i < Q / 4; ++i) {
        const int64_t q = group * Q + 4 * i + t;
        const Query& query = a.call.work.queries[q];
        double top = -INFINITY;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int64_t row = first + half * 8;
            if (row >= p.n || q >= p.batch) continue;
            const int* of = c + 8 * i + 2 * half;
            const int64_t dot = joined_digits(of[0], of[1], of[4], of[5]) - query.offset;
            double l = (query.step * double(dot) - p.half_norm[row]) * query.inv_sigma2;
            if (p.bias) l += p.bias[q * p.bias_stride + row];
            if (!sees(p, q, row)) l = -INFINITY;
            a.work.logits[q * a.layout.stride + row] = l;
            top = fmax(top, l);
        }
        for (int width = 4; width < 32; width *= 2) top = fmax(top, __shfl_xor_sync(kWholeWarp, top, width));
        if (g == 0 && top > kNothing) atomicMax(a.work.top + q, ordered(__double_as_longlong(top)));
    }
}

template <int Q>
__global__ void __launch_bounds__(kDenseThreads, 1) logits_kernel(const __grid_constant__ Dense a) {
    Ring<Q> ring(shared_memory());
    const int warp = threadIdx.x / 32, rank = cluster_rank();
    const int64_t pairs = (a.layout.row_tiles + kPair - 1) / kPair, items = pairs * a.layout.groups;
    if (warp >= kConsumers / 32) {
        fewer_registers<kCopying>();
        if (threadIdx.x == kConsumers)
            for (int64_t item = blockIdx.x / kPair; item < items; item += a.layout.clusters) {
                const int64_t group = item % a.layout.groups, tile = item / a.layout.groups * kPair + rank;
                const uint8_t* digits = a.work.digits + group * a.layout.column_tiles * Group<Q>::digit_bytes;
                for (int64_t k = 0; k < a.layout.column_tiles; ++k)
                    ring.fill(&a.rows, int(k * kTile), int(a.begin + tile * kTile), digits + k * Group<Q>::digit_bytes);
            }
    } else {
        more_registers<kMultiplying>();
        const int64_t half = warp / 4 * 64 * kTile;  // rows of this warpgroup
        for (int64_t item = blockIdx.x / kPair; item < items; item += a.layout.clusters) {
            const int64_t group = item % a.layout.groups, tile = item / a.layout.groups * kPair + rank;
            int c[2 * Q];
            for (int64_t k = 0; k < a.layout.column_tiles; ++k) {
                ring.take();
                products_begin();
#pragma unroll
                for (int step = 0; step < 4; ++step)
                    product(c, ring.rows() + half, step * 32, ring.digits(), step * 32, k > 0 || step > 0);
                products_end();
                products_wait<1>();
                if (k > 0) ring.release_last();
                ring.advance();
            }
            products_wait<0>();
            settled(c);
            ring.release_last();
            if (tile < a.layout.row_tiles) keep<Q>(a, group, tile, c, warp);
            if (tile < a.layout.row_tiles && threadIdx.x == 0) a.work.active[group * a.layout.row_tiles + tile] = 0;
        }
    }
    __syncwarp();
    cluster_sync();  // no block leaves while the other still copies into it
}

}  // namespace

int dense_resident(const Machine& machine, int group) {
    return group == 64 ? resident_clusters(machine, logits_kernel<64>, kPair, kDenseThreads, Group<64>::shared)
                       : resident_clusters(machine, logits_kernel<16>, kPair, kDenseThreads, Group<16>::shared);
}

void dense_logits(const Dense& dense, uintptr_t stream) {
    launch_clusters("dense_logits", logits_kernel<16>, logits_kernel<64>, dense, stream);
}

}  // namespace geodiff::cuda
