// The data as stored, the same on every processor: dtypes, their units, and which way a query was answered.
#pragma once

#include <cstdint>

namespace geodiff {

enum class DType : int { u8 = 0, f16 = 1, bf16 = 2, f32 = 3 };

inline int64_t item_size(DType t) { return t == DType::u8 ? 1 : t == DType::f32 ? 4 : 2; }

// Rows are used in *centred units*: v = u - 128 for uint8, an exact integer, and the value itself for floats. In model
// space that is (v + shift) / unit: u / 127.5 - 1 = (v + 0.5) / 127.5.
inline double unit_of(DType t) { return t == DType::u8 ? 127.5 : 1; }
inline double shift_of(DType t) { return t == DType::u8 ? 0.5 : 0; }

enum class Path : int8_t { screened = 0, dense = 1, dense_fine = 2, exact = 3, remembered = 4 };

}  // namespace geodiff
