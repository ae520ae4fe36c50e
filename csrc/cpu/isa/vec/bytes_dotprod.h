// 16 bytes to a register, and the dot products of Armv8.2, of which both factors are signed or neither: the operations
// of bytes_vnni.h. So signed digits meet centred rows, and unsigned ones rows as stored.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "constants.h"
#include "first_bytes.h"
#include "macros.h"

namespace {

struct BytesDotprod {
    typedef int32x4_t Vec;
    static constexpr int bytes = 16, sums_held = 24;
    static constexpr int registers = 30;                   // that are left beside the sign bits and a load
    static constexpr int dot_group = 6;                    // query digits of a block of the first product
    static constexpr int sum_group = 12, sum_vectors = 2;  // weight digits and registers of columns of the second's
    static constexpr int few_vectors = 4;                  // registers of columns for one or two queries alone
    static constexpr bool free_masks = false, unsigned_rows = false;
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return !SIGNED_DIGITS;
    }

    static GEODIFF_INLINE Vec zero() { return vdupq_n_s32(0); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return vdupq_n_s32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p)); }
    static GEODIFF_INLINE void store(void* p, Vec v) { vst1q_u8((uint8_t*)p, vreinterpretq_u8_s32(v)); }
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {
        return vreinterpretq_s32_u64(
            vcombine_u64(vcreate_u64(first_bytes(p, n)), vcreate_u64(first_bytes(p + 8, n - 8))));
    }

    // acc += s8 x . s8 y, four products to a dword. Assembly, because GCC 12 spills sums else.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(y));
    }
    static GEODIFF_INLINE Vec row(Vec stored) { return centred(stored); }

    // Four digits of a weight, one of four such slots in a register, which the product takes by their place.
    template <int PLACE>
    struct Slot {
        Vec four;
    };
    template <bool SIGNED_DIGITS, int PLACE>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Slot<PLACE> slot) {
        if constexpr (SIGNED_DIGITS)
            acc = vdotq_laneq_s32(acc, vreinterpretq_s8_s32(rows), vreinterpretq_s8_s32(slot.four), PLACE);
        else
            acc = vreinterpretq_s32_u32(vdotq_laneq_u32(vreinterpretq_u32_s32(acc), vreinterpretq_u8_s32(rows),
                                                        vreinterpretq_u8_s32(slot.four), PLACE));
    }
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int8_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA {
            constexpr int kSlot = decltype(s)::value, kFirst = kSlot / 4 * 4, kLeft = SLOTS - kFirst;
            f(kSlot, Slot<kSlot % 4>{some_slots<(kLeft < 4 ? kLeft : 4)>(p + 4 * kFirst)});  // one load for four
        });
    }
    template <int SLOTS>
    static GEODIFF_INLINE Vec some_slots(const int8_t* p) {
        if constexpr (SLOTS == 4) return load(p);
        return first_of(reinterpret_cast<const uint8_t*>(p), 4 * SLOTS);
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

    // a[0..4) = rescale a + quantum (d[0] 256^(parts-1) + ... + d[parts-1]), each d[j] a register of dwords
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        float32x4_t total = vcvtq_f32_s32(d[0]);
        for (int j = 1; j < PARTS; ++j) total = vfmaq_f32(vcvtq_f32_s32(d[j * stride]), total, vdupq_n_f32(256.0f));
        const float32x4_t old = vmulq_n_f32(vld1q_f32(a), rescale);
        vst1q_f32(a, vfmaq_f32(old, total, vdupq_n_f32(quantum)));
    }
};

}  // namespace
