// AVX2 + FMA + F16C: 16 registers of 8 floats, 12 of them accumulators.
#pragma once

#include <immintrin.h>

namespace {

struct Shape {
    static constexpr int bytes = 32, accumulators = 12, dot_vectors = 2, sum_queries = 6, sum_vectors = 2, few_rows = 2;
};

}  // namespace

#define GEODIFF_OWN_DOUBLES  // GCC 12 converts in two halves
#include "floats.h"

namespace {

inline VecD as_doubles(HalfF v) { return VecD(_mm256_cvtps_pd(__m128(v))); }
inline VecD as_doubles(HalfI v) { return VecD(_mm256_cvtepi32_pd(__m128i(v))); }

inline VecF widen_u8(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64((const __m128i*)p);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(128)));
}

inline VecF widen_f16(const uint16_t* p) { return _mm256_cvtph_ps(load<__m128i>(p)); }

inline VecF widen_bf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(p)), 16));
}

inline VecF larger(VecF a, VecF b) { return _mm256_max_ps(a, b); }
inline VecD larger(VecD a, VecD b) { return _mm256_max_pd(a, b); }
// Whether a > b anywhere
inline bool any_above(VecF a, VecF b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
inline bool any_above(VecD a, VecD b) { return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)) != 0; }

}  // namespace
