// 16 bytes to a register, and the dot products of Armv8.2, of which both factors are signed or neither: the operations
// of bytes_vnni.h. So signed digits meet centred rows, and unsigned ones rows as stored.
#pragma once

#include "neon_register.h"

namespace {

struct BytesDotprod : NeonRegister<256> {
    static constexpr int sums_held = 24;
    static constexpr int registers = 30;                   // that are left beside the sign bits and a load
    static constexpr int dot_group = 6;                    // query digits of a block of the first product
    static constexpr int sum_group = 12, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 4;                  // registers of columns for one or two queries alone
    static constexpr bool free_masks = false, unsigned_rows = false;
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return !SIGNED_DIGITS;
    }

    // acc += s8 x . s8 y, four products to a dword. Assembly, because GCC 12 spills sums else.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(y));
    }
    static GEODIFF_INLINE Vec row(Vec stored) { return centred(stored); }

    template <bool SIGNED_DIGITS, int PLACE>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Slot<PLACE> slot) {
        if constexpr (SIGNED_DIGITS)
            acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(rows), vreinterpretq_s8_s32(slot.four), PLACE);
        else
            acc = vreinterpretq_s32_u32(vdotq_laneq_u32(vreinterpretq_u32_s32(acc), vreinterpretq_u8_s32(rows),
                                                        vreinterpretq_u8_s32(slot.four), PLACE));
    }
    static GEODIFF_INLINE Vec centred(Vec v) { return veorq_s32(v, vdupq_n_s32(int32_t(0x80808080u))); }

    // Four rows of 16 columns -> four registers whose dwords hold one column of the four rows each.
    static GEODIFF_INLINE void interleave(const Vec* rows, Vec* out) {
        const uint8x16_t a = vreinterpretq_u8_s32(rows[0]), b = vreinterpretq_u8_s32(rows[1]),
                         c = vreinterpretq_u8_s32(rows[2]), d = vreinterpretq_u8_s32(rows[3]);
        const uint16x8_t ab0 = vreinterpretq_u16_u8(vzip1q_u8(a, b)), ab1 = vreinterpretq_u16_u8(vzip2q_u8(a, b)),
                         cd0 = vreinterpretq_u16_u8(vzip1q_u8(c, d)), cd1 = vreinterpretq_u16_u8(vzip2q_u8(c, d));
        out[0] = vreinterpretq_s32_u16(vzip1q_u16(ab0, cd0));
        out[1] = vreinterpretq_s32_u16(vzip2q_u16(ab0, cd0));
        out[2] = vreinterpretq_s32_u16(vzip1q_u16(ab1, cd1));
        out[3] = vreinterpretq_s32_u16(vzip2q_u16(ab1, cd1));
    }
    static int64_t column_of_slot(int64_t slot) { return slot; }

    // out[0..6) = the sums of the dwords of six registers
    static GEODIFF_INLINE void sums(const Vec* a, int32_t* out) {
        for (int i = 0; i < dot_group; ++i) out[i] = vaddvq_s32(a[i]);
    }
};

}  // namespace
