// Weights as digits: rounded to integers, cut to digits and put where the second product reads them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../table.h"
#include "../vec/macros.h"

namespace {

// What rounding has left of weights, in [-1, 1], as one digit.
template <class Digit, int ROWS>
void place_rests(const float* left, int R, const geodiff::WeightPlace& to, geodiff::RoundedWeights& found) {
    const float units = float(to.rest_units);
    const float *const up = to.rest_up, *const size = to.size;
    const int padded = (R + ROWS - 1) / ROWS * ROWS;
    Digit digit[geodiff::kMaxTileRows + ROWS];
    int32_t whole[geodiff::kMaxTileRows + ROWS];
    int32_t sum = 0;
    float sized = 0, variance = 0;
#pragma omp simd reduction(+ : sum, sized, variance)
    for (int r = 0; r < R; ++r) {
        const float exact = left[r] * units, away = std::fabs(left[r]);
        int32_t down = int32_t(exact);
        down -= exact < float(down) ? 1 : 0;  // where the conversion goes towards 0
        const float rest = exact - float(down);
        variance += rest * (1 - rest);
        whole[r] = down + (rest > up[r] ? 1 : 0);
        sum += whole[r];
        sized += away * (1 - away) * size[r];  // up with the fraction as probability, down with what is missing
    }
    for (int r = R; r < padded; ++r) whole[r] = 0;
    for (int r = 0; r < padded; ++r) digit[r] = Digit(whole[r]);
    *to.rest_total = sum;
    Digit* out = static_cast<Digit*>(to.rest);
    for (int r = 0; r < padded; r += ROWS, out += to.rest_step) std::memcpy(out, digit + r, ROWS * sizeof(Digit));
    found.sized = double(sized);
    found.rest_variance = double(variance) / (to.rest_units * to.rest_units);
}

// p[0..R) as integers, `top` being to.units; `left` (or null): what rounding has left of each.
template <bool BALANCED>
GEODIFF_INLINE geodiff::RoundedWeights round_to(const double* p, int R, double top, const geodiff::WeightPlace& to,
                                                int32_t* value, float* left) {
    const double units = to.units, least = 0x1p-120;
    const float quantum = float(top / units > least ? top / units : least);
    const double inverse = 1 / double(quantum);
    const float* const up = to.up;
    double total = 0;  // of integers: exact
    float variance = 0;
#pragma omp simd reduction(+ : total, variance)
    for (int r = 0; r < R; ++r) {
        const double scaled = p[r] * inverse, above = BALANCED && scaled < -units ? -units : scaled;
        const double exact = above < units ? above : units;
        int32_t whole = int32_t(exact);
        if (BALANCED) whole -= exact < double(whole);  // down, where the conversion goes towards 0
        const float rest = float(exact - double(whole));
        variance += rest * (1 - rest);
        const int32_t rounded = rest > up[r] ? 1 : 0;
        if (left) left[r] = rest - float(rounded);
        value[r] = whole + rounded;
        total += double(value[r]);
    }
    return {quantum, total, double(variance)};
}

template <class Digit, int ROWS, bool BALANCED, bool REST>
geodiff::RoundedWeights round_weights(const double* p, int R, const geodiff::WeightPlace& to) {
    constexpr int kBits = 8 * int(sizeof(Digit));
    constexpr int32_t kHalf = int32_t(1) << (kBits - 1), kMask = 2 * kHalf - 1;
    double top = 0;
#pragma omp simd reduction(max : top)
    for (int r = 0; r < R; ++r) {
        const double size = BALANCED ? std::fabs(p[r]) : p[r];
        top = size > top ? size : top;
    }
    int32_t value[geodiff::kMaxTileRows + ROWS];
    float left[geodiff::kMaxTileRows];
    geodiff::RoundedWeights found = round_to<BALANCED>(p, R, top, to, value, REST ? left : nullptr);
    for (int i = 0; i < ROWS; ++i) value[R + i] = 0;
    const int32_t bias = BALANCED ? 0 : to.bias;
    for (int part = to.parts - 1; part >= 0; --part) {
        Digit* out = static_cast<Digit*>(to.digits) + part * ROWS;
        Digit digit[geodiff::kMaxTileRows + ROWS];
        int32_t sum = 0;
        const int padded = (R + ROWS - 1) / ROWS * ROWS;
        if (part == 0) {
#pragma omp simd reduction(+ : sum)
            for (int r = 0; r < padded; ++r) {
                digit[r] = Digit(value[r] - bias);
                sum += value[r];
            }
        } else {
#pragma omp simd reduction(+ : sum)
            for (int r = 0; r < padded; ++r) {
                const int32_t low = BALANCED ? ((value[r] + kHalf) & kMask) - kHalf : value[r] & kMask;
                digit[r] = Digit(low - bias);
                sum += low;
                value[r] = (value[r] - low) >> kBits;
            }
        }
        to.total[part] = sum;
        for (int r = 0; r < padded; r += ROWS, out += to.step) std::memcpy(out, digit + r, ROWS * sizeof(Digit));
    }
    if constexpr (REST) place_rests<Digit, ROWS>(left, R, to, found);
    return found;
}

template <class Digit, int ROWS>
geodiff::RoundedWeights round_weights_of(const double* p, int R, bool balanced, const geodiff::WeightPlace& to) {
    if (to.rest)
        return balanced ? round_weights<Digit, ROWS, true, true>(p, R, to)
                        : round_weights<Digit, ROWS, false, true>(p, R, to);
    return balanced ? round_weights<Digit, ROWS, true, false>(p, R, to)
                    : round_weights<Digit, ROWS, false, false>(p, R, to);
}

inline int active_groups(const geodiff::WeightDigits& w) {
    return int(std::count_if(w.active, w.active + w.groups, [](uint8_t active) { return active != 0; }));
}

}  // namespace
