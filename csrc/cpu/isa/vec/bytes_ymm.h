// 32 bytes to a register and 16 registers: the operations of vec/bytes_vnni.h with 256-bit vectors. VEX: AVX-VNNI's
// form of the product, for processors without AVX-512; else AVX-512's, which does the same.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "constants.h"
#include "first_32.h"
#include "macros.h"

namespace {

template <bool VEX>
struct BytesYmm {
    typedef __m256i Vec;
    static constexpr int bytes = 32, registers = 16, sums_held = 12;
    static constexpr int dot_group = 4;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 2;                 // registers of columns for one or two queries alone
    static constexpr bool free_masks = false, unsigned_rows = true;
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return SIGNED_DIGITS;
    }

    static GEODIFF_INLINE Vec zero() { return _mm256_setzero_si256(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm256_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm256_loadu_si256((const Vec*)p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm256_storeu_si256((Vec*)p, v); }
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) { return first_32(p, n); }

    // acc += u8 x . s8 y, four products to a dword. Assembly as in bytes_vnni.h.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        if constexpr (VEX)
            asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(y));
        else
            asm("vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(y));
    }
    static GEODIFF_INLINE Vec row(Vec stored) { return stored; }
    template <bool SIGNED_DIGITS>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) {
        if constexpr (SIGNED_DIGITS)
            dot(acc, rows, digits);
        else
            dot(acc, digits, rows);
    }
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int8_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA { f(s, broadcast4(p + 4 * s)); });
    }
    static GEODIFF_INLINE Vec broadcast4(const int8_t* four) {
        typedef int8_t Four[4];
        Vec out;
        asm("vpbroadcastd %1, %0" : "=x"(out) : "m"(*reinterpret_cast<const Four*>(four)));
        return out;
    }
    static GEODIFF_INLINE Vec centred(Vec v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }

    // Four rows of 32 columns -> four registers whose dwords hold one column of the four rows each.
    static GEODIFF_INLINE void interleave(const Vec* rows, Vec* out) {
        const Vec ab0 = _mm256_unpacklo_epi8(rows[0], rows[1]), ab1 = _mm256_unpackhi_epi8(rows[0], rows[1]);
        const Vec cd0 = _mm256_unpacklo_epi8(rows[2], rows[3]), cd1 = _mm256_unpackhi_epi8(rows[2], rows[3]);
        out[0] = _mm256_unpacklo_epi16(ab0, cd0);
        out[1] = _mm256_unpackhi_epi16(ab0, cd0);
        out[2] = _mm256_unpacklo_epi16(ab1, cd1);
        out[3] = _mm256_unpackhi_epi16(ab1, cd1);
    }
    // Slot = dword (4 lane + i) of register j; it holds column 16 lane + 4 j + i of each block of 32.
    static int64_t column_of_slot(int64_t slot) {
        const int64_t j = slot / 8 % 4, lane = slot / 4 % 2, i = slot % 4;
        return slot / 32 * 32 + 16 * lane + 4 * j + i;
    }

    // out[0..4) = the sums of the dwords of four registers
    static GEODIFF_INLINE void sums(const Vec* a, int32_t* out) {
        const Vec b = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
        _mm_storeu_si128((__m128i*)out, _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
    }

    // a[0..8) = rescale a + quantum (d[0] 256^(parts-1) + ... + d[parts-1]), each d[j] a register of dwords
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m256 total = _mm256_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm256_fmadd_ps(total, _mm256_set1_ps(256.0f), _mm256_cvtepi32_ps(d[j * stride]));
        const __m256 old = _mm256_mul_ps(_mm256_set1_ps(rescale), _mm256_loadu_ps(a));
        _mm256_storeu_ps(a, _mm256_fmadd_ps(_mm256_set1_ps(quantum), total, old));
    }
};

}  // namespace
