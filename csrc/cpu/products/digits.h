// Real numbers as digits to the base 2^8 or 2^16, balanced or unsigned, so that products with bytes are exact integers.
#pragma once

#include <cstdint>

#include "../isa/table.h"

namespace geodiff {

// kDithers numbers, and kMaxTileRows more: stochastic rounding must be unbiased *and* the same on every run.
const float* dithers();

// The largest number that `parts` digits of `bits` bits hold: balanced digits must not carry out of the first.
inline double largest_balanced(int bits, int parts) {
    double base = 1;
    for (int part = 1; part < parts; ++part) base *= double(int64_t(1) << bits);
    return base * double((int64_t(1) << (bits - 1)) - 1);
}
inline double largest_unsigned(int bits, int parts) {
    double base = 1;
    for (int part = 0; part < parts; ++part) base *= double(int64_t(1) << bits);
    return base - 1;
}

}  // namespace geodiff
