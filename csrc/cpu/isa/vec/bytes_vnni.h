// 64 bytes to a register, and VNNI's product of u8 by s8.
#pragma once

#include "bytes_x86.h"
#include "zmm.h"

namespace {

struct BytesVnni : BytesX86<Zmm<256>, false> {
    static constexpr int registers = 32, sums_held = 24;
    static constexpr int dot_group = 8;                    // query digits of a block of the first product
    static constexpr int sum_group = 12, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 4;                  // registers of columns for one or two queries alone
    static constexpr bool free_masks = true;               // to load under a mask costs no more

    // out[0..8) = the sums of the dwords of 8 registers. 26 instructions instead of 8 x 8.
    static GEODIFF_INLINE void sums(const Vec* a, int32_t* out) {
        Vec b[4], c[2];
        for (int i = 0; i < 4; ++i)
            b[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                                    _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
        for (int i = 0; i < 2; ++i)
            c[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(b[2 * i], b[2 * i + 1]),
                                    _mm512_unpackhi_epi64(b[2 * i], b[2 * i + 1]));
        // c[i] holds in each 128-bit lane the partial sums of four registers, in order.
        const Vec lo = _mm512_shuffle_i64x2(c[0], c[1], 0x44), hi = _mm512_shuffle_i64x2(c[0], c[1], 0xee);
        const Vec s = _mm512_add_epi32(lo, hi);  // lanes: c0, c0, c1, c1
        const Vec t = _mm512_add_epi32(s, _mm512_shuffle_i64x2(s, s, 0xb1));
        _mm256_storeu_si256((__m256i*)out, _mm512_castsi512_si256(_mm512_shuffle_i64x2(t, t, 0x08)));
    }
};

}  // namespace
