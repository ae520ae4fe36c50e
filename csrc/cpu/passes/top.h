// The k largest logits seen, ties to the lower row. Rows that a query does not see, of logit -inf, have no rank.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../isa/vector_table.h"

namespace geodiff {

class Top {
  public:
    struct Entry {
        double logit;
        int64_t row;
    };

    explicit Top(int64_t k) : k_(k) {}

    void offer(double logit, int64_t row) {
        if (k_ > 0 && !std::isinf(logit)) add({logit, row});
    }

    void offer(const VectorLoops& loops, const double* logits, int64_t first, int R) {
        if (k_ == 0) return;
        for (int r = 0; r < R; r += kLooked) {
            const int end = std::min(R, r + kLooked);
            if (loops.largest(logits + r, end - r) < least_.logit) continue;
            for (int i = r; i < end; ++i) offer(logits[i], first + i);
        }
    }

    // What comes after it has no rank.
    const Entry& least() const { return least_; }
    // `least`: that of other entries, which these will be merged with: what comes after it has no rank among all of
    // them.
    void rise(const Entry& least) {
        if (before(least, least_)) least_ = least;
    }
    static constexpr Entry kNothing{-1e308, INT64_MAX};  // comes after everything
    int64_t wanted() const { return k_; }
    bool full() const { return int64_t(kept_.size()) >= k_; }

    void merge(const Top& other) {
        for (const Entry& e : other.kept_) offer(e.logit, e.row);
    }

    // In no order, but that the k-th comes last where there are so many.
    const std::vector<Entry>& entries() const {
        drop();
        return kept_;
    }
    double last() const { return entries().back().logit; }  // the k-th largest; only when full

    void rows(std::vector<int64_t>& out) const {
        for (const Entry& e : entries()) out.push_back(e.row);
    }

    // Largest first, with weights exp(logit - max) / sum; fewer rows than k leave index -1 and weight 0. Not by the
    // logarithm of the sum, which is rounded to what lies far apart where logits are large.
    void write(double max, double sum, int64_t* index, double* weight) {
        drop();
        std::sort(kept_.begin(), kept_.end(), before);
        for (int64_t i = 0; i < k_; ++i) {
            const bool have = i < int64_t(kept_.size());
            index[i] = have ? kept_[size_t(i)].row : -1;
            weight[i] = have ? std::exp(kept_[size_t(i)].logit - max) / sum : 0;
        }
    }

    // True if `a` ranks before `b`.
    static bool before(const Entry& a, const Entry& b) {
        return a.logit > b.logit || (a.logit == b.logit && a.row < b.row);
    }

  private:
    static constexpr int kLooked = 32;  // of which the largest is looked at first
    static constexpr int kSpare = 16;

    // Once k more have come than are wanted, the lowest are dropped together: cheaper than a heap that drops each.
    void add(const Entry& e) {
        if (!before(e, least_)) return;
        kept_.push_back(e);
        if (int64_t(kept_.size()) >= 2 * k_ + kSpare) drop();
    }
    void drop() const {
        const int64_t size = int64_t(kept_.size());
        if (k_ == 0 || size < k_ || (size == k_ && kept_.back().row == least_.row)) return;
        std::nth_element(kept_.begin(), kept_.begin() + (k_ - 1), kept_.end(), before);
        kept_.resize(size_t(k_));
        if (before(kept_.back(), least_)) least_ = kept_.back();
    }

    int64_t k_;
    mutable Entry least_ = kNothing;
    mutable std::vector<Entry> kept_;  // the k largest and some more
};

}  // namespace geodiff
