// A data set as the CPU core holds it: a view of the caller's rows and what one pass found out about them.
#pragma once

#include <string>

#include "buffer.h"
#include "posterior.h"
#include "prepare.h"

namespace geodiff {

class Data {
  public:
    // Throws std::domain_error naming the first row with NaN or Inf.
    Data(const void* rows, DType dtype, int64_t n, int64_t d, int threads);

    // Queries against rows [begin, end); `x`, `sigma` and the mean in model units.
    void posterior(const Kernels& kernels, const double* x, const double* sigma, const double* bias, int64_t batch,
                   int64_t begin, int64_t end, double tol, int64_t topk, int threads, Answer& answer) const;

    // See operations.h; everything in model units.
    void inner_products(const Kernels& kernels, const double* x, int64_t batch, int threads, double* out) const;
    void weighted_mean(const Kernels& kernels, const double* logits, int64_t batch, double tol, int threads,
                       double* mean) const;
    void squared_distances(const Kernels& kernels, const double* x, const int64_t* candidates, int64_t batch,
                           int64_t width, int threads, double* out) const;

    const double* mean() const { return mean_.data(); }  // [d], model units
    double max_norm() const { return stats_.max_model_norm / stats_.unit; }
    double mean_square() const { return stats_.mean_square / (stats_.unit * stats_.unit); }
    const Rows& rows() const { return rows_; }
    const Stats& stats() const { return stats_; }

  private:
    Rows rows_;
    Stats stats_{};
    Buffer<double> half_norm_, mean_;
    Buffer<float> away_;
};

}  // namespace geodiff
