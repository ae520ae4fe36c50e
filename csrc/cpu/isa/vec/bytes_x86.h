// Exact products of bytes on x86, over registers of either width: what loops/byte_products.h is written in, but for how
// blocks are cut and their sums are drawn together.
#pragma once

#include "four_rows_x86.h"

namespace {

// R: Ymm<256> or Zmm<256>. VEX: AVX-VNNI's form of the product, for processors without AVX-512; else AVX-512's, which
// does the same.
template <class R, bool VEX>
struct BytesX86 : FourRowsX86<R> {
    typedef typename R::Vec Vec;
    static constexpr bool unsigned_rows = true;  // in the first product; digits are signed
    // Whether the second product takes rows as stored: one factor is signed, and digits may be either.
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return SIGNED_DIGITS;
    }

    // acc += u8 x . s8 y, four products to a dword. Written as assembly because GCC's intrinsic takes the accumulator
    // by copy: 24 of them then need 48 registers and spill (seen in GCC 12; loops must hold no stack access).
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        if constexpr (VEX)
            asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(y));
        else
            asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(y));
    }

    static GEODIFF_INLINE Vec row(Vec stored) { return stored; }  // as the first product takes it

    // acc += four rows of a column times four digits of a weight
    template <bool SIGNED_DIGITS>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) {
        if constexpr (SIGNED_DIGITS)
            dot(acc, rows, digits);
        else
            dot(acc, digits, rows);
    }
};

}  // namespace
