#include "settle.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../products/bounds.h"

namespace geodiff {

bool settle(const Request& request, int64_t q, const Top& nearest, Online& sums, double* mean, Rest& rest) {
    const int64_t d = request.rows.d;
    const double sigma = request.sigma[q], x2 = request.length(q), cut = request.cut();
    const double common = 0.5 * x2 * x2 / (sigma * sigma);  // the pass leaves it out
    for (int64_t k = 0; k < d; ++k) mean[k] *= sums.sum_q;
    double settled = 0;
    std::vector<double> weights;
    for (const Top::Entry& e : nearest.entries()) {
        const double was = e.logit - sums.max, is = request.logit(q, e.row) + common - sums.max;
        if (std::fabs(is - was) > 0.1) return false;
        const double before = was < -cut ? 0 : std::exp(was), after = std::exp(is);
        sums.sum += after - before;
        sums.sum_q += after - before;
        sums.sum_l += after * is - before * was;
        sums.sum_2 += after * after - before * before;
        sums.sum_h += (after - before) * request.stats.half_away[e.row];
        request.add_row(after - before, e.row, mean);
        settled += after;
        weights.push_back(after);
    }
    for (int64_t k = 0; k < d; ++k) mean[k] /= sums.sum_q;
    double near = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
        const void* row = request.rows.row(nearest.entries()[i].row);
        near += weights[i] * request.kernels.distance(mean, row, request.rows.dtype, d);
    }
    const double square = request.kernels.vectors.squared_distance(mean, request.stats.mean, d);
    rest.weight = std::max(0.0, 1 - settled / sums.sum);
    rest.largest = nearest.full() ? std::exp(nearest.last() - sums.max) / sums.sum : 0;
    // A difference of numbers of the size of |r - mean|^2, known to a few 1e-7 of it.
    rest.trace = std::max(0.0, 2 * sums.sum_h / sums.sum - square - near / sums.sum) + 1e-6 * square;
    return true;
}

}  // namespace geodiff
