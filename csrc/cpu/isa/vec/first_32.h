// first_bytes for a register of 32 bytes, which AVX2 cannot load under a mask of bytes.
#pragma once

#include <immintrin.h>

#include "first_bytes.h"

namespace {

GEODIFF_INLINE __m128i first_16(const uint8_t* p, int64_t n) {
    if (n >= 16) return _mm_loadu_si128((const __m128i*)p);
    if (n <= 0) return _mm_setzero_si128();
    return _mm_set_epi64x(int64_t(first_bytes(p + 8, n - 8)), int64_t(first_bytes(p, n)));
}

GEODIFF_INLINE __m256i first_32(const uint8_t* p, int64_t n) {
    return _mm256_set_m128i(first_16(p + 16, n - 16), first_16(p, n));
}

}  // namespace
