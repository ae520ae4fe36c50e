// A data set as the CPU core holds it: a view of the caller's rows and what one pass found out about them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "passes/covariance.h"
#include "passes/draw.h"
#include "passes/local.h"
#include "passes/memory.h"
#include "passes/prepare.h"
#include "passes/shape.h"
#include "passes/subset.h"
#include "request.h"

namespace geodiff {

// Queries against rows [begin, end) in model units; else std::domain_error for an x with NaN or Inf.
struct Query {
    const Table* kernels = nullptr;
    const void* x = nullptr;  // [batch, d]  float if `single`, else double
    bool single = false;
    const double* sigma = nullptr;      // [batch]
    const double* log_prior = nullptr;  // as in Request, of row 0 of the data
    const int64_t* exclude =
        nullptr;  // [batch] or null: a row of the data, -1 for none; its prior weight stays as it is
    int64_t log_prior_stride = 0, batch = 0, begin = 0, end = 0;
    double tol = 0, log_tol = kLogError;
    int threads = 1;
};

// out = gain r + sum_k factors[k] terms[k], each [batch, d] of the precision of the queries. `out` may be the queries'
// or one of the terms' memory.
struct Combination {
    double gain;
    std::vector<double> factors;
    std::vector<const void*> terms;
    void* out;
};

// What an answer took, query by query, and the rows that were read for all of them.
struct Spent {
    int8_t* path;   // [batch] as in Answer
    double* error;  // [batch] the bound on |r - exact r|, as a part of what contract 1 measures it against; null
                    // without a memory, if it is not wanted
    int64_t rows;
};

class Data {
  public:
    // `found` by both looks at these rows.
    Data(const Rows& rows, std::shared_ptr<const Statistics> found);

    // The mean, its error and the trace in model units.
    void posterior(const Query& query, int64_t topk, Answer& answer) const;

    // A solver's update with the r that it needs, which is kept nowhere else. `memory` or null: of earlier calls for
    // the same queries, as they were then, over the same rows, log priors and excluded rows.
    void combine(const Query& query, const Combination& combination, Memory* memory, Spent& spent) const;

    // Cov_w(c, x_i) [batch, d] and Cov_w(c, |x - x_i|^2) [batch] with c_i = <x_i - r, v> + slope |x - x_i|^2, all in
    // model units; `direction.mean` is r.
    void covariance(const Query& query, const Direction& direction, Covariance& out) const;

    // Rows drawn from the posterior, by the inverse of its distribution function.
    void draw(const Query& query, const Draws& draws) const;

    // A local denoiser, whose `mean` and `copies` are set here. The mean and the variance in model units.
    void local(const Query& query, Local local, const LocalAnswer& answer) const;
    // A posterior for every number, see passes/subset.h. The mean in model units.
    void subset(const Query& query, const Subset& subset, double* mean, int8_t* held) const;

    // See passes/steps.h; everything in model units, over all rows, x in float64.
    void inner_products(const Query& query, double* out) const;
    void weighted_mean(const Query& query, const double* logits, double* mean) const;
    void squared_distances(const Query& query, const int64_t* candidates, int64_t width, double* out) const;

    // Makes what else large calls make when they first want it: the principal coordinates of the rows, unless they are
    // there or not worth it.
    void shape(const Table& kernels, int threads) const;
    // The same as they were written by another that holds these rows: as many bytes as `coordinates_bytes` says.
    bool shaped() const;
    int64_t coordinates_bytes() const { return Coordinates::bytes(rows_.n, rows_.d); }
    void write_coordinates(char* to) const;
    void read_coordinates(const char* from) const;

    const double* mean() const { return mean_.data(); }                   // [d], model units
    double reach() const { return stats_.scale.max_norm / stats_.unit; }  // max_i |x_i|
    const Rows& rows() const { return rows_; }

  private:
    struct Centred;  // queries, rows and statistics in centred units
    // Answers the queries for which what is remembered suffices; returns the others.
    std::vector<int64_t> recall(const Query& query, const Combination& combination, Memory& memory, Spent& spent) const;
    struct Coordinating;  // asks for principal coordinates on behalf of a query
    Shaping shaping(const Query& query) const;
    Request whole(const Query& query) const;  // all rows, the queries' own x

    Rows rows_;
    std::shared_ptr<const Statistics> found_;
    Stats stats_;  // they point into `found_`
    Buffer<double> mean_;
    mutable std::mutex guard_;
    mutable std::unique_ptr<const Coordinates> coordinates_;
    mutable std::atomic<int64_t> unspared_{0};  // rows that passes have read for want of coordinates
};

}  // namespace geodiff
