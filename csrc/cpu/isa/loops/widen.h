// Rows as stored -> float32.
#pragma once

#include <type_traits>

#include "../table.h"

namespace {

using geodiff::DType;

template <DType T>
constexpr int64_t kBytes = T == DType::u8    ? 1
                           : T == DType::f32 ? 4
                                             : 2;

template <DType T>
inline float value(const void* row, int64_t k) {
    if constexpr (T == DType::u8) return float(int(static_cast<const uint8_t*>(row)[k]) - 128);
    if constexpr (T == DType::f16) return half_to_float(static_cast<const uint16_t*>(row)[k]);
    if constexpr (T == DType::bf16) return bfloat_to_float(static_cast<const uint16_t*>(row)[k]);
    if constexpr (T == DType::f32) return static_cast<const float*>(row)[k];
    return 0;
}

// Columns [k, k + kF) of a row.
template <DType T>
inline VecF wide(const void* row, int64_t k) {
    if constexpr (T == DType::u8) return widen_u8(static_cast<const uint8_t*>(row) + k);
    if constexpr (T == DType::f16) return widen_f16(static_cast<const uint16_t*>(row) + k);
    if constexpr (T == DType::bf16) return widen_bf16(static_cast<const uint16_t*>(row) + k);
    return load<VecF>(static_cast<const float*>(row) + k);
}

// The same where the row ends before k + kF: zero from there on.
template <DType T>
inline VecF wide_tail(const void* row, int64_t k, int64_t d) {
    float v[kF] = {};
    for (int64_t i = k; i < d; ++i) v[i - k] = value<T>(row, i);
    return load<VecF>(v);
}

// dst[0..len) = columns k, k + 1, ... of a row
template <DType T>
inline void widen_part(const void* row, int64_t k, int64_t len, float* dst) {
    int64_t i = 0;
    GEODIFF_UNROLL4 for (; i + kF <= len; i += kF) store(dst + i, wide<T>(row, k + i));
    for (; i < len; ++i) dst[i] = value<T>(row, k + i);
}
template <DType T>
inline void widen_part(const void* row, int64_t k, int64_t len, double* dst) {
    constexpr int64_t kSome = 64;
    float some[kSome];
    for (int64_t base = 0; base < len; base += kSome) {
        const int64_t size = len - base < kSome ? len - base : kSome;
        widen_part<T>(row, k + base, size, some);
        for (int64_t i = 0; i < size; ++i) dst[base + i] = double(some[i]);
    }
}

template <class F>
inline auto for_dtype(DType dtype, F&& f) {
    switch (dtype) {
        case DType::u8:
            return f(std::integral_constant<DType, DType::u8>{});
        case DType::f16:
            return f(std::integral_constant<DType, DType::f16>{});
        case DType::bf16:
            return f(std::integral_constant<DType, DType::bf16>{});
        default:
            return f(std::integral_constant<DType, DType::f32>{});
    }
}

}  // namespace
