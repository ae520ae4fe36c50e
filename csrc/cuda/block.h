// Reductions over a block, every thread getting the same bits.
#pragma once

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

// What `join` makes of `v`, which all lanes of a warp have alike, over the warps in their order. `scratch`: one double
// of shared memory per warp.
template <int Warps, class Join>
__device__ inline double over_warps(double v, double* scratch, Join join) {
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = scratch[0];
    for (int w = 1; w < Warps; ++w) v = join(v, scratch[w]);
    return v;
}

template <int Warps = kWarps>
__device__ inline double block_sum(double v, double* scratch) {
    return over_warps<Warps>(warp_sum(v), scratch, [](double a, double b) { return a + b; });
}

// The largest, in whatever order.
template <int Warps = kWarps>
__device__ inline double block_max(double v, double* scratch) {
    static_assert(Warps <= 32);
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    return warp_max(scratch[threadIdx.x % Warps]);
}

// The same for several at once, `Count` <= `Warps`. `scratch`: Count (Warps + 1) doubles.
template <int Warps, int Count>
__device__ inline void block_sums(double (&v)[Count], double* scratch) {
    static_assert(Count <= Warps && Warps <= 32);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (double& one : v) one = warp_sum(one);
    __syncthreads();
    if (lane == 0)
        for (int i = 0; i < Count; ++i) scratch[i * Warps + warp] = v[i];
    __syncthreads();
    if (warp < Count) {
        const double sum = warp_sum(lane < Warps ? scratch[warp * Warps + lane] : 0);
        if (lane == 0) scratch[Count * Warps + warp] = sum;
    }
    __syncthreads();
    for (int i = 0; i < Count; ++i) v[i] = scratch[Count * Warps + i];
}

}  // namespace geodiff::cuda
