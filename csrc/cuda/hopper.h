// What sm_90a has beyond the rest: barriers that count bytes, copies by the memory engine, products of a warpgroup. The
// tests replace it by an emulator (tests/cuda/emulated_hopper.h).
//
// Tiles in shared memory are rows of 128 bytes that start at a multiple of 1024, and the 16-byte pieces of a row are
// swapped about by the row's number (`swizzled`): then neither the columns nor the rows of a tile meet in a bank. It
// is the layout that the memory engine writes and the tensor cores read as "128-byte swizzle".
#pragma once

#include <cstdint>

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

// Where byte `k` < 128 of row `row` lies in a tile.
__host__ __device__ inline int swizzled(int row, int k) { return row * kTile + ((k / 16) ^ (row % 8)) * 16 + k % 16; }

}  // namespace geodiff::cuda

#ifdef GEODIFF_CUDA_EMULATED
#include "emulated_hopper.h"
#else
namespace geodiff::cuda {

struct Barrier {
    uint64_t state;
};

__device__ __forceinline__ unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// `count` arrivals, and all bytes that were announced, end a phase.
__device__ __forceinline__ void init(Barrier* b, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count) : "memory");
}

// Makes new barriers seen by the memory engine and by the other blocks of the cluster, which must then be waited for.
__device__ __forceinline__ void fence_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
}

// Arrives, and announces bytes that copies will bring.
__device__ __forceinline__ void arrive_expecting(Barrier* b, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}

// That of a cluster would be a fence of the whole GPU, and empty the cache, per stage; what passes between blocks is
// bytes that the memory engine brings, which the barrier counts.
// Arrives at the same barrier of block `rank` of this cluster.
__device__ __forceinline__ void arrive_at(Barrier* b, int rank) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(b)),
        "r"(rank)
        : "memory");
}

// Arrives, at a barrier of this block.
__device__ __forceinline__ void arrive(Barrier* b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

// 16 bytes to the same place of block `rank` of this cluster; the same barrier there counts them.
__device__ __forceinline__ void send(void* to, const uint4& v, Barrier* b, int rank) {
    asm volatile(
        "{\n.reg .b32 there, counts;\nmapa.shared::cluster.u32 there, %0, %6;\n"
        "mapa.shared::cluster.u32 counts, %1, %6;\n"
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [there], {%2, %3, %4, %5}, [counts];\n}" ::
            "r"(shared_address(to)),
        "r"(shared_address(b)), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(rank)
        : "memory");
}

// What this thread has seen in shared memory is seen by the products it begins, too.
__device__ __forceinline__ void fence_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Waits for the end of the phase of this parity; phases are numbered from 0.
__device__ __forceinline__ void wait(Barrier* b, unsigned parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra again;\nover:\n}" ::"r"(
            shared_address(b)),
        "r"(parity)
        : "memory");
}

// The tile at byte `column` of row `row`, swizzled; what lies outside the matrix is zeros.
__device__ __forceinline__ void copy_tile(uint8_t* to, const TensorMap* from, int column, int row, Barrier* b) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            shared_address(to)),
        "l"(from), "r"(column), "r"(row), "r"(shared_address(b))
        : "memory");
}

// `bytes` from global memory.
__device__ __forceinline__ void copy_bytes(uint8_t* to, const uint8_t* from, unsigned bytes, Barrier* b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

// `bytes` from global memory to the same place of both blocks of a cluster, and to the same barrier.
__device__ __forceinline__ void copy_to_both(uint8_t* to, const uint8_t* from, unsigned bytes, Barrier* b) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], "
        "%4;" ::"r"(shared_address(to)),
        "l"(from), "r"(bytes), "r"(shared_address(b)), "h"(uint16_t(3))
        : "memory");
}

// How many registers each thread of this warpgroup has from here on: those that copy leave theirs to those that
// multiply.
template <int Count>
__device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

// Before products that read registers which other instructions wrote.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits for all groups but the last `Left`.
template <int Left>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}

// Keeps reads of the sums behind the wait for them, which the compiler does not know to belong together.
template <int M>
__device__ __forceinline__ void settled(int (&c)[M]) {
#pragma unroll
    for (int i = 0; i < M; ++i) asm volatile("" : "+r"(c[i])::"memory");
}

// How the tensor cores find 32 bytes of every row of a swizzled tile: eight rows make 1024 bytes.
__device__ __forceinline__ uint64_t descriptor(const uint8_t* tile, int first_byte) {
    return uint64_t((shared_address(tile) + unsigned(first_byte)) >> 4 & 0x3fff) | 1ull << 16 |
           uint64_t(1024 >> 4) << 32 | 1ull << 62;
}

// The numbers of the first operands of an instruction, and the sums c that they are.
#define GEODIFF_NUMBERS_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define GEODIFF_NUMBERS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define GEODIFF_NUMBERS_32 \
    GEODIFF_NUMBERS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GEODIFF_NUMBERS_48 \
    GEODIFF_NUMBERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define GEODIFF_NUMBERS_64 \
    GEODIFF_NUMBERS_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GEODIFF_NUMBERS_80 \
    GEODIFF_NUMBERS_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define GEODIFF_NUMBERS_96 \
    GEODIFF_NUMBERS_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define GEODIFF_NUMBERS_112 \
    GEODIFF_NUMBERS_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define GEODIFF_NUMBERS_128 \
    GEODIFF_NUMBERS_112     \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define GEODIFF_SUMS_8 "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]), "+r"(c[4]), "+r"(c[5]), "+r"(c[6]), "+r"(c[7])
#define GEODIFF_SUMS_16                                                                                         \
    "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]), "+r"(c[4]), "+r"(c[5]), "+r"(c[6]), "+r"(c[7]), "+r"(c[8]), \
        "+r"(c[9]), "+r"(c[10]), "+r"(c[11]), "+r"(c[12]), "+r"(c[13]), "+r"(c[14]), "+r"(c[15])
#define GEODIFF_SUMS_32                                                                                         \
    GEODIFF_SUMS_16, "+r"(c[16]), "+r"(c[17]), "+r"(c[18]), "+r"(c[19]), "+r"(c[20]), "+r"(c[21]), "+r"(c[22]), \
        "+r"(c[23]), "+r"(c[24]), "+r"(c[25]), "+r"(c[26]), "+r"(c[27]), "+r"(c[28]), "+r"(c[29]), "+r"(c[30]), \
        "+r"(c[31])
#define GEODIFF_SUMS_48                                                                                         \
    GEODIFF_SUMS_32, "+r"(c[32]), "+r"(c[33]), "+r"(c[34]), "+r"(c[35]), "+r"(c[36]), "+r"(c[37]), "+r"(c[38]), \
        "+r"(c[39]), "+r"(c[40]), "+r"(c[41]), "+r"(c[42]), "+r"(c[43]), "+r"(c[44]), "+r"(c[45]), "+r"(c[46]), \
        "+r"(c[47])
#define GEODIFF_SUMS_64                                                                                         \
    GEODIFF_SUMS_48, "+r"(c[48]), "+r"(c[49]), "+r"(c[50]), "+r"(c[51]), "+r"(c[52]), "+r"(c[53]), "+r"(c[54]), \
        "+r"(c[55]), "+r"(c[56]), "+r"(c[57]), "+r"(c[58]), "+r"(c[59]), "+r"(c[60]), "+r"(c[61]), "+r"(c[62]), \
        "+r"(c[63])
#define GEODIFF_SUMS_80                                                                                         \
    GEODIFF_SUMS_64, "+r"(c[64]), "+r"(c[65]), "+r"(c[66]), "+r"(c[67]), "+r"(c[68]), "+r"(c[69]), "+r"(c[70]), \
        "+r"(c[71]), "+r"(c[72]), "+r"(c[73]), "+r"(c[74]), "+r"(c[75]), "+r"(c[76]), "+r"(c[77]), "+r"(c[78]), \
        "+r"(c[79])
#define GEODIFF_SUMS_96                                                                                         \
    GEODIFF_SUMS_80, "+r"(c[80]), "+r"(c[81]), "+r"(c[82]), "+r"(c[83]), "+r"(c[84]), "+r"(c[85]), "+r"(c[86]), \
        "+r"(c[87]), "+r"(c[88]), "+r"(c[89]), "+r"(c[90]), "+r"(c[91]), "+r"(c[92]), "+r"(c[93]), "+r"(c[94]), \
        "+r"(c[95])
#define GEODIFF_SUMS_112                                                                                           \
    GEODIFF_SUMS_96, "+r"(c[96]), "+r"(c[97]), "+r"(c[98]), "+r"(c[99]), "+r"(c[100]), "+r"(c[101]), "+r"(c[102]), \
        "+r"(c[103]), "+r"(c[104]), "+r"(c[105]), "+r"(c[106]), "+r"(c[107]), "+r"(c[108]), "+r"(c[109]),          \
        "+r"(c[110]), "+r"(c[111])
#define GEODIFF_SUMS_128                                                                                  \
    GEODIFF_SUMS_112, "+r"(c[112]), "+r"(c[113]), "+r"(c[114]), "+r"(c[115]), "+r"(c[116]), "+r"(c[117]), \
        "+r"(c[118]), "+r"(c[119]), "+r"(c[120]), "+r"(c[121]), "+r"(c[122]), "+r"(c[123]), "+r"(c[124]), \
        "+r"(c[125]), "+r"(c[126]), "+r"(c[127])

// c[64 x N] += or = a[64 x 32] b[32 x N] for a warpgroup. Warp w of it has rows 16 w .. of c; with g = lane / 4,
// t = lane % 4, number 4 j + i of a thread is row g + i / 2 * 8 of them and column 8 j + 2 t + i % 2. b: N rows of 32
// bytes of a tile, from byte `kb`.
// a: unsigned, 64 rows of a tile from byte `ka`; b: signed. The last three are the numbers of a, b and `add`.
#define GEODIFF_PRODUCT(numbers, columns, at_a, at_b, at_add)                                                       \
    __device__ __forceinline__ void product(int (&c)[numbers], const uint8_t* a, int ka, const uint8_t* b, int kb,  \
                                            int add) {                                                              \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #at_add                                               \
                     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k32.s32.u8.s8 {" GEODIFF_NUMBERS_##numbers \
                     "}, %" #at_a ", %" #at_b ", add;\n}"                                                           \
                     : GEODIFF_SUMS_##numbers                                                                       \
                     : "l"(descriptor(a, ka)), "l"(descriptor(b, kb)), "r"(add));                                   \
    }
GEODIFF_PRODUCT(8, 16, 8, 9, 10)
GEODIFF_PRODUCT(16, 32, 16, 17, 18)
GEODIFF_PRODUCT(32, 64, 32, 33, 34)
GEODIFF_PRODUCT(128, 256, 128, 129, 130)
#undef GEODIFF_PRODUCT

// a: in registers, row g at bytes 4 t .., row g + 8 there, both again at 16 + 4 t ..; b: unsigned. The last are the
// numbers of a's words, of b and of `add`, which is 1.
#define GEODIFF_PRODUCT(name, types, numbers, columns, a0, a1, a2, a3, at_b, at_add)                                   \
    __device__ __forceinline__ void name(int (&c)[numbers], const uint4& a, const uint8_t* b, int kb) {                \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %" #at_add                                                  \
                     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns "k32.s32." types                               \
                     " {" GEODIFF_NUMBERS_##numbers "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #at_b ", add;\n}" \
                     : GEODIFF_SUMS_##numbers                                                                          \
                     : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(descriptor(b, kb)), "r"(1));                        \
    }
GEODIFF_PRODUCT(product, "s8.u8", 16, 32, 16, 17, 18, 19, 20, 21)
GEODIFF_PRODUCT(product, "s8.u8", 64, 128, 64, 65, 66, 67, 68, 69)
// With a unsigned, too, sums of 2^16 products are below 2^32, and are to be read so.
GEODIFF_PRODUCT(product_of_bytes, "u8.u8", 8, 16, 8, 9, 10, 11, 12, 13)
GEODIFF_PRODUCT(product_of_bytes, "u8.u8", 16, 32, 16, 17, 18, 19, 20, 21)
GEODIFF_PRODUCT(product_of_bytes, "u8.u8", 32, 64, 32, 33, 34, 35, 36, 37)
#undef GEODIFF_PRODUCT

#undef GEODIFF_NUMBERS_8
#undef GEODIFF_NUMBERS_16
#undef GEODIFF_NUMBERS_32
#undef GEODIFF_NUMBERS_48
#undef GEODIFF_NUMBERS_64
#undef GEODIFF_NUMBERS_80
#undef GEODIFF_NUMBERS_96
#undef GEODIFF_NUMBERS_112
#undef GEODIFF_NUMBERS_128
#undef GEODIFF_SUMS_8
#undef GEODIFF_SUMS_16
#undef GEODIFF_SUMS_32
#undef GEODIFF_SUMS_48
#undef GEODIFF_SUMS_64
#undef GEODIFF_SUMS_80
#undef GEODIFF_SUMS_96
#undef GEODIFF_SUMS_112
#undef GEODIFF_SUMS_128

}  // namespace geodiff::cuda
#endif
