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

// Calls f(column, values) for the columns of some rows that a lane of a warp has, `values` one for each row. 16 bytes
// per lane, row and load where rows lie right for that.
template <DType T, int Rows, class F>
__device__ __forceinline__ void over_rows(const void* rows, const int64_t (&row)[Rows], int64_t d, F f) {
    using Item = typename Stored<T>::Item;
    constexpr int kPer = 16 / int(sizeof(Item));
    const Item* at[Rows];
    for (int r = 0; r < Rows; ++r) at[r] = static_cast<const Item*>(rows) + row[r] * d;
    const int lane = threadIdx.x % 32, columns = int(d);
    double values[Rows];
    if (uintptr_t(rows) % 16 == 0 && d % kPer == 0) {
        for (int k = lane * kPer; k < columns; k += 32 * kPer) {
            unsigned words[Rows][4];
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
                const uint4 packed = *reinterpret_cast<const uint4*>(at[r] + k);
                words[r][0] = packed.x;
                words[r][1] = packed.y;
                words[r][2] = packed.z;
                words[r][3] = packed.w;
            }
#pragma unroll
            for (int i = 0; i < kPer; ++i) {
#pragma unroll
                for (int r = 0; r < Rows; ++r) {
                    const unsigned bits = words[r][i * int(sizeof(Item)) / 4] >> (i * int(sizeof(Item)) % 4 * 8);
                    if constexpr (T == DType::f32)
                        values[r] = Stored<T>::value(float_of_bits(bits));
                    else
                        values[r] = Stored<T>::value(Item(bits));
                }
                f(k + i, values);
            }
        }
    } else {
        for (int k = lane; k < columns; k += 32) {
            for (int r = 0; r < Rows; ++r) values[r] = Stored<T>::value(at[r][k]);
            f(k, values);
        }
    }
}

// Sum over a warp of f(column, value) along one row. Every lane gets the sum.
template <DType T, class F>
__device__ __forceinline__ double warp_over_row(const void* rows, int64_t row, int64_t d, F f) {
    double total = 0;
    const int64_t one[1] = {row};
    over_rows<T>(rows, one, d, [&](int64_t k, const double (&value)[1]) { total += f(k, value[0]); });
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
