// Real numbers as digits to the base 2^8 or 2^16, balanced or unsigned, so that products with bytes are exact integers.
#pragma once

#include <cstdint>
#include <vector>

#include "../isa/table.h"

namespace geodiff {

// Fixed pseudo-random numbers in [0, 1): stochastic rounding must be unbiased *and* the same on every run. The table is
// read from any start below kDithers, for up to kMaxTileRows entries.
constexpr int64_t kDithers = 4096;
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

// Query vectors of one block as the first product takes them: [groups][dp/64][group][64] digits.
struct DigitPlace {
    char* digits;
    int64_t* total;  // [groups*group]  sum of the digits, to which they are added
    int64_t group, dp;
};

// x[0..d) in units of `step`, rounded to `parts` balanced digits of `bits` bits, as vectors first, first + 1, ... of
// the block; rounded up with the probability of the fraction where `up` is given (uniform numbers), else to nearest.
// Returns the length of what was rounded away, and that itself in lost[0..d) unless null.
double place_query(const double* x, int64_t d, double step, const float* up, int bits, int parts, int64_t first,
                   const DigitPlace& to, float* lost = nullptr);

}  // namespace geodiff
