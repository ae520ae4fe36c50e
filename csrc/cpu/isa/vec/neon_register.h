// A register of 16 bytes as integer products take it, whatever its numbers are.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "constants.h"
#include "first_bytes.h"
#include "macros.h"

namespace {

// BASE: how much more a digit is worth than the next.
template <int BASE>
struct NeonRegister {
    typedef int32x4_t Vec;
    static constexpr int bytes = 16;

    static GEODIFF_INLINE Vec zero() { return vdupq_n_s32(0); }
    static GEODIFF_INLINE Vec set1(int32_t v) { return vdupq_n_s32(v); }
    static GEODIFF_INLINE Vec load(const void* p) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p)); }
    static GEODIFF_INLINE void store(void* p, Vec v) { vst1q_u8((uint8_t*)p, vreinterpretq_u8_s32(v)); }
    // The first n of 16 bytes, zero from there on and never read
    static GEODIFF_INLINE Vec first_of(const uint8_t* p, int64_t n) {
        return vreinterpretq_s32_u64(
            vcombine_u64(vcreate_u64(first_bytes(p, n)), vcreate_u64(first_bytes(p + 8, n - 8))));
    }

    // Four bytes of digits of a weight, one of four such slots in a register, which products take by their place.
    template <int PLACE>
    struct Slot {
        Vec four;
    };
    // f(s, digits) for every slot s at p, as `weigh` takes them
    template <int SLOTS, class Digit, class F>
    static GEODIFF_INLINE void each_slot(const Digit* p, F&& f) {
        const auto* slots = reinterpret_cast<const uint8_t*>(p);
        each_constant<SLOTS>([&](auto s) GEODIFF_INLINE_LAMBDA {
            constexpr int kSlot = decltype(s)::value, kFirst = kSlot / 4 * 4, kLeft = SLOTS - kFirst;
            f(kSlot, Slot<kSlot % 4>{some_slots<(kLeft < 4 ? kLeft : 4)>(slots + 4 * kFirst)});  // one load for four
        });
    }
    template <int SLOTS>
    static GEODIFF_INLINE Vec some_slots(const uint8_t* p) {
        if constexpr (SLOTS == 4) return load(p);
        return first_of(p, 4 * SLOTS);
    }

    // a[0..4) = rescale a + quantum (d[0] BASE^(parts-1) + ... + d[parts-1]), each d[j] a register of dwords
    template <int PARTS>
    static GEODIFF_INLINE void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        float32x4_t total = vcvtq_f32_s32(d[0]);
        for (int j = 1; j < PARTS; ++j)
            total = vfmaq_f32(vcvtq_f32_s32(d[j * stride]), total, vdupq_n_f32(float(BASE)));
        const float32x4_t old = vmulq_n_f32(vld1q_f32(a), rescale);
        vst1q_f32(a, vfmaq_f32(old, total, vdupq_n_f32(quantum)));
    }
};

}  // namespace
