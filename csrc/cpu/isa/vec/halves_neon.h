// 8 numbers of 16 bits to a register, and the widening product of any NEON: the operations of halves_avx2.h. A dword
// sums what numbers i and i + 4 of a register give.
#pragma once

#include "neon_register.h"

namespace {

struct HalvesNeon : NeonRegister<65536> {
    static constexpr int columns = 8, registers = 32;
    static constexpr bool adjacent_pairs = false;
    static constexpr int sums = 24;                       // of a block
    static constexpr int dot_group = 6;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 4;  // weight digits and registers of columns of the second's
    // A product of floats takes one instruction for four multiply-adds as these do, but rows must become floats first:
    // dear for few queries, and nothing beside the products of many.
    static constexpr int dot_to = 4, sum_to = 2;

    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return vaddq_s32(a, b); }
    // acc += x, numbers of 16 bits
    static GEODIFF_INLINE void add_halves_to(Vec& acc, Vec x) {
        acc = vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(acc), vreinterpretq_s16_s32(x)));
    }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return vshlq_n_s32(a, 15); }

    // 8 bytes as numbers of 16 bits
    static GEODIFF_INLINE Vec widen(const uint8_t* p) { return vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p))); }

    // acc += x . y, two products to a dword, modulo 2^32. Assembly, because GCC 12 copies halves of registers for it.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        asm("smlal %0.4s, %1.4h, %2.4h\n\tsmlal2 %0.4s, %1.8h, %2.8h" : "+w"(acc) : "w"(x), "w"(y));
    }
    static GEODIFF_INLINE Vec digits(const void* p) { return load(p); }
    // Two numbers of 16 bits, each repeated in half of the register
    static GEODIFF_INLINE Vec broadcast2(const int16_t* two) {
        return vreinterpretq_s32_s16(vcombine_s16(vld1_dup_s16(two), vld1_dup_s16(two + 1)));
    }

    template <int PLACE>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Slot<PLACE> slot) {
        asm("smlal %0.4s, %1.4h, %2.h[%c3]\n\tsmlal2 %0.4s, %1.8h, %2.h[%c4]"
            : "+w"(acc)
            : "w"(rows), "x"(slot.four), "i"(2 * PLACE), "i"(2 * PLACE + 1));
    }
    // Two rows of 16 bytes -> two of the four registers that hold four columns of one row and of the other
    template <int FIRST>
    static GEODIFF_INLINE void pairs(Vec a, Vec b, Vec* out) {
        const uint8x16_t x = vreinterpretq_u8_s32(a), y = vreinterpretq_u8_s32(b);
        const uint64x2_t xs = vreinterpretq_u64_u16(FIRST == 0 ? vmovl_u8(vget_low_u8(x)) : vmovl_high_u8(x));
        const uint64x2_t ys = vreinterpretq_u64_u16(FIRST == 0 ? vmovl_u8(vget_low_u8(y)) : vmovl_high_u8(y));
        out[0] = vreinterpretq_s32_u64(vzip1q_u64(xs, ys));
        out[1] = vreinterpretq_s32_u64(vzip2q_u64(xs, ys));
    }
    static int column_of_slot(int slot) { return slot; }

    // out[0..4) = the sums of the dwords of four registers, exactly
    static GEODIFF_INLINE void sums4(const Vec* a, double* out) {
        for (int i = 0; i < 4; ++i) out[i] = double(vaddlvq_s32(a[i]));
    }
};

}  // namespace
