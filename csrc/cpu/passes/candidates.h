// Rows that may matter to a query, as a pass with logits of known error finds them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../isa/table.h"
#include "top.h"

namespace geodiff {

constexpr int64_t kMaxCandidates =
    2048;                        // per query and piece of the rows; where more matter, that is the dense pass's work
constexpr int64_t kBrief = 256;  // beyond the cut, where a list is to be short

struct Candidate {
    int64_t row;
    double upper;  // the most its logit can be
};

// Keeps the rows that can carry weight (less than `cut` below the largest logit) or be among the `nearest` ones,
// where the logit of row r is known to +- (row_error away_r + base_error). As long as there is room, those less than
// `width` >= cut below the largest as well. Where there is no more, the lowest go: whether they matter is known at the
// end, for a row that lies far above them may come at any time.
class Candidates {
  public:
    // `counts`: the weight of rows that are not kept is summed up, so that no more of them need be kept than that
    // allows. Where there is no room for those within the cut, the rest is not looked at: such a list would be long.
    struct Wanted {
        double cut, width;
        int64_t nearest = 0;
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
          nearest_(wanted.nearest) {}

    // Offers R logits of rows first, first + 1, ..., or first + list[0], first + list[1], ...; away[0..R) belongs to
    // them.
    void offer(const double* logits, const float* away, int64_t first, int R, const int32_t* list = nullptr);
    // Of a list that counts, see Wanted: it is not whole, whatever comes.
    bool given_up() const { return std::isinf(kept_from_); }
    // Appends what is kept of the rows whose logit may be at least `least`.
    void collect(double least, std::vector<Candidate>& rows) const;
    // No more than the weight of all rows that `collect` leaves out, in units of e^best, if they were counted.
    double left_out(double least, double best) const;
    // After `parts` have each seen their share of the rows: the largest logit is no less than `best`; all rows are kept
    // whose logit may be at least `least`, and those between best - cut and best - width. `whole`: all that may matter
    // are among them.
    struct Ends {
        double best, least, width;
        bool whole;
    };
    static Ends ends(const std::vector<const Candidates*>& parts);

  private:
    double needed(double width) const;
    double least() const { return std::max(needed(width_), kept_from_); }
    void raise(double lower);
    void make_room();
    void forget(double least);

    const Table& kernels_;
    double cut_, width_, row_error_, base_error_;
    bool counts_;
    int64_t room_;               // for so many rows
    double max_ = -1e308;        // of the lower ends of the logits
    double kept_from_ = -1e308;  // no row went for want of room whose logit may be as large
    double forgotten_ = 0;       // weight of rows that are not kept, in units of e^max, if they are counted
    Top nearest_;                // by lower end
    std::vector<Candidate> kept_;
};

}  // namespace geodiff
