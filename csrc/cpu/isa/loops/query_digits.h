// Queries as digits: rounded to integers, cut to balanced digits and put where the first product reads them.
#pragma once

#include <cmath>
#include <cstring>

#include "../table.h"

namespace {

// value[k] = x[k] scale, rounded to the nearest integer, or up with the probability of its fraction where `up` is given
// (uniform numbers in [0, 1)). Returns the sum of the squared roundings, and each in `rest`. Adding 1.5 2^52 rounds,
// and leaves the integer in the low bits: std::floor would be a function call on a baseline x86-64, and so would be the
// way from a double to 64 bits before AVX-512.
template <bool UP, class Int>
inline double round_scaled(const double* x, double scale, const float* up, int64_t n, Int* value, float* rest) {
    constexpr double kMagic = 0x1.8p52;
    constexpr int64_t kMagicBits = 0x4338000000000000;
    double residual = 0;
#pragma omp simd reduction(+ : residual)
    for (int64_t k = 0; k < n; ++k) {
        const double exact = x[k] * scale;
        const double shifted = exact + (UP ? double(up[k]) - 0.5 : 0.0) + kMagic;
        const double rounded = shifted - kMagic;
        residual += (exact - rounded) * (exact - rounded);
        rest[k] = float(exact - rounded);
        if constexpr (sizeof(Int) == 8) {
            int64_t bits;
            std::memcpy(&bits, &shifted, 8);
            value[k] = bits - kMagicBits;
        } else {
            value[k] = Int(rounded);
        }
    }
    return residual;
}

// Splits the lowest balanced digit off every value; the last is the value.
template <class Digit, class Int>
inline int64_t split(Int* value, bool last, Digit* digit) {
    constexpr Int kHalf = Int(1) << (8 * sizeof(Digit) - 1);
    int32_t total = 0;  // of kPad digits
    if (last) {
#pragma omp simd reduction(+ : total)
        for (int64_t k = 0; k < geodiff::kPad; ++k) {
            digit[k] = Digit(value[k]);
            total += int32_t(value[k]);
        }
        return total;
    }
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < geodiff::kPad; ++k) {
        const Int low = ((value[k] + kHalf) & (2 * kHalf - 1)) - kHalf;
        digit[k] = Digit(low);
        total += int32_t(low);
        value[k] = (value[k] - low) >> (8 * sizeof(Digit));
    }
    return total;
}

// TOGETHER: IntegerLayout::columns_together.
template <class Digit, int TOGETHER, class Int, bool UP>
double place_blocks(const double* x, int64_t d, const geodiff::DigitRounding& how, const geodiff::DigitPlace& to) {
    constexpr int64_t kPad = geodiff::kPad;
    constexpr int kMostParts = 4;
    const double scale = 1 / how.step;
    Digit* target[kMostParts];
    int64_t total[kMostParts] = {};
    for (int part = 0; part < how.parts; ++part) {
        const int64_t v = how.first + part;
        target[part] = reinterpret_cast<Digit*>(to.digits) + v / to.group * to.group * to.dp + v % to.group * TOGETHER;
    }
    double residual = 0;
    for (int64_t k = 0; k < d; k += kPad) {
        const int64_t len = d - k < kPad ? d - k : kPad;
        Int value[kPad];
        float rest[kPad];
        const float* up = UP ? how.up + k % geodiff::kDithers : nullptr;
        residual += round_scaled<UP>(x + k, scale, up, len, value, rest);
        for (int64_t i = len; i < kPad; ++i) value[i] = 0;
        if (how.lost)
            for (int64_t i = 0; i < len; ++i) how.lost[k + i] = rest[i] * float(how.step);
        for (int part = how.parts - 1; part >= 0; --part) {
            Digit digit[kPad];
            total[part] += split(value, part == 0, digit);
            for (int64_t i = 0; i < kPad; i += TOGETHER, target[part] += TOGETHER * to.group)
                std::memcpy(target[part], digit + i, TOGETHER * sizeof(Digit));
        }
    }
    for (int part = 0; part < how.parts; ++part) to.total[how.first + part] += total[part];
    return std::sqrt(residual) * how.step;
}

// Values of more than 31 bits take 64.
template <class Digit, int TOGETHER = int(geodiff::kPad)>
double place_digits(const double* x, int64_t d, const geodiff::DigitRounding& how, const geodiff::DigitPlace& to) {
    const bool wide = how.parts * 8 * int(sizeof(Digit)) > 24;
    if (wide)
        return how.up ? place_blocks<Digit, TOGETHER, int64_t, true>(x, d, how, to)
                      : place_blocks<Digit, TOGETHER, int64_t, false>(x, d, how, to);
    return how.up ? place_blocks<Digit, TOGETHER, int32_t, true>(x, d, how, to)
                  : place_blocks<Digit, TOGETHER, int32_t, false>(x, d, how, to);
}

}  // namespace
