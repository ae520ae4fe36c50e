// Inner products that earlier evaluations along a trajectory left: what is new of a query is shorter than the query,
// and takes a digit less.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../isa/vector_table.h"

namespace geodiff {

// <y, v_i> for a vector y near each query: docs/trajectories.md.
class Known {
  public:
    struct Entry {
        std::vector<double> y;               // [d]
        std::unique_ptr<double[]> products;  // [rows]
        int64_t rows = 0;
        bool whole = false;  // false: a pass over the rows has begun and not ended, or none has
        double length = 0;   // of the latest r that a dense pass left, as contract 1 measures it; 0: none has
        double ess = 0;      // how many rows that was the mean of, in effect
        double crowded = 0;  // the last noise level at which too many rows mattered for a list of them; 0: none
        double swamped = 0;  // the same for screening
        int digits = 0;      // that said what was new of the query, in the latest pass
        int64_t passes = 0;  // that have left products
        // Rounding weights to integers moves r by so much, times the largest integer: the guess for the latest pass (0:
        // none), and what a pass found, over its guess (0: none has told).
        double rounding_guess = 0;
        double rounding_ratio = 0;

        // What was in vain at the noise level `failed`, 0 for never, may be tried again at a lower one.
        static bool worth_trying(double sigma, double failed) { return failed == 0 || sigma < 0.8 * failed; }
        // The factor f for which f y is nearest to x; 0 where that says nothing.
        double factor(const VectorLoops& loops, const double* x) const;
    };

    explicit Known(int64_t batch, bool prepared = false) : shapes(prepared), entries_(size_t(batch)) {}

    // Whether principal coordinates are there whatever was asked before, since they were prepared or a dense pass of
    // the same trajectory has asked for them: `shapes` now, `shaped` before this evaluation, which all its threads see.
    bool shaped = false;
    std::atomic<bool> shapes{false};
    void begin_evaluation() { shaped = shapes; }

    Entry& entry(int64_t q) { return entries_[size_t(q)]; }
    const Entry& entry(int64_t q) const { return entries_[size_t(q)]; }
    // Whether products of all queries with n rows are within the budget.
    bool affords(int64_t n) const { return int64_t(entries_.size()) * n * int64_t(sizeof(double)) <= kBudget; }

  private:
    static constexpr int64_t kBudget = 256 << 20;

    std::vector<Entry> entries_;
};

}  // namespace geodiff
