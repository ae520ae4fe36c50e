#include "candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace geodiff {
namespace {

constexpr double kNothing = 100;  // rows so far down weigh nothing beside what is counted

}  // namespace

void Candidates::offer(const double* logits, const float* away, int64_t first, int R, const int32_t* list) {
    if (given_up()) return;
    const Reach reach = kernels_.reach(logits, away, row_error_, base_error_, R);
    if (reach.upper < std::min(least(), counts_ ? max_ - kNothing : 1e308)) return;
    raise(reach.lower);
    const auto row = [&](int r) { return first + (list ? list[r] : r); };
    if (nearest_.wanted() > 0)
        for (int r = 0; r < R; ++r) nearest_.offer(logits[r] - row_error_ * double(away[r]) - base_error_, row(r));
    const double before = least();
    if (counts_) forgotten_ += kernels_.below(logits, away, row_error_, base_error_, before, max_, R);
    if (reach.upper < before) return;
    double now = before;
    for (int r = 0; r < R; ++r) {
        const double most = logits[r] + row_error_ * double(away[r]) + base_error_;
        if (!(most >= before)) continue;
        if (int64_t(kept_.size()) >= room_) {
            make_room();
            now = least();
        }
        if (most >= now)
            kept_.push_back({row(r), most});
        else if (counts_)
            forgotten_ += std::exp(most - max_);
    }
}

void Candidates::raise(double lower) {
    if (!(lower > max_)) return;
    forgotten_ *= std::exp(max_ - lower);
    max_ = lower;
}

// Rows whose logit may be as large are wanted, if these are as far down as `width`.
double Candidates::needed(double width) const {
    // Until k rows are known, all of them may be among the k nearest.
    const double nearest = nearest_.wanted() == 0 ? max_ : nearest_.full() ? nearest_.last() : -1e308;
    return std::min(max_ - width, nearest);
}

// Rows beyond the cut go first, by steps; of those within it the lowest, exactly as many as must.
void Candidates::make_room() {
    forget(least());
    const auto full = [&] { return int64_t(kept_.size()) > room_ * 3 / 4; };
    for (double width = max_ - least(); full() && width > cut_;) {
        width = std::max(cut_, 0.75 * width);
        kept_from_ = std::max(kept_from_, needed(width));
        forget(kept_from_);
    }
    if (!full()) return;
    if (counts_ && room_ < kMaxCandidates) {
        room_ = kMaxCandidates;
        width_ = cut_;  // such a list is to be no longer than it must
        return;
    }
    double goes = std::numeric_limits<double>::infinity();
    if (!counts_) {
        std::vector<double> upper;
        for (const Candidate& c : kept_) upper.push_back(c.upper);
        std::nth_element(upper.begin(), upper.begin() + room_ * 3 / 4, upper.end(), std::greater<>());
        goes = upper[size_t(room_ * 3 / 4)];
    }
    kept_from_ = std::nextafter(goes, std::numeric_limits<double>::infinity());
    forget(kept_from_);
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
        all.kept_from_ = std::max(all.kept_from_, part->kept_from_);
        all.nearest_.merge(part->nearest_);
    }
    const double width = std::min(all.width_, all.max_ - all.kept_from_);
    return {all.max_, all.needed(width), width, all.kept_from_ <= all.needed(all.cut_)};
}

}  // namespace geodiff
