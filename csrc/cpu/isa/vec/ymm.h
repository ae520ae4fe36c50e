// A register of 32 bytes as integer products take it, whatever its numbers are; zmm.h has the same of 64.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "first_32.h"
#include "macros.h"

namespace {

// BASE: how much more a digit is worth than the next.
template <int BASE>
struct Ymm {
    typedef __m256i Vec;
    static constexpr int bytes = 32;

    static GEODIFF_INLINE Vec zero() { return _mm256_setzero_si256(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm256_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm256_loadu_si256((const Vec*)p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm256_storeu_si256((Vec*)p, v); }
    // The first n of 32 bytes, zero from there on and never read
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) { return first_32(p, n); }
    // 16 bytes as numbers of 16 bits
    static GEODIFF_INLINE Vec widen(const uint8_t* p) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    }

    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return _mm256_add_epi32(a, b); }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return _mm256_slli_epi32(a, 15); }
    static GEODIFF_INLINE Vec products_of_pairs(Vec a, Vec b) { return _mm256_madd_epi16(a, b); }
    // u8 a times s8 b, two products to a number of 16 bits, which saturate
    static GEODIFF_INLINE Vec products_of_bytes(Vec a, Vec b) { return _mm256_maddubs_epi16(a, b); }
    static GEODIFF_INLINE Vec set1_16(int16_t v) { return _mm256_set1_epi16(v); }
    // u8 <-> s8
    static GEODIFF_INLINE Vec centred(Vec v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
    // Of numbers of 16 bits, one byte each
    static GEODIFF_INLINE Vec low_bytes(Vec v) { return _mm256_and_si256(v, _mm256_set1_epi16(0xff)); }
    static GEODIFF_INLINE Vec high_bytes(Vec v) { return _mm256_srli_epi16(v, 8); }
    // Bytes of a and b by turns, or words, of the first or the last half of each 128 bits
    static GEODIFF_INLINE Vec first_8(Vec a, Vec b) { return _mm256_unpacklo_epi8(a, b); }
    static GEODIFF_INLINE Vec last_8(Vec a, Vec b) { return _mm256_unpackhi_epi8(a, b); }
    static GEODIFF_INLINE Vec first_16(Vec a, Vec b) { return _mm256_unpacklo_epi16(a, b); }
    static GEODIFF_INLINE Vec last_16(Vec a, Vec b) { return _mm256_unpackhi_epi16(a, b); }

    // a[0..8) = rescale a + quantum (d[0] BASE^(parts-1) + ... + d[parts-1]), each d[j] a register of dwords
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m256 total = _mm256_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm256_fmadd_ps(total, _mm256_set1_ps(float(BASE)), _mm256_cvtepi32_ps(d[j * stride]));
        const __m256 old = _mm256_mul_ps(_mm256_set1_ps(rescale), _mm256_loadu_ps(a));
        _mm256_storeu_ps(a, _mm256_fmadd_ps(_mm256_set1_ps(quantum), total, old));
    }
};

}  // namespace
