// NEON of any 64-bit Arm: 32 registers of 4 floats, 24 of them accumulators.
#pragma once

#include <arm_neon.h>

namespace {

struct Shape {
    static constexpr int bytes = 16, accumulators = 24, dot_vectors = 4, sum_queries = 6, sum_vectors = 4, few_rows = 4;
};

}  // namespace

#include "floats.h"

namespace {

inline VecF widen_u8(const uint8_t* p) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    const int8x8_t centred = vreinterpret_s8_u32(vdup_n_u32(four ^ 0x80808080u));  // s8: v = u - 128
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(centred))));
}

inline VecF widen_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }

inline VecF widen_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

inline VecF larger(VecF a, VecF b) { return vmaxq_f32(a, b); }
inline VecD larger(VecD a, VecD b) { return vmaxq_f64(a, b); }
// Whether a > b anywhere
inline bool any_above(VecF a, VecF b) { return vmaxvq_u32(vcgtq_f32(a, b)) != 0; }
inline bool any_above(VecD a, VecD b) { return vmaxvq_u32(vreinterpretq_u32_u64(vcgtq_f64(a, b))) != 0; }

}  // namespace
