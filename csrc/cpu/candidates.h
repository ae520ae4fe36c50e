// Rows that may matter to a query, and their float64 treatment in difference form.
#pragma once

#include <vector>

#include "kernels.h"
#include "top.h"
#include "types.h"

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
    // The threshold after parts[0], parts[stride], ... have each seen their share of the rows.
    static double least(const Candidates* parts, int64_t count, int64_t stride);

  private:
    double threshold() const;

    double cut_, row_error_, base_error_;
    double max_ = -1e308;  // of the lower ends of the logits
    bool overflowed_ = false;
    Top nearest_;  // by lower end
    std::vector<Candidate> kept_;
};

// The exact logit -|x - v|^2 / (2 sigma^2) + bias of one row, in difference form.
double logit(const Kernels& kernels, const Rows& rows, const Request& request, int64_t q, int64_t row);

// Exact answers for queries `which`, each over its own list of rows: logits -|x - v|^2 / (2 sigma^2) + bias in float64.
void refine(const Kernels& kernels, const Rows& rows, const Request& request, const std::vector<int64_t>& which,
            const std::vector<std::vector<int64_t>>& lists, double cut, Path path, Answer& answer);

// The same over all rows, tile by tile: the last resort when no bound suffices, and the plain way for small problems.
void exact(const Kernels& kernels, const Rows& rows, const Request& request, const std::vector<int64_t>& which,
           double cut, Answer& answer);

}  // namespace geodiff
