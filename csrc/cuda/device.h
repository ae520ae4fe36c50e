// The seam between the kernels and the machine: what of CUDA they use, and nothing else. The tests replace it by an
// emulator (tests/cuda/emulator.h), so that every kernel also runs on a machine without a GPU.
#pragma once

#ifdef GEODIFF_CUDA_EMULATED
#include "emulator.h"
#else
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace geodiff::cuda {

__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<unsigned char*>(memory);
}

// Clusters exist from sm_90 on; elsewhere every cluster is one block.
__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
    return int(__clusterRelativeBlockRank());
#else
    return 0;
#endif
}

__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    __cluster_barrier_arrive();
    __cluster_barrier_wait();
#else
    __syncthreads();
#endif
}

// The same place in the shared memory of block `rank` of this cluster.
template <class T>
__device__ __forceinline__ const T* of_peer(const T* mine, int rank) {
#if __CUDA_ARCH__ >= 900
    return static_cast<const T*>(__cluster_map_shared_rank(mine, unsigned(rank)));
#else
    return mine;
#endif
}

// c[16 x 8] += a[16 x 32] b[32 x 8] on bytes, exact. With g = lane / 4, t = lane % 4: a holds rows g and g + 8, columns
// 4t.. and 16 + 4t..; b rows 4t.. and 16 + 4t.. of column g; c rows g, g, g + 8, g + 8 of columns 2t, 2t + 1.
#define GEODIFF_MMA(name, types)                                                                  \
    __device__ __forceinline__ void name(int (&c)[4], const uint4& a, unsigned b0, unsigned b1) { \
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." types                               \
                     ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                 \
                     : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                             \
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));                 \
    }
GEODIFF_MMA(mma_s8_u8, "s8.u8")
GEODIFF_MMA(mma_u8, "u8.u8")
#undef GEODIFF_MMA

// Four matrices of 8 rows of 16 bytes from shared memory; lane 8 i + r gives the address of row r of matrix i. Word i
// of a lane: bytes 4 t .. of row g of matrix i. Turned, two bytes at a time: bytes 2 g and 2 g + 1 of row 2 t, then of
// row 2 t + 1.
#define GEODIFF_LOAD(name, turned)                                                             \
    __device__ __forceinline__ uint4 name(const uint8_t* row) {                                \
        uint4 out;                                                                             \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" turned ".shared.b16 {%0,%1,%2,%3}, [%4];" \
                     : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)                      \
                     : "r"(unsigned(__cvta_generic_to_shared(row)))                            \
                     : "memory");                                                              \
        return out;                                                                            \
    }
GEODIFF_LOAD(load_matrices, "")
GEODIFF_LOAD(load_turned, ".trans")
#undef GEODIFF_LOAD

// sum += a b. With the carry by name: sums of two mad.wide would be turned into additions of products, two more each.
__device__ __forceinline__ void add_product(unsigned long long& sum, unsigned a, unsigned b) {
    asm("{\n.reg .u32 low, high;\nmov.b64 {low, high}, %0;\nmad.lo.cc.u32 low, %1, %2, low;\n"
        "madc.hi.u32 high, %1, %2, high;\nmov.b64 %0, {low, high};\n}"
        : "+l"(sum)
        : "r"(a), "r"(b));
}

}  // namespace geodiff::cuda
#endif

namespace geodiff::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

// Butterflies: every lane gets the same bits.
__device__ __forceinline__ double warp_sum(double v) {
    for (int width = 16; width > 0; width /= 2) v += __shfl_xor_sync(kWholeWarp, v, width);
    return v;
}

__device__ __forceinline__ double warp_max(double v) {
    for (int width = 16; width > 0; width /= 2) {
        const double other = __shfl_xor_sync(kWholeWarp, v, width);
        v = other > v ? other : v;
    }
    return v;
}

}  // namespace geodiff::cuda
