// 32 numbers of 16 bits to a register, and the product of pairs.
#pragma once

#include "halves_x86.h"
#include "zmm.h"

namespace {

struct HalvesAvx512 : HalvesX86<Zmm<65536>> {
    static constexpr int registers = 32;
    static constexpr int sums = 24;                       // of a block
    static constexpr int dot_group = 8;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 4;  // weight digits and registers of columns of the second's
    static constexpr int dot_to = 31, sum_to = 1;         // measured: csrc/cpu/isa/README.md

    // out[0..4) = the sums of the dwords of four registers, exactly
    static GEODIFF_INLINE void sums4(const Vec* a, double* out) {
        __m512d b[4], c[2];
        for (int i = 0; i < 4; ++i)
            b[i] = _mm512_add_pd(_mm512_cvtepi32_pd(_mm512_castsi512_si256(a[i])),
                                 _mm512_cvtepi32_pd(_mm512_extracti64x4_epi64(a[i], 1)));
        for (int i = 0; i < 2; ++i)
            c[i] =
                _mm512_add_pd(_mm512_unpacklo_pd(b[2 * i], b[2 * i + 1]), _mm512_unpackhi_pd(b[2 * i], b[2 * i + 1]));
        // Each 128-bit lane of c[i] holds sums of two registers; then lanes c0, c0, c1, c1, of which both are added.
        const __m512d s = _mm512_add_pd(_mm512_shuffle_f64x2(c[0], c[1], 0x44), _mm512_shuffle_f64x2(c[0], c[1], 0xee));
        const __m512d t = _mm512_add_pd(s, _mm512_shuffle_f64x2(s, s, 0xb1));
        _mm256_storeu_pd(out, _mm512_castpd512_pd256(_mm512_shuffle_f64x2(t, t, 0x08)));
    }
};

}  // namespace
