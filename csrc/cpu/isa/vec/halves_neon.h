// 8 numbers of 16 bits to a register, and the widening product of any NEON: the operations of halves_avx2.h. A dword
// sums what numbers i and i + 4 of a register give.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "constants.h"
#include "first_bytes.h"
#include "macros.h"

namespace {

struct HalvesNeon {
    typedef int32x4_t Vec;
    static constexpr int bytes = 16, columns = 8, registers = 32;
    static constexpr int sums = 24;                       // of a block
    static constexpr int dot_group = 6;                   // query digits of a block of the first product
    static constexpr int sum_group = 6, sum_vectors = 4;  // weight digits and registers of columns of the second's
    // A product of floats takes one instruction for four multiply-adds as these do, but rows must become floats first:
    // dear for few queries, and nothing beside the products of many.
    static constexpr int dot_to = 4, sum_to = 2;

    static GEODIFF_INLINE Vec zero() { return vdupq_n_s32(0); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return vdupq_n_s32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p)); }
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {
        return vreinterpretq_s32_u64(
            vcombine_u64(vcreate_u64(first_bytes(p, n)), vcreate_u64(first_bytes(p + 8, n - 8))));
    }
    static GEODIFF_INLINE void store(void* p, Vec v) { vst1q_u8((uint8_t*)p, vreinterpretq_u8_s32(v)); }
    static GEODIFF_INLINE Vec add(Vec a, Vec b) { return vaddq_s32(a, b); }
    static GEODIFF_INLINE Vec add_halves(Vec a, Vec b) {
        return vreinterpretq_s32_s16(vaddq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
    }
    static GEODIFF_INLINE Vec shifted15(Vec a) { return vshlq_n_s32(a, 15); }

    // 8 bytes as numbers of 16 bits
    static GEODIFF_INLINE Vec widen(const uint8_t* p) { return vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p))); }

    // acc += x . y, two products to a dword, modulo 2^32. Assembly, because GCC 12 copies halves of registers for it.
    static GEODIFF_INLINE void dot(Vec& acc, Vec x, Vec y) {
        asm("smlal %0.4s, %1.4h, %2.4h\n\tsmlal2 %0.4s, %1.8h, %2.8h" : "+w"(acc) : "w"(x), "w"(y));
    }
    static GEODIFF_INLINE Vec digits(const void* p) { return load(p); }

    // Two digits of a weight, one of four such slots in a register, which the product takes by their place.
    template <int PLACE>
    struct Slot {
        Vec four;
    };
    template <int PLACE>
    static GEODIFF_INLINE void weigh(Vec& acc, Vec rows, Slot<PLACE> slot) {
        asm("smlal %0.4s, %1.4h, %2.h[%c3]\n\tsmlal2 %0.4s, %1.8h, %2.h[%c4]"
            : "+w"(acc)
            : "w"(rows), "x"(slot.four), "i"(2 * PLACE), "i"(2 * PLACE + 1));
    }
    template <int SLOTS, class F>
    static GEODIFF_INLINE void each_slot(const int16_t* p, F&& f) {
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA {
            constexpr int kSlot = decltype(s)::value, kFirst = kSlot / 4 * 4, kLeft = SLOTS - kFirst;
            f(kSlot, Slot<kSlot % 4>{some_slots<(kLeft < 4 ? kLeft : 4)>(p + 2 * kFirst)});  // one load for four
        });
    }
    template <int SLOTS>
    static GEODIFF_INLINE Vec some_slots(const int16_t* p) {
        if constexpr (SLOTS == 4) return load(p);
        return first_of(reinterpret_cast<const uint8_t*>(p), 4 * SLOTS);
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

    // a[0..4) = rescale a + quantum (d[0] 2^16 + d[stride])
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        float32x4_t total = vcvtq_f32_s32(d[0]);
        for (int j = 1; j < PARTS; ++j) total = vfmaq_f32(vcvtq_f32_s32(d[j * stride]), total, vdupq_n_f32(65536.0f));
        const float32x4_t old = vmulq_n_f32(vld1q_f32(a), rescale);
        vst1q_f32(a, vfmaq_f32(old, total, vdupq_n_f32(quantum)));
    }
};

}  // namespace
