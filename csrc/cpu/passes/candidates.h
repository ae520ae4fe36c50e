// Rows that may matter to a query, as a pass with logits of known error finds them.
#pragma once

#include <cstdint>
#include <vector>

#include "../isa/table.h"
#include "top.h"

namespace geodiff {

constexpr int64_t kMaxCandidates = 2048;  // per query and piece of the rows; more than that is the dense pass's work
constexpr int64_t kBrief = 256;           // beyond the cut, where a list is to be short

struct Candidate {
    int64_t row;
    double upper;  // the most its logit can be
};

// Keeps the rows that can carry weight (less than `cut` below the largest logit) or be among the `nearest` ones,
// where the logit of row r is known to +- (row_error away_r + base_error). As long as there is room, those less than
// `width` >= cut below the largest as well.
class Candidates {
  public:
    // `best`: what the largest logit is known to be at least. `counts`: the weight of rows that are not kept is summed
    // up, so that no more of them need be kept than that allows.
    struct Wanted {
        double cut, width;
        int64_t nearest = 0;
        double best = -1e308;
        bool counts = false;
    };
    Candidates(const Table& kernels, const Wanted& wanted, double row_error, double base_error)
        : kernels_(kernels),
          cut_(wanted.cut),
          width_(wanted.width),
          row_error_(row_error),
          base_error_(base_error),
          counts_(wanted.counts),
          room_(wanted.counts ? kBrief : kMaxCandidates),
          max_(wanted.best),
          nearest_(wanted.nearest) {}

    // Offers R logits of rows first, first + 1, ..., or first + list[0], first + list[1], ...; away[0..R) belongs to
    // them.
    void offer(const double* logits, const float* away, int64_t first, int R, const int32_t* list = nullptr);
    bool overflowed() const { return overflowed_; }
    double best() const { return max_; }  // the largest logit is no less, even where too many rows were kept
    // Appends what is kept of the rows whose logit may be at least `least`.
    void collect(double least, std::vector<Candidate>& rows) const;
    // No more than the weight of all rows that `collect` leaves out, in units of e^best, if they were counted.
    double left_out(double least, double best) const;
    // After `parts` have each seen their share of the rows: the largest logit is no less than `best`; all rows are kept
    // whose logit may be at least `least`, and those between best - cut and best - width.
    struct Ends {
        double best, least, width;
    };
    static Ends ends(const std::vector<const Candidates*>& parts);

  private:
    double threshold() const;
    void raise(double lower);
    void forget(double least);

    const Table& kernels_;
    double cut_, width_, row_error_, base_error_;
    bool counts_;
    int64_t room_;          // for those beyond the cut
    double max_;            // of the lower ends of the logits
    double forgotten_ = 0;  // weight of rows that are not kept, in units of e^max, if they are counted
    bool overflowed_ = false;
    Top nearest_;  // by lower end
    std::vector<Candidate> kept_;
};

}  // namespace geodiff
