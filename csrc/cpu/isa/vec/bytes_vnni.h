// 64 bytes to a register, and VNNI's product of u8 by s8: what loops/byte_products.h is written in.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "constants.h"
#include "macros.h"

namespace {

struct BytesVnni {
    typedef __m512i Vec;
    static constexpr int bytes = 64, registers = 32, sums_held = 24;
    static constexpr int dot_group = 8;                    // query digits of a block of the first product
    static constexpr int sum_group = 12, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 4;                  // registers of columns for one or two queries alone
    static constexpr bool free_masks = true;               // to load under a mask costs no more
    static constexpr bool unsigned_rows = true;            // in the first product; digits are signed
    // Whether the second product takes rows as stored: one factor is signed, and digits may be either.
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return SIGNED_DIGITS;
    }

    static GEODIFF_INLINE Vec zero() { return _mm512_setzero_si512(); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return _mm512_set1_epi32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return _mm512_loadu_si512(p); }
    static GEODIFF_INLINE void store(void* p, Vec v) { _mm512_storeu_si512(p, v); }
    // The first n >= 1 of 64 bytes, zero from there on and never read
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {
        return _mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : ~0ull >> (64 - n), p);
    }

    // acc += u8 x . s8 y, four products to a dword. Written as assembly because GCC's intrinsic takes the accumulator
    // by copy: 24 of them then need 48 registers and spill (seen in GCC 12; loops must hold no stack access).
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) { asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(y)); }

    static GEODIFF_INLINE Vec row(Vec stored) { return stored; }  // as the first product takes it

    // acc += four rows of a column times four digits of a weight
    template <bool SIGNED_DIGITS>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) {
        if constexpr (SIGNED_DIGITS)
            dot(acc, rows, digits);
        else
            dot(acc, digits, rows);
    }
    // f(s, digits) for every slot s of four digits at p, spread as `weigh` takes them
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int8_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA { f(s, broadcast4(p + 4 * s)); });
    }

    // Four bytes, repeated in every dword. Loaded once for all registers of columns: as the memory operand of each
    // product, which is shorter, the loads rather than the products would set the pace (measured: 5 % of 256 queries).
    static GEODIFF_INLINE Vec broadcast4(const int8_t* four) {
        typedef int8_t Four[4];
        Vec out;
        asm("vpbroadcastd %1, %0" : "=v"(out) : "m"(*reinterpret_cast<const Four*>(four)));
        return out;
    }

    // u8 <-> s8
    static GEODIFF_INLINE Vec centred(Vec v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }

    // Four rows of 64 columns -> four registers whose dwords hold one column of the four rows each, in the order of
    // column_of_slot.
    static GEODIFF_INLINE void interleave(const Vec* rows, Vec* out) {
        const Vec ab0 = _mm512_unpacklo_epi8(rows[0], rows[1]), ab1 = _mm512_unpackhi_epi8(rows[0], rows[1]);
        const Vec cd0 = _mm512_unpacklo_epi8(rows[2], rows[3]), cd1 = _mm512_unpackhi_epi8(rows[2], rows[3]);
        out[0] = _mm512_unpacklo_epi16(ab0, cd0);
        out[1] = _mm512_unpackhi_epi16(ab0, cd0);
        out[2] = _mm512_unpacklo_epi16(ab1, cd1);
        out[3] = _mm512_unpackhi_epi16(ab1, cd1);
    }

    // Slot = dword (4 lane + i) of register j; it holds column 16 lane + 4 j + i of each block of 64.
    static int64_t column_of_slot(int64_t slot) {
        const int64_t j = slot / 16 % 4, lane = slot / 4 % 4, i = slot % 4;
        return slot / 64 * 64 + 16 * lane + 4 * j + i;
    }

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

    // a[0..16) = rescale a + quantum (d[0] 256^(parts-1) + ... + d[parts-1]), each d[j] a register of dwords
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        __m512 total = _mm512_cvtepi32_ps(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = _mm512_fmadd_ps(total, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(d[j * stride]));
        const __m512 old = _mm512_mul_ps(_mm512_set1_ps(rescale), _mm512_loadu_ps(a));
        _mm512_storeu_ps(a, _mm512_fmadd_ps(_mm512_set1_ps(quantum), total, old));
    }
};

}  // namespace
