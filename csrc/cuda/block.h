// Reductions over a block, every thread getting the same bits.
#pragma once

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

// `scratch`: kWarps doubles of shared memory.
__device__ inline double block_sum(double v, double* scratch) {
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < kWarps; ++w) v += scratch[w];
    return v;
}

__device__ inline double block_max(double v, double* scratch) {
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) v = scratch[w] > v ? scratch[w] : v;
    return v;
}

}  // namespace geodiff::cuda
