// 32 numbers of 16 bits to a register, and the product of pairs: the operations of halves_avx2.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "constants.h"
#include "macros.h"

namespace {

struct HalvesAvx512 {
    typedef __m512i Vec;
    static constexpr int bytes = 64, columns = 32, registers = 32;
    static constexpr int sums = 24;                       // of a block
    static constexpr int dot_group = 8;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 4;  // weight digits and registers of columns of the second's
    static constexpr int dot_to = 31, sum_to = 1;         // measured: ../../README.md

    static GEODIFF_INLINE Vec zero() { return _mm512_setzero_si512(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm512_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm512_loadu_si512(p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm512_storeu_si512(p, v); }
    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return _mm512_add_epi32(a, b); }
    static GEODIFF_INLINE Vec add_halves(Vec a, Vec b) { return _mm512_add_epi16(a, b); }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return _mm512_slli_epi32(a, 15); }

    // The first n of 64 bytes, zero from there on
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {  // n >= 1
        return _mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : ~0ull >> (64 - n), p);
    }
    // 32 bytes as numbers of 16 bits
    static GEODIFF_INLINE Vec widen(const uint8_t* p) {
        return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
    }

    // acc += x . y, two products to a dword, modulo 2^32. Assembly as in halves_avx2.h.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        const Vec both = _mm512_madd_epi16(x, y);
        asm("vpaddd %1, %0, %0" : "+v"(acc) : "v"(both));
    }

    // Query digits, loaded once for all rows of a block: as the memory operand of each product, which is one
    // instruction less, loads rather than products set the pace (measured: ../../README.md).
    static GEODIFF_INLINE Vec digits(const void* p) {
        Vec loaded = load(p);
        asm("" : "+v"(loaded));
        return loaded;
    }

    // Two numbers of 16 bits, repeated in every dword
    static GEODIFF_INLINE Vec broadcast2(const int16_t* two) {
        int32_t both;
        std::memcpy(&both, two, 4);
        return _mm512_set1_epi32(both);
    }

    // f(s, digits) for every slot s of two digits at p, spread as `weigh` takes them
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int16_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA { f(s, broadcast2(p + 2 * s)); });
    }
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) { dot(acc, rows, digits); }

    // Two rows of 64 bytes -> two of the four registers whose dwords hold one column of both rows each
    template <int FIRST>
    static GEODIFF_INLINE void pairs(Vec a, Vec b, Vec* out) {
        const Vec both = FIRST == 0 ? _mm512_unpacklo_epi16(a, b) : _mm512_unpackhi_epi16(a, b);
        out[0] = _mm512_and_si512(both, _mm512_set1_epi16(0xff));
        out[1] = _mm512_srli_epi16(both, 8);
    }
    // Slot = dword (4 lane + i) of register j
    static int column_of_slot(int slot) {
        const int j = slot / 16 % 4, lane = slot / 4 % 4, i = slot % 4;
        return 16 * lane + 2 * i + j % 2 + 8 * (j / 2);
    }

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

    // a[0..16) = rescale a + quantum (d[0] 2^16 + d[stride])
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m512 total = _mm512_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm512_fmadd_ps(total, _mm512_set1_ps(65536.0f), _mm512_cvtepi32_ps(d[j * stride]));
        const __m512 old = _mm512_mul_ps(_mm512_set1_ps(rescale), _mm512_loadu_ps(a));
        _mm512_storeu_ps(a, _mm512_fmadd_ps(_mm512_set1_ps(quantum), total, old));
    }
};

}  // namespace
