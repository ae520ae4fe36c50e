// Vectors of any width that the compiler has or takes apart: Shape comes from the target.
#pragma once

#include "floats.h"

namespace {

inline VecF widen_u8(const uint8_t* p) {
    VecF v;
    for (int i = 0; i < kF; ++i) v[i] = float(int(p[i]) - 128);
    return v;
}

inline VecF widen_f16(const uint16_t* p) {
    VecF v;
    for (int i = 0; i < kF; ++i) v[i] = half_to_float(p[i]);
    return v;
}

inline VecF widen_bf16(const uint16_t* p) {
    VecF v;
    for (int i = 0; i < kF; ++i) v[i] = bfloat_to_float(p[i]);
    return v;
}

}  // namespace
