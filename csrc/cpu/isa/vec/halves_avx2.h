// 16 numbers of 16 bits to a register, and the product of pairs.
#pragma once

#include "halves_x86.h"
#include "ymm.h"

namespace {

struct HalvesAvx2 : HalvesX86<Ymm<65536>> {
    static constexpr int registers = 16;
    static constexpr int sums = 8;                        // of a block: with more, GCC 12 spills
    static constexpr int dot_group = 4;                   // query digits of a block of the first product
    static constexpr int sum_group = 4, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int dot_to = 16, sum_to = 2;         // measured: csrc/cpu/SPEED.md, "AVX2"

    // out[0..4) = the sums of the dwords of four registers, exactly
    static GEODIFF_INLINE void sums4(const Vec* a, double* out) {
        __m256d b[4];
        for (int i = 0; i < 4; ++i)
            b[i] = _mm256_add_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(a[i])),
                                 _mm256_cvtepi32_pd(_mm256_extracti128_si256(a[i], 1)));
        const __m256d c = _mm256_hadd_pd(b[0], b[1]), d = _mm256_hadd_pd(b[2], b[3]);
        const __m256d lo = _mm256_permute2f128_pd(c, d, 0x20), hi = _mm256_permute2f128_pd(c, d, 0x31);
        _mm256_storeu_pd(out, _mm256_add_pd(lo, hi));
    }
};

}  // namespace
