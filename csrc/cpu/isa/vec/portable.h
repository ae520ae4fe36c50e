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

inline VecF larger(VecF a, VecF b) { return a > b ? a : b; }
inline VecD larger(VecD a, VecD b) { return a > b ? a : b; }
// Whether a > b anywhere
inline bool any_above(VecF a, VecF b) {
    const VecI above = a > b;
    int any = 0;
    for (int i = 0; i < kF; ++i) any |= above[i];
    return any != 0;
}
inline bool any_above(VecD a, VecD b) {
    const VecL above = a > b;
    int64_t any = 0;
    for (int i = 0; i < kD; ++i) any |= above[i];
    return any != 0;
}

}  // namespace
