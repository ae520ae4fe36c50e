// Products of 2 x 8 by 8 x 2 bytes (Armv8.6, i8mm): what loops/matrix_products.h is written in.
#pragma once

#include "neon_register.h"

namespace {

struct MatricesNeon : NeonRegister<256> {
    static constexpr int pairs = 6;  // of digits in a block: with four of rows or columns, 24 registers of sums

    // acc += x y, 2 x 8 u8 by 8 x 2 s8. Assembly, because GCC 12 spills sums else.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        asm("usmmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(y));
    }
    // Columns as stored by digits of either sign
    template <bool SIGNED_DIGITS>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec columns, Vec digits) {
        if constexpr (SIGNED_DIGITS)
            dot(acc, columns, digits);
        else
            asm("ummla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(columns), "w"(digits));
    }

    // 16 columns of two rows -> columns 0 to 7 of both, or 8 to 15
    static GEODIFF_INLINE Vec join(Vec a, Vec b, int half) {
        const uint64x2_t x = vreinterpretq_u64_s32(a), y = vreinterpretq_u64_s32(b);
        return vreinterpretq_s32_u64(half == 0 ? vzip1q_u64(x, y) : vzip2q_u64(x, y));
    }
    // The first n of 8 columns of two rows, zero from there on
    static GEODIFF_INLINE Vec joined(const uint8_t* a, const uint8_t* b, int64_t n) {
        return vreinterpretq_s32_u64(vcombine_u64(vcreate_u64(first_bytes(a, n)), vcreate_u64(first_bytes(b, n))));
    }
    // Two columns by two slots, of two pairs of columns -> four columns of either slot
    static GEODIFF_INLINE void part(Vec a, Vec b, int32_t* first, int32_t* second) {
        vst1q_s32(first, vuzp1q_s32(a, b));
        vst1q_s32(second, vuzp2q_s32(a, b));
    }

    // Columns k to k + 15 of eight rows of `len` columns, each column's eight bytes side by side; zero past the end
    static GEODIFF_INLINE void interleave(const uint8_t* const* rows, int64_t k, int64_t len, uint8_t* out) {
        uint8x16_t v[8];
        for (int i = 0; i < 8; ++i)
            v[i] = k + bytes <= len ? vld1q_u8(rows[i] + k)
                                    : vcombine_u8(vcreate_u8(first_bytes(rows[i] + k, len - k)),
                                                  vcreate_u8(first_bytes(rows[i] + k + 8, len - k - 8)));
        uint16x8_t two[4][2];  // [rows 2 i and 2 i + 1][columns 0 to 7, 8 to 15]
        for (int i = 0; i < 4; ++i) {
            two[i][0] = vreinterpretq_u16_u8(vzip1q_u8(v[2 * i], v[2 * i + 1]));
            two[i][1] = vreinterpretq_u16_u8(vzip2q_u8(v[2 * i], v[2 * i + 1]));
        }
        for (int half = 0; half < 2; ++half) {
            const uint32x4_t a[2] = {vreinterpretq_u32_u16(vzip1q_u16(two[0][half], two[1][half])),
                                     vreinterpretq_u32_u16(vzip2q_u16(two[0][half], two[1][half]))};
            const uint32x4_t b[2] = {vreinterpretq_u32_u16(vzip1q_u16(two[2][half], two[3][half])),
                                     vreinterpretq_u32_u16(vzip2q_u16(two[2][half], two[3][half]))};
            for (int i = 0; i < 2; ++i) {
                vst1q_u8(out + 64 * half + 32 * i, vreinterpretq_u8_u32(vzip1q_u32(a[i], b[i])));
                vst1q_u8(out + 64 * half + 32 * i + 16, vreinterpretq_u8_u32(vzip2q_u32(a[i], b[i])));
            }
        }
    }
};

}  // namespace
