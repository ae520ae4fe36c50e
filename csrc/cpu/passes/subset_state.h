// What posteriors that lie side by side have summed up, as SubsetState has it, and its pieces joined.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../isa/table.h"
#include "../runtime/buffer.h"

namespace geodiff {

// Of `count` posteriors of `numbers` numbers each, whose squares are summed up, too, or not.
struct SubsetSize {
    int64_t count, numbers;
    bool squares;

    int64_t sums() const { return count * (2 + numbers * (squares ? 2 : 1)); }
    SubsetState state(double* sums) const {
        return {sums, sums + count, sums + 2 * count, squares ? sums + (2 + numbers) * count : nullptr};
    }
    Buffer<double> nothing() const {
        Buffer<double> all(sums(), true);
        std::fill_n(all.data(), count, Online{}.max);
        return all;
    }
    // The sums of query i of all pieces, in their order.
    Buffer<double> joined(const std::vector<std::vector<Buffer<double>>>& shares, int64_t i) const {
        Buffer<double> all = nothing();
        for (int64_t k = 0; k < count; ++k) {
            for (const auto& share : shares) all[k] = std::max(all[k], share[size_t(i)][k]);
            for (const auto& share : shares) {
                const double* const from = share[size_t(i)].data();
                if (!(from[count + k] > 0)) continue;
                const double by = std::exp(from[k] - all[k]);
                all[count + k] += by * from[count + k];
                for (int64_t first = 2 * count; first < sums(); first += count * numbers)
                    for (int64_t s = k * numbers; s < (k + 1) * numbers; ++s) all[first + s] += by * from[first + s];
            }
        }
        return all;
    }
};

}  // namespace geodiff
