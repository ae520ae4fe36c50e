// Products of rows of bytes with weights of two digits on x86, for processors without VNNI: what loops/one_query.h is
// written in.
#pragma once

#include "four_rows_x86.h"

namespace {

// R: Ymm<1> or Zmm<1>: both digits go into one sum.
template <class R>
struct OneQueryX86 : FourRowsX86<R> {
    typedef typename R::Vec Vec;

    // What sums of two products, in 16 bits, are multiplied with as two of them are added in a dword
    struct Multipliers {
        Vec high = R::set1_16(1 << 7), low = R::set1_16(1);
    };

    // acc += four rows of a column, as s8, times a weight of unsigned digits h and l, 2^7 h + l. Of rows that are
    // neighbours neither the digits h nor the digits l may come to more than 255: 255 2^7 < 2^15.
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Vec h, Vec l, const Multipliers& by) {
        add_to(acc, R::products_of_pairs(R::products_of_bytes(h, rows), by.high));
        add_to(acc, R::products_of_pairs(R::products_of_bytes(l, rows), by.low));
    }

  private:
    // Assembly, as in halves_x86.h: GCC 12 moves sums from register to register.
    static GEODIFF_INLINE void add_to(Vec& acc, Vec dwords) { asm("vpaddd %1, %0, %0" : "+v"(acc) : "v"(dwords)); }
};

}  // namespace
