// A data set as the CPU core holds it: a view of the caller's rows and what one pass found out about them.
#pragma once

#include <string>
#include <vector>

#include "buffer.h"
#include "posterior.h"
#include "prepare.h"

namespace geodiff {

// Queries against rows [begin, end), else std::domain_error for an x with NaN or Inf: x [batch, d] and sigma [batch] in
// model units, bias as in Request.
struct Query {
    const void* x;  // float if `single`, else double
    bool single;
    const double *sigma, *bias;
    int64_t bias_stride, batch, begin, end;
    double tol;
    int threads;
};

// out = gain r + sum_k factors[k] terms[k], each [batch, d] of the precision of the queries. `out` may be the queries'
// or one of the terms' memory.
struct Combination {
    double gain;
    std::vector<double> factors;
    std::vector<const void*> terms;
    void* out;
};

class Data {
  public:
    // Throws std::domain_error naming the first row with NaN or Inf.
    Data(const void* rows, DType dtype, int64_t n, int64_t d, int threads);

    // The mean and the trace in model units.
    void posterior(const Kernels& kernels, const Query& query, int64_t topk, Answer& answer) const;

    // A solver's update with the r that it needs, which is kept nowhere else. path [batch] as in Answer.
    void combine(const Kernels& kernels, const Query& query, const Combination& combination, int8_t* path) const;

    // Cov_w(c, x_i) [batch, d] and Cov_w(c, |x - x_i|^2) [batch] with c_i = <x_i - r, v> + slope |x - x_i|^2, all in
    // model units; `mean` is r.
    void covariance(const Kernels& kernels, const Query& query, const double* mean, const double* v,
                    const double* slope, double* with_rows, double* with_distance) const;

    // index [batch, count]: rows drawn from the posterior, by the inverse of its distribution function at `uniform`
    // [batch, count], each in [0, 1).
    void draw(const Kernels& kernels, const Query& query, int64_t count, const double* uniform, int64_t* index) const;

    // See operations.h; everything in model units.
    void inner_products(const Kernels& kernels, const double* x, int64_t batch, int threads, double* out) const;
    void weighted_mean(const Kernels& kernels, const double* logits, int64_t batch, double tol, int threads,
                       double* mean) const;
    void squared_distances(const Kernels& kernels, const double* x, const int64_t* candidates, int64_t batch,
                           int64_t width, int threads, double* out) const;

    const double* mean() const { return mean_.data(); }  // [d], model units
    const Rows& rows() const { return rows_; }
    const Stats& stats() const { return stats_; }

  private:
    struct Centred;  // queries, rows and statistics in centred units
    Rows rows_;
    Stats stats_{};
    Buffer<double> half_norm_, mean_;
    Buffer<float> away_;
};

}  // namespace geodiff
