#include "digits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace geodiff {

const float* dithers() {
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

namespace {

// value[k] = x[k] scale, rounded to the nearest integer, or up with the probability of its fraction where `up` is given
// (uniform numbers in [0, 1)). Returns the sum of the squared roundings, and each in `rest` unless null. Adding 1.5
// 2^52 rounds: std::floor would be a function call on a baseline x86-64.
template <class Int>
double round_scaled(const double* x, double scale, const float* up, int64_t n, Int* value, float* rest) {
    constexpr double kMagic = 0x1.8p52;
    double residual = 0;
#pragma omp simd reduction(+ : residual)
    for (int64_t k = 0; k < n; ++k) {
        const double exact = x[k] * scale;
        const double shifted = exact + (up ? double(up[k]) - 0.5 : 0.0) + kMagic;
        const double rounded = shifted - kMagic;
        residual += (exact - rounded) * (exact - rounded);
        value[k] = Int(rounded);
        if (rest) rest[k] = float(exact - rounded);
    }
    return residual;
}

// Splits the lowest balanced digit off every value.
template <class Digit, class Int>
int64_t split(Int* value, int64_t n, bool last, Digit* digit) {
    constexpr Int kHalf = Int(1) << (8 * sizeof(Digit) - 1);
    int64_t total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < n; ++k) {
        const Int low = last ? value[k] : ((value[k] + kHalf) & (2 * kHalf - 1)) - kHalf;
        digit[k] = Digit(low);
        total += low;
        value[k] = (value[k] - low) >> (8 * sizeof(Digit));
    }
    return total;
}

template <class Digit, class Int>
double place(const double* x, int64_t d, double step, const float* up, int parts, int64_t first, const DigitPlace& to,
             float* lost) {
    std::vector<Int> value(static_cast<size_t>(d));
    std::vector<Digit> digit(static_cast<size_t>(d));
    double residual = 0;
    for (int64_t base = 0; base < d; base += kDithers)
        residual += round_scaled(x + base, 1 / step, up, std::min(kDithers, d - base), value.data() + base,
                                 lost ? lost + base : nullptr);
    if (lost)
        for (int64_t k = 0; k < d; ++k) lost[k] *= float(step);
    for (int part = parts - 1; part >= 0; --part) {
        const int64_t v = first + part, g = v / to.group;
        to.total[v] += split(value.data(), d, part == 0, digit.data());
        Digit* target = reinterpret_cast<Digit*>(to.digits) + g * to.group * to.dp + v % to.group * kPad;
        for (int64_t k = 0; k < d; k += kPad, target += kPad * to.group)
            std::memcpy(target, digit.data() + k, size_t(std::min(kPad, d - k)) * sizeof(Digit));
    }
    return std::sqrt(residual) * step;
}

}  // namespace

double place_query(const double* x, int64_t d, double step, const float* up, int bits, int parts, int64_t first,
                   const DigitPlace& to, float* lost) {
    if (bits == 16)
        return parts == 1 ? place<int16_t, int32_t>(x, d, step, up, parts, first, to, lost)
                          : place<int16_t, int64_t>(x, d, step, up, parts, first, to, lost);
    return parts < 4 ? place<int8_t, int32_t>(x, d, step, up, parts, first, to, lost)
                     : place<int8_t, int64_t>(x, d, step, up, parts, first, to, lost);
}

}  // namespace geodiff
