// Stored values as float64 in centred units.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

__host__ __device__ inline float float_of_bits(uint32_t bits) {
    union {
        uint32_t u;
        float f;
    } v{bits};
    return v.f;
}

// Exponents are moved by a multiplication with 2^112, which is exact for subnormal halves too. No NaN or Inf gets here.
__host__ __device__ inline float float_of_half(uint16_t h) {
    return float_of_bits(uint32_t(h & 0x8000u) << 16 | uint32_t(h & 0x7fffu) << 13) *
           5192296858534827628530496329220096.0f;
}

template <DType T>
struct Stored;
template <>
struct Stored<DType::u8> {
    using Item = uint8_t;
    __host__ __device__ static double value(Item u) { return double(int(u) - 128); }
};
template <>
struct Stored<DType::f16> {
    using Item = uint16_t;
    __host__ __device__ static double value(Item h) { return double(float_of_half(h)); }
};
template <>
struct Stored<DType::bf16> {
    using Item = uint16_t;
    __host__ __device__ static double value(Item h) { return double(float_of_bits(uint32_t(h) << 16)); }
};
template <>
struct Stored<DType::f32> {
    using Item = float;
    __host__ __device__ static double value(Item f) { return double(f); }
};

// Sum over a warp of f(column, value) along one row, 16 bytes per lane and load where the row lies right for that.
// Every lane gets the sum.
template <DType T, class F>
__device__ __forceinline__ double warp_over_row(const void* rows, int64_t row, int64_t d, F f) {
    using Item = typename Stored<T>::Item;
    constexpr int kPer = 16 / int(sizeof(Item));
    const Item* at = static_cast<const Item*>(rows) + row * d;
    const int lane = threadIdx.x % 32;
    double total = 0;
    if (uintptr_t(at) % 16 == 0 && d % kPer == 0) {
        for (int64_t k = int64_t(lane) * kPer; k < d; k += 32 * kPer) {
            const uint4 packed = *reinterpret_cast<const uint4*>(at + k);
            const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
            for (int i = 0; i < kPer; ++i) {
                const unsigned bits = words[i * int(sizeof(Item)) / 4] >> (i * int(sizeof(Item)) % 4 * 8);
                if constexpr (T == DType::f32)
                    total += f(k + i, Stored<T>::value(float_of_bits(bits)));
                else
                    total += f(k + i, Stored<T>::value(Item(bits)));
            }
        }
    } else {
        for (int64_t k = lane; k < d; k += 32) total += f(k, Stored<T>::value(at[k]));
    }
    return warp_sum(total);
}

// Calls f(integral constant of the dtype).
template <class F>
void for_dtype(int dtype, F&& f) {
    switch (DType(dtype)) {
        case DType::u8:
            return f(std::integral_constant<DType, DType::u8>{});
        case DType::f16:
            return f(std::integral_constant<DType, DType::f16>{});
        case DType::bf16:
            return f(std::integral_constant<DType, DType::bf16>{});
        case DType::f32:
            return f(std::integral_constant<DType, DType::f32>{});
    }
    throw std::invalid_argument("dtype: unknown number " + std::to_string(dtype));
}

}  // namespace geodiff::cuda
