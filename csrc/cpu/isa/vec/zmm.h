// A register of 64 bytes: the operations of ymm.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "macros.h"

namespace {

template <int BASE>
struct Zmm {
    typedef __m512i Vec;
    static constexpr int bytes = 64;

    static GEODIFF_INLINE Vec zero() { return _mm512_setzero_si512(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm512_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm512_loadu_si512(p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm512_storeu_si512(p, v); }
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {  // n >= 1
        return _mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : ~0ull >> (64 - n), p);
    }
    static GEODIFF_INLINE Vec widen(const uint8_t* p) {
        return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
    }

    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return _mm512_add_epi32(a, b); }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return _mm512_slli_epi32(a, 15); }
    static GEODIFF_INLINE Vec products_of_pairs(Vec a, Vec b) { return _mm512_madd_epi16(a, b); }
    static GEODIFF_INLINE Vec products_of_bytes(Vec a, Vec b) { return _mm512_maddubs_epi16(a, b); }
    static GEODIFF_INLINE Vec set1_16(int16_t v) { return _mm512_set1_epi16(v); }
    static GEODIFF_INLINE Vec centred(Vec v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
    static GEODIFF_INLINE Vec low_bytes(Vec v) { return _mm512_and_si512(v, _mm512_set1_epi16(0xff)); }
    static GEODIFF_INLINE Vec high_bytes(Vec v) { return _mm512_srli_epi16(v, 8); }
    static GEODIFF_INLINE Vec first_8(Vec a, Vec b) { return _mm512_unpacklo_epi8(a, b); }
    static GEODIFF_INLINE Vec last_8(Vec a, Vec b) { return _mm512_unpackhi_epi8(a, b); }
    static GEODIFF_INLINE Vec first_16(Vec a, Vec b) { return _mm512_unpacklo_epi16(a, b); }
    static GEODIFF_INLINE Vec last_16(Vec a, Vec b) { return _mm512_unpackhi_epi16(a, b); }

    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m512 total = _mm512_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm512_fmadd_ps(total, _mm512_set1_ps(float(BASE)), _mm512_cvtepi32_ps(d[j * stride]));
        const __m512 old = _mm512_mul_ps(_mm512_set1_ps(rescale), _mm512_loadu_ps(a));
        _mm512_storeu_ps(a, _mm512_fmadd_ps(_mm512_set1_ps(quantum), total, old));
    }
};

}  // namespace
