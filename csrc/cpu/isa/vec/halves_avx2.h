// 16 numbers of 16 bits to a register, and the product of pairs: what loops/half_products.h is written in.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "constants.h"
#include "first_32.h"
#include "macros.h"

namespace {

struct HalvesAvx2 {
    typedef __m256i Vec;
    static constexpr int bytes = 32, columns = 16, registers = 16;
    static constexpr int sums = 8;                        // of a block: with more, GCC 12 spills
    static constexpr int dot_group = 4;                   // query digits of a block of the first product
    static constexpr int sum_group = 4, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int dot_to = 16, sum_to = 2;         // measured: ../../README.md

    static GEODIFF_INLINE Vec zero() { return _mm256_setzero_si256(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm256_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm256_loadu_si256((const Vec*)p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm256_storeu_si256((Vec*)p, v); }
    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return _mm256_add_epi32(a, b); }
    static GEODIFF_INLINE Vec add_halves(Vec a, Vec b) { return _mm256_add_epi16(a, b); }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return _mm256_slli_epi32(a, 15); }

    // The first n of 32 bytes, zero from there on
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) { return first_32(p, n); }
    // 16 bytes as numbers of 16 bits
    static GEODIFF_INLINE Vec widen(const uint8_t* p) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
    }

    // acc += x . y, two products to a dword, modulo 2^32. Assembly keeps the sum where it is: GCC 12 moves sums from
    // register to register, and spills from 8 of them on.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        const Vec both = _mm256_madd_epi16(x, y);
        asm("vpaddd %1, %0, %0" : "+x"(acc) : "x"(both));
    }

    // Query digits, loaded once for all rows of a block: as the memory operand of each product, which is one
    // instruction less, loads rather than products set the pace (measured: ../../README.md).
    static GEODIFF_INLINE Vec digits(const void* p) {
        Vec loaded = load(p);
        asm("" : "+x"(loaded));
        return loaded;
    }

    // Two numbers of 16 bits, repeated in every dword
    static GEODIFF_INLINE Vec broadcast2(const int16_t* two) {
        int32_t both;
        std::memcpy(&both, two, 4);
        return _mm256_set1_epi32(both);
    }

    // f(s, digits) for every slot s of two digits at p, spread as `weigh` takes them
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int16_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA { f(s, broadcast2(p + 2 * s)); });
    }
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) { dot(acc, rows, digits); }

    // Two rows of 32 bytes -> two of the four registers whose dwords hold one column of both rows each: 0 and 1, or 2
    // and
    // 3. unpack joins words, of two columns, so that the low bytes are the even columns and the high bytes the odd
    // ones.
    template <int FIRST>
    static GEODIFF_INLINE void pairs(Vec a, Vec b, Vec* out) {
        const Vec both = FIRST == 0 ? _mm256_unpacklo_epi16(a, b) : _mm256_unpackhi_epi16(a, b);
        out[0] = _mm256_and_si256(both, _mm256_set1_epi16(0xff));
        out[1] = _mm256_srli_epi16(both, 8);
    }
    // Slot = dword (4 lane + i) of register j
    static int column_of_slot(int slot) {
        const int j = slot / 8 % 4, lane = slot / 4 % 2, i = slot % 4;
        return slot / 32 * 32 + 16 * lane + 2 * i + j % 2 + 8 * (j / 2);
    }

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

    // a[0..8) = rescale a + quantum (d[0] 2^16 + d[stride])
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m256 total = _mm256_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm256_fmadd_ps(total, _mm256_set1_ps(65536.0f), _mm256_cvtepi32_ps(d[j * stride]));
        const __m256 old = _mm256_mul_ps(_mm256_set1_ps(rescale), _mm256_loadu_ps(a));
        _mm256_storeu_ps(a, _mm256_fmadd_ps(_mm256_set1_ps(quantum), total, old));
    }
};

}  // namespace
