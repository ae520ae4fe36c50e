#include "memory.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "refine.h"

namespace geodiff {
namespace {

constexpr double kRounding = 1e-11;  // of distances in float64, far more than d additions leave
constexpr double kKept = 3;          // rows further below the best than so many cuts are forgotten

PriorRange prior_range(const Request& request, int64_t q) {
    const double* prior = request.prior_of(q);
    if (!prior) return {};
    PriorRange range{1e308, -1e308};
    for (int64_t i = 0; i < request.rows.n; ++i) {
        if (std::isinf(prior[i])) continue;  // not seen
        range.least = std::min(range.least, prior[i]);
        range.most = std::max(range.most, prior[i]);
    }
    return range;
}

}  // namespace

// A row of log prior L lies at s >= sqrt(2 (floor + sigma^2 L)) from x, and at s - moved from where the query is now,
// so that its logit there is at most g(s) = (s^2 / 2 - floor) / sigma^2 - (s - moved)^2 / 2 level^2 for the L that
// belongs to s. Rising up to s = moved, then concave if level < sigma and convex but rising else.
double Anchor::most(double moved, double level, const PriorRange& prior) const {
    if (std::isinf(floor)) return kUnseen;  // there is no other row
    const double low = floor - kRounding * std::fabs(floor), away = moved * (1 + kRounding);
    const auto reach = [&](double log_prior) {
        return std::sqrt(std::max(0.0, 2 * (low + sigma * sigma * log_prior)));
    };
    // Of the rows for which the floor says nothing the one of largest weight counts.
    const double least = std::clamp(-low / (sigma * sigma), prior.least, prior.most);
    const double nearest = reach(least), farthest = reach(prior.most);
    const auto logit = [&](double s, double log_prior) {
        const double left = std::max(0.0, s - away);
        return log_prior - 0.5 * left * left / (level * level);
    };
    double largest = std::max(logit(nearest, least), logit(farthest, prior.most));
    if (level < sigma) {
        const double ratio = level / sigma, peak = away / (1 - ratio * ratio);
        if (peak > nearest && peak < farthest)
            largest = std::max(largest, logit(peak, (0.5 * peak * peak - low) / (sigma * sigma)));
    }
    return largest;
}

int64_t Memory::room() const {
    return std::clamp<int64_t>(8192 / std::max<int64_t>(1, int64_t(anchors_.size())), 128, 2048);
}

bool Memory::recall(const Request& one, int64_t q, Answer& answer) {
    Anchor& anchor = anchors_[size_t(q)];
    if (anchor.rows.empty()) return false;
    const double* x = one.query(0);
    const double level = one.sigma[0], cut = std::max(one.cut(), std::log(double(one.rows.n) / one.tol));
    const double moved = std::sqrt(one.kernels.vectors.squared_distance(x, anchor.x.data(), one.rows.d));
    const double others = anchor.most(moved, level, priors_[size_t(q)]);
    std::vector<double> logits;
    for (const int64_t row : anchor.rows) logits.push_back(one.logit(0, row));
    const double best = *std::max_element(logits.begin(), logits.end());
    one.read(int64_t(logits.size()));
    if (!(others <= best - cut)) return false;
    weigh(one, 0, anchor.rows, logits.data(), cut, Path::remembered, answer);

    const double least = std::max(others, best - kKept * cut);
    double forgotten = others;
    size_t left = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] >= least)
            anchor.rows[left++] = anchor.rows[i];
        else
            forgotten = std::max(forgotten, logits[i]);
    }
    if (left < anchor.rows.size()) {
        anchor.rows.resize(left);
        anchor.x.assign(x, x + one.rows.d);
        anchor.sigma = level;
        anchor.floor = -level * level * forgotten;
    }
    return true;
}

void Memory::keep(const Request& request, int64_t q, std::vector<int64_t> list, double margin, double log_sum) {
    Anchor& anchor = anchors_[size_t(q)];
    if (int64_t(list.size()) > room()) return forget(q);
    if (anchor.x.empty()) priors_[size_t(q)] = prior_range(request, q);
    const double* x = request.query(q);
    anchor.rows = std::move(list);
    anchor.x.assign(x, x + request.rows.d);
    anchor.sigma = request.sigma[q];
    anchor.floor = anchor.sigma * anchor.sigma * (margin - log_sum);  // the largest logit is no more than log_sum
}

}  // namespace geodiff
