// AVX-512 F/BW/DQ/VL: 32 registers of 16 floats, 24 of them accumulators.
#pragma once

// GCC 12 warns about its own AVX-512 headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

namespace {

struct Shape {
    static constexpr int bytes = 64, accumulators = 24, dot_vectors = 3, sum_queries = 6, sum_vectors = 4, few_rows = 4;
};

}  // namespace

#define GEODIFF_OWN_DOUBLES  // GCC 12 converts in two halves
#include "floats.h"

namespace {

inline VecD as_doubles(HalfF v) { return VecD(_mm512_cvtps_pd(__m256(v))); }
inline VecD as_doubles(HalfI v) { return VecD(_mm512_cvtepi32_pd(__m256i(v))); }

inline VecF widen_u8(const uint8_t* p) {
    const __m128i bytes = load<__m128i>(p);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(128)));
}

inline VecF widen_f16(const uint16_t* p) { return _mm512_cvtph_ps(load<__m256i>(p)); }

inline VecF widen_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load<__m256i>(p)), 16));
}

template <>
constexpr bool kShifts<VecF> = true;
template <>
constexpr bool kShifts<VecD> = true;
inline VecF shifted(VecF a, VecF b, VecI first) { return _mm512_permutex2var_ps(a, (__m512i)first, b); }
inline VecD shifted(VecD a, VecD b, VecL first) { return _mm512_permutex2var_pd(a, (__m512i)first, b); }

inline VecF larger(VecF a, VecF b) { return _mm512_max_ps(a, b); }
inline VecD larger(VecD a, VecD b) { return _mm512_max_pd(a, b); }
// Whether a > b anywhere
inline bool any_above(VecF a, VecF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
inline bool any_above(VecD a, VecD b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ) != 0; }

}  // namespace
