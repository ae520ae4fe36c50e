#include "candidates.h"

#include <algorithm>
#include <cmath>

namespace geodiff {
namespace {

constexpr double kNothing = 100;  // rows so far down weigh nothing beside what is counted

}  // namespace

void Candidates::offer(const double* logits, const float* away, int64_t first, int R, const int32_t* list) {
    const Reach reach = kernels_.reach(logits, away, row_error_, base_error_, R);
    if (reach.upper < std::min(threshold(), counts_ ? max_ - kNothing : 1e308)) return;
    raise(reach.lower);
    if (overflowed_) return;
    const auto row = [&](int r) { return first + (list ? list[r] : r); };
    if (nearest_.wanted() > 0)
        for (int r = 0; r < R; ++r) nearest_.offer(logits[r] - row_error_ * double(away[r]) - base_error_, row(r));
    double least = threshold();
    if (counts_) forgotten_ += kernels_.below(logits, away, row_error_, base_error_, least, max_, R);
    if (reach.upper < least) return;
    for (int r = 0; r < R; ++r) {
        const double most = logits[r] + row_error_ * double(away[r]) + base_error_;
        if (!(most >= least)) continue;
        if (int64_t(kept_.size()) >= room_) {
            forget(least);
            while (int64_t(kept_.size()) > room_ * 3 / 4 && width_ > cut_) {
                width_ = std::max(cut_, 0.75 * width_);
                least = threshold();
                forget(least);
            }
            if (!(most >= least)) {
                if (counts_) forgotten_ += std::exp(most - max_);
                continue;
            }
            if (width_ <= cut_) room_ = kMaxCandidates;
            if (int64_t(kept_.size()) > kMaxCandidates * 3 / 4) {
                overflowed_ = true;
                std::vector<Candidate>().swap(kept_);
                return;
            }
        }
        kept_.push_back({row(r), most});
    }
}

void Candidates::raise(double lower) {
    if (!(lower > max_)) return;
    forgotten_ *= std::exp(max_ - lower);
    max_ = lower;
}

double Candidates::threshold() const {
    // Until k rows are known, all of them may be among the k nearest.
    const double nearest = nearest_.wanted() == 0 ? max_ : nearest_.full() ? nearest_.last() : -1e308;
    return std::min(max_ - width_, nearest);
}

void Candidates::forget(double least) {
    const auto goes = [&](const Candidate& c) {
        if (c.upper >= least) return false;
        if (counts_) forgotten_ += std::exp(c.upper - max_);
        return true;
    };
    kept_.erase(std::remove_if(kept_.begin(), kept_.end(), goes), kept_.end());
}

void Candidates::collect(double least, std::vector<Candidate>& rows) const {
    for (const Candidate& c : kept_)
        if (c.upper >= least) rows.push_back(c);
}

double Candidates::left_out(double least, double best) const {
    double sum = forgotten_ * std::exp(max_ - best);
    for (const Candidate& c : kept_)
        if (c.upper < least) sum += std::exp(c.upper - best);
    return sum;
}

Candidates::Ends Candidates::ends(const std::vector<const Candidates*>& parts) {
    const Candidates& first = *parts.front();
    Candidates all(first.kernels_, {first.cut_, first.width_, first.nearest_.wanted()}, 0, 0);
    for (const Candidates* part : parts) {
        all.max_ = std::max(all.max_, part->max_);
        all.width_ = std::min(all.width_, part->width_);
        all.nearest_.merge(part->nearest_);
    }
    return {all.max_, all.threshold(), all.width_};
}

}  // namespace geodiff
