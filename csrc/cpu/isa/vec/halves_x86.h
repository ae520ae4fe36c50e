// Exact products of 16-bit numbers on x86, over registers of either width: what loops/half_products.h is written in,
// but for how blocks are cut and their sums are drawn together.
#pragma once

#include <cstring>

#include "constants.h"
#include "macros.h"

namespace {

// R: Ymm<65536> or Zmm<65536>.
template <class R>
struct HalvesX86 : R {
    typedef typename R::Vec Vec;
    static constexpr int columns = R::bytes / 2;
    static constexpr bool adjacent_pairs = true;  // two numbers that are beside each other go into a dword

    // acc += x . y, two products to a dword, modulo 2^32. Assembly keeps the sum where it is: GCC 12 moves sums from
    // register to register, and spills from 8 of them on.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        const Vec both = R::products_of_pairs(x, y);
        asm("vpaddd %1, %0, %0" : "+v"(acc) : "v"(both));
    }

    // acc += x, numbers of 16 bits
    static GEODIFF_INLINE void add_halves_to(Vec& acc, Vec x) { asm("vpaddw %1, %0, %0" : "+v"(acc) : "v"(x)); }

    // Query digits, loaded once for all rows of a block: as the memory operand of each product, which is one
    // instruction less, loads rather than products set the pace (measured: csrc/cpu/isa/README.md).
    static GEODIFF_INLINE Vec digits(const void* p) {
        Vec loaded = R::load(p);
        asm("" : "+v"(loaded));
        return loaded;
    }

    // Two numbers of 16 bits, repeated in every dword
    static GEODIFF_INLINE Vec broadcast2(const int16_t* two) {
        int32_t both;
        std::memcpy(&both, two, 4);
        return R::set1(both);
    }

    // f(s, digits) for every slot s of two digits at p, spread as `weigh` takes them
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int16_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA { f(s, broadcast2(p + 2 * s)); });
    }
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec digits) { dot(acc, rows, digits); }

    // Two rows of bytes -> two of the four registers whose dwords hold one column of both rows each: 0 and 1, or 2 and
    // 3. Words are joined, of two columns, so that the low bytes are the even columns and the high bytes the odd ones.
    template <int FIRST>
    static GEODIFF_INLINE void pairs(Vec a, Vec b, Vec* out) {
        const Vec both = FIRST == 0 ? R::first_16(a, b) : R::last_16(a, b);
        out[0] = R::low_bytes(both);
        out[1] = R::high_bytes(both);
    }
    // Slot = dword (4 lane + i) of register j
    static int column_of_slot(int slot) {
        const int j = slot / (R::bytes / 4) % 4, lane = slot / 4 % (R::bytes / 16), i = slot % 4;
        return slot / R::bytes * R::bytes + 16 * lane + 2 * i + j % 2 + 8 * (j / 2);
    }
};

}  // namespace
