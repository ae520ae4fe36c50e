// The k largest logits seen, ties to the lower row. Rows that a query does not see, of logit -inf, have no rank.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace geodiff {

class Top {
  public:
    struct Entry {
        double logit;
        int64_t row;
    };

    explicit Top(int64_t k) : k_(k) {}

    void offer(double logit, int64_t row) {
        if (k_ == 0 || std::isinf(logit) || (full() && !before({logit, row}, heap_.front()))) return;
        if (full()) {
            std::pop_heap(heap_.begin(), heap_.end(), before);
            heap_.pop_back();
        }
        heap_.push_back({logit, row});
        std::push_heap(heap_.begin(), heap_.end(), before);
    }

    void offer(const double* logits, int64_t first, int R) {
        if (k_ == 0) return;
        double most = -1e308;
#pragma omp simd reduction(max : most)
        for (int r = 0; r < R; ++r) most = std::max(most, logits[r]);
        if (full() && most < last()) return;
        for (int r = 0; r < R; ++r) offer(logits[r], first + r);
    }

    int64_t wanted() const { return k_; }
    bool full() const { return int64_t(heap_.size()) == k_; }
    double last() const { return heap_.front().logit; }  // the k-th largest; only when full

    void merge(const Top& other) {
        for (const Entry& e : other.heap_) offer(e.logit, e.row);
    }

    const std::vector<Entry>& entries() const { return heap_; }  // in no order

    void rows(std::vector<int64_t>& out) const {
        for (const Entry& e : heap_) out.push_back(e.row);
    }

    // Largest first; fewer rows than k leave index -1 and weight 0.
    void write(double log_sum, int64_t* index, double* weight) {
        std::sort(heap_.begin(), heap_.end(), before);
        for (int64_t i = 0; i < k_; ++i) {
            const bool have = i < int64_t(heap_.size());
            index[i] = have ? heap_[size_t(i)].row : -1;
            weight[i] = have ? std::exp(heap_[size_t(i)].logit - log_sum) : 0;
        }
    }

    // True if `a` ranks before `b`; as heap order this keeps the lowest rank at the front.
    static bool before(const Entry& a, const Entry& b) {
        return a.logit > b.logit || (a.logit == b.logit && a.row < b.row);
    }

  private:
    int64_t k_;
    std::vector<Entry> heap_;
};

}  // namespace geodiff
