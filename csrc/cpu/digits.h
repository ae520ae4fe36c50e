// Real numbers as base-256 digits in bytes, balanced ([-128, 127]) or unsigned, so that products with bytes are exact
// integers.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace geodiff {

// Fixed pseudo-random numbers in [0, 1): stochastic rounding must be unbiased *and* the same on every run. The table is
// read from any start below kDithers, for up to kMaxTileRows entries.
constexpr int64_t kDithers = 4096;

inline const float* dithers() {
    static const std::vector<float> table = [] {
        std::vector<float> t(size_t(kDithers + kMaxTileRows));
        for (uint64_t i = 0; i < t.size(); ++i) {
            uint64_t h = (i + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
            h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
            t[size_t(i)] = float((h ^ (h >> 31)) >> 40) * 0x1p-24f;
        }
        return t;
    }();
    return table.data();
}

// The largest numbers of two and three digits that a weight may have: unsigned, and balanced for those of either sign.
constexpr double kTwoUnsigned = 0xffff, kThreeUnsigned = 0xffffff;
constexpr double kTwoBalanced = 127 * 256, kThreeBalanced = kTwoBalanced * 256;

// value[k] = d[0][k] 256^(parts-1) + ... + d[parts-1][k], every digit in [-128, 127], for k < n; digits are stored part
// by part. |value| <= 127 * 256^(parts-1). Destroys `value`.
template <class Int>
inline void split_digits(Int* value, int64_t n, int parts, int8_t* digits) {
    for (int part = parts - 1; part > 0; --part) {
        int8_t* d = digits + part * n;
#pragma omp simd
        for (int64_t k = 0; k < n; ++k) {
            const Int low = ((value[k] + 128) & 255) - 128;
            d[k] = int8_t(low);
            value[k] = (value[k] - low) >> 8;
        }
    }
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) digits[k] = int8_t(value[k]);
}

}  // namespace geodiff
