// Four rows of bytes side by side on x86, as second products of bytes take them, over registers of either width.
#pragma once

#include "constants.h"
#include "macros.h"

namespace {

// R: a Ymm or a Zmm.
template <class R>
struct FourRowsX86 : R {
    typedef typename R::Vec Vec;

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
