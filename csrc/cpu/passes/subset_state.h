// What posteriors that lie side by side have summed up: max, mass, total and square, `count` numbers of each.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../isa/table.h"
#include "../runtime/buffer.h"

namespace geodiff {

constexpr int64_t kSubsetSums = 4;

inline SubsetState subset_state(double* sums, int64_t count) {
    return {sums, sums + count, sums + 2 * count, sums + 3 * count};
}

inline Buffer<double> subset_sums_of_nothing(int64_t count) {
    Buffer<double> sums(kSubsetSums * count, true);
    std::fill_n(sums.data(), count, Online{}.max);
    return sums;
}

// The sums of query i of all pieces, in their order.
inline Buffer<double> joined_subset_sums(const std::vector<std::vector<Buffer<double>>>& shares, int64_t i,
                                         int64_t count) {
    Buffer<double> all = subset_sums_of_nothing(count);
    for (int64_t k = 0; k < count; ++k) {
        for (const auto& share : shares) all[k] = std::max(all[k], share[size_t(i)][k]);
        for (const auto& share : shares) {
            const double* const from = share[size_t(i)].data();
            const double by = from[count + k] > 0 ? std::exp(from[k] - all[k]) : 0;
            for (int64_t s = 1; s < kSubsetSums; ++s) all[s * count + k] += by * from[s * count + k];
        }
    }
    return all;
}

}  // namespace geodiff
