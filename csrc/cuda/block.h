// Reductions over a block, every thread getting the same bits.
#pragma once

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

// `scratch`: one double of shared memory per warp.
template <int Warps = kWarps>
__device__ inline double block_sum(double v, double* scratch) {
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < Warps; ++w) v += scratch[w];
    return v;
}

template <int Warps = kWarps>
__device__ inline double block_max(double v, double* scratch) {
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < Warps; ++w) v = scratch[w] > v ? scratch[w] : v;
    return v;
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
