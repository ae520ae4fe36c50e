// Real numbers as balanced base-256 digits in int8, so that products with bytes are exact integers.
#pragma once

#include <cstdint>

namespace geodiff {

// A fixed pseudo-random number in [0, 1) per index: stochastic rounding must be unbiased *and* the same on every run.
inline double dither(uint64_t i) {
    i = (i + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
    i = (i ^ (i >> 27)) * 0x94d049bb133111ebull;
    return double((i ^ (i >> 31)) >> 11) * 0x1p-53;
}

// value = d[0] 256^(parts-1) + ... + d[parts-1], every digit in [-128, 127]; |value| <= 127 * 256^(parts-1).
inline void split_digits(int64_t value, int parts, int8_t* d, int64_t stride) {
    for (int k = parts - 1; k > 0; --k) {
        const int64_t low = ((value + 128) & 255) - 128;
        d[k * stride] = int8_t(low);
        value = (value - low) / 256;
    }
    d[0] = int8_t(value);
}

}  // namespace geodiff
