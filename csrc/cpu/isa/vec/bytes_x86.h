// Exact products of bytes on x86, over registers of either width: what loops/byte_products.h is written in, but for how
// blocks are cut and their sums are drawn together.
#pragma once

#include "constants.h"
#include "macros.h"

namespace {

// R: Ymm<256> or Zmm<256>. VEX: AVX-VNNI's form of the product, for processors without AVX-512; else AVX-512's, which
// does the same.
template <class R, bool VEX>
struct BytesX86 : R {
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

    // Four rows of a register of columns -> four registers whose dwords hold one column of the four rows each, in the
    // order of column_of_slot.
    static GEODIFF_INLINE void interleave(const Vec* rows, Vec* out) {
        const Vec ab0 = R::first_8(rows[0], rows[1]), ab1 = R::last_8(rows[0], rows[1]);
        const Vec cd0 = R::first_8(rows[2], rows[3]), cd1 = R::last_8(rows[2], rows[3]);
        out[0] = R::first_16(ab0, cd0);
        out[1] = R::last_16(ab0, cd0);
        out[2] = R::first_16(ab1, cd1);
        out[3] = R::last_16(ab1, cd1);
    }
    // Slot = dword (4 lane + i) of register j; it holds column 16 lane + 4 j + i of each block of so many bytes.
    static int64_t column_of_slot(int64_t slot) {
        const int64_t j = slot / (R::bytes / 4) % 4, lane = slot / 4 % (R::bytes / 16), i = slot % 4;
        return slot / R::bytes * R::bytes + 16 * lane + 4 * j + i;
    }
};

}  // namespace
