// 32 bytes to a register and 16 registers: the product of u8 by s8 with 256-bit vectors.
#pragma once

#include "bytes_x86.h"
#include "ymm.h"

namespace {

template <bool VEX>
struct BytesYmm : BytesX86<Ymm<256>, VEX> {
    typedef __m256i Vec;
    static constexpr int registers = 16, sums_held = 12;
    static constexpr int dot_group = 4;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 2;                 // registers of columns for one or two queries alone
    static constexpr bool free_masks = false;

    // out[0..4) = the sums of the dwords of four registers
    static GEODIFF_INLINE void sums(const Vec* a, int32_t* out) {
        const Vec b = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
        _mm_storeu_si128((__m128i*)out, _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
    }
};

}  // namespace
