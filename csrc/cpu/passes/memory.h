// What an evaluation of r leaves for the next one, at a state that may lie anywhere: the rows that could matter, and
// how far all others were at least. While that keeps them out, no pass over the rows is needed. docs/trajectories.md.
#pragma once

#include <cstdint>
#include <vector>

#include "../request.h"

namespace geodiff {

// The least and the largest log prior of the rows that a query sees.
struct PriorRange {
    double least = 0, most = 0;
};

// What is known of one query.
struct Anchor {
    std::vector<int64_t> rows;  // rising; none: nothing is known
    std::vector<double> x;      // [d]  where it was, in centred units
    double sigma = 0;           // there
    double floor = 0;           // |x - v_i|^2 / 2 - sigma^2 log prior_i is no less, for any other row i that is seen

    // No other row has a larger logit at a noise level s and at a distance `moved` from x. By the triangle inequality.
    double most(double moved, double s, const PriorRange& prior) const;
};

class Memory {
  public:
    // `prepared`: principal coordinates, where they are worth having, were there before the trajectory began.
    explicit Memory(int64_t batch, bool prepared = false)
        : anchors_(size_t(batch)), priors_(size_t(batch)), known_(batch, prepared) {}

    // The inner products with n rows, or null where they would take too much memory.
    Known* known(int64_t n) { return known_.affords(n) ? &known_ : nullptr; }

    const Known& known() const { return known_; }
    const Anchor& anchor(int64_t q) const { return anchors_[size_t(q)]; }
    bool knows(int64_t q) const { return !anchors_[size_t(q)].rows.empty(); }
    // Rows that a list may have, where its distances shall cost less than a share of a pass.
    int64_t room() const;

    // Answers query 0 of `one`, which is query q of this, if the rows that are known suffice: all others together then
    // have no more weight than tol, and move r by no more than screening allows. Rows that cannot matter for long are
    // forgotten.
    bool recall(const Request& one, int64_t q, Answer& answer);

    static constexpr double kWidth = 4;  // cuts below the largest logit, down to which a list is made

    // Keeps that the logits of all rows but those of `list` are `margin` below the largest, or more, where the
    // logarithm of the sum of weights is log_sum; nothing where there is no room for the list.
    void keep(const Request& request, int64_t q, std::vector<int64_t> list, double margin, double log_sum);
    void forget(int64_t q) { anchors_[size_t(q)].rows.clear(); }

  private:
    std::vector<Anchor> anchors_;
    std::vector<PriorRange> priors_;  // of queries that are known
    Known known_;
};

}  // namespace geodiff
