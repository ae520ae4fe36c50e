// Sums across the lanes of several registers at once: three instructions for each but the last few, where one register
// by itself takes three for every halving.
#pragma once

#include <utility>

#include "../vec/constants.h"

namespace {

// The lanes of two neighbours are added in pairs, of ever larger blocks, until one register has a block for all.
template <int S, int N, int... I>
GEODIFF_INLINE VecD fold_lanes(VecD* v, std::integer_sequence<int, I...> lanes) {
    if constexpr (N == 1) {
        return v[0];
    } else {
        GEODIFF_UNROLL for (int i = 0; i < N / 2; ++i) {
            const VecD x = v[2 * i], y = v[2 * i + 1];
            v[i] = __builtin_shufflevector(x, y, (I / S % 2 * kD + I / (2 * S) * 2 * S + I % S)...) +
                   __builtin_shufflevector(x, y, (I / S % 2 * kD + I / (2 * S) * 2 * S + I % S + S)...);
        }
        return fold_lanes<2 * S, N / 2>(v, lanes);
    }
}

constexpr int power_of_two_in(int n) { return n < 2 ? 1 : 2 * power_of_two_in(n / 2); }

// to[i] += the sum of the lanes of v[i], which are scratch afterwards.
template <int N>
GEODIFF_INLINE void add_lane_sums(VecD* v, double* to) {
    constexpr int kTogether = power_of_two_in(N < kD ? N : kD);
    double sums[kD];
    store(sums, fold_lanes<1, kTogether>(v, std::make_integer_sequence<int, kD>{}));
    for (int width = kD / 2; width >= kTogether; width /= 2)
        for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
    for (int j = 0; j < kTogether; ++j) to[j] += sums[j];
    if constexpr (N > kTogether) add_lane_sums<N - kTogether>(v + kTogether, to + kTogether);
}

}  // namespace
