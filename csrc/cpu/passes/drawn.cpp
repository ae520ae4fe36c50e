#include "drawn.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../products/bounds.h"
#include "../runtime/buffer.h"

namespace geodiff {
namespace {

constexpr int64_t kGroups = 8;  // of drawn rows, which tell how far estimates scatter

}  // namespace

// Of rows with logits l_i, those with the largest l_i + chance_i, chance_i = log f_i + a Gumbel number, are a sample in
// which row i is with probability pi_i = 1 - exp(-f_i exp(l_i - kappa)), kappa the largest sum that is left out: Cohen
// and Kaplan, "Summarizing data using bottom-k sketches" (2007). So sum w_i e_i (v_i - r) / pi_i over it has the wanted
// mean.
double error_of_logits(const Request& request, int64_t q, const Top& drawn, const Online& sums, const double* mean) {
    const int64_t d = request.rows.d;
    std::vector<Top::Entry> rows = drawn.entries();
    double threshold = -1e308;  // all rows are in the sample
    if (drawn.full()) {
        threshold = rows.back().logit;
        rows.pop_back();
    }
    std::sort(rows.begin(), rows.end(), [](const Top::Entry& a, const Top::Entry& b) { return a.row < b.row; });

    const double x2 = request.length(q), sigma = request.sigma[q];
    const double common = 0.5 * x2 * x2 / (sigma * sigma);  // the pass leaves it out
    std::vector<double> error, weight;
    double total = 0, centre = 0;
    for (const Top::Entry& entry : rows) {
        const double l = entry.logit - double(request.shaping.chance[entry.row]);
        const double excess = l + double(request.shaping.log_size[entry.row]) - threshold;
        const double seen = -std::expm1(-std::exp(std::min(excess, 700.0)));
        error.push_back(request.logit(q, entry.row) + common - l);
        weight.push_back(std::exp(l - sums.max) / sums.sum / seen);
        total += weight.back();
        centre += weight.back() * error.back();
    }
    centre /= total;  // an error common to all rows leaves r alone

    Buffer<double> estimates(kGroups * d, true);
    double share[kGroups] = {};
    for (size_t i = 0; i < rows.size(); ++i) {
        const int64_t group = int64_t(i) % kGroups;
        const double factor = weight[i] * (error[i] - centre);
        share[group] += factor;
        request.add_row(factor, rows[i].row, estimates.data() + group * d);
    }
    for (int64_t g = 0; g < kGroups; ++g)
        for (int64_t k = 0; k < d; ++k) estimates[g * d + k] -= share[g] * mean[k];

    // |sum of the groups|^2 is on average |E_w[e (v - r)]|^2 and the scatter of single rows. It errs by the products of
    // different rows, and those of different groups tell by how much, if roughly: hence twice the square.
    constexpr double kPairs = kGroups * (kGroups - 1) / 2;
    const auto dot = request.kernels.vectors.dot;
    double square = 0, products = 0, squares = 0, with_others[kGroups] = {};
    for (int64_t g = 0; g < kGroups; ++g) {
        const double* mine = estimates.data() + g * d;
        square += dot(mine, mine, d);
        for (int64_t h = 0; h < g; ++h) {
            const double product = dot(mine, estimates.data() + h * d, d);
            square += 2 * product;
            products += product;
            squares += product * product;
            with_others[g] += product;
            with_others[h] += product;
        }
    }
    const double pair = std::max(0.0, squares / kPairs - products * products / (kPairs * kPairs));
    // Where the error stands out, a group's products with all others rise and fall together.
    double group = 0;
    for (const double sum : with_others) group += std::pow(sum - 2 * products / kGroups, 2) / (kGroups - 1);
    const double together = std::max(0.0, group - (kGroups - 1) * pair);
    const double deviation = 2 * std::sqrt(kPairs * pair + kGroups * together) * kGroups / (kGroups - 1);
    return std::sqrt(2 * square + kDeviations * deviation);
}

}  // namespace geodiff
