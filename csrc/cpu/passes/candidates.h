// Rows that may matter to a query, as a pass with logits of known error finds them.
#pragma once

#include <cstdint>
#include <vector>

#include "top.h"

namespace geodiff {

constexpr int64_t kMaxCandidates = 2048;  // per query and piece of the rows; more than that is the dense pass's work

struct Candidate {
    int64_t row;
    double upper;  // the most its logit can be
};

// Keeps the rows that can carry weight (less than `cut` below the largest logit) or be among the `wanted` nearest,
// where the logit of row r is known to +- (row_error away_r + base_error).
class Candidates {
  public:
    Candidates(double cut, double row_error, double base_error, int64_t wanted)
        : cut_(cut), row_error_(row_error), base_error_(base_error), nearest_(wanted) {}

    // Offers R logits of rows first, first + 1, ...; away[0..R) belongs to them.
    void offer(const double* logits, const float* away, int64_t first, int R);
    bool overflowed() const { return overflowed_; }
    // Appends the rows whose logit may be at least `least`.
    void collect(double least, std::vector<int64_t>& rows) const;
    // The threshold after `parts` have each seen their share of the rows.
    static double least(const std::vector<const Candidates*>& parts);

  private:
    double threshold() const;

    double cut_, row_error_, base_error_;
    double max_ = -1e308;  // of the lower ends of the logits
    bool overflowed_ = false;
    Top nearest_;  // by lower end
    std::vector<Candidate> kept_;
};

}  // namespace geodiff
