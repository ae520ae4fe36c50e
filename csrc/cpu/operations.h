// The steps of the fused pass as operations of their own, for work that needs one without the others.
#pragma once

#include "kernels.h"
#include "types.h"

namespace geodiff {

// out[q, i] = <x_q, v_i>, [batch, n]; x in any units, v in centred units.
void inner_products(const Kernels& kernels, const Rows& rows, const Stats& stats, const double* x, int64_t batch,
                    int threads, double* out);

// mean[q] = sum_i softmax_i(l[q, :]) v_i for given logits l [batch, n]; rows that carry nothing are not read.
void weighted_mean(const Kernels& kernels, const Rows& rows, const Stats& stats, const double* l, int64_t batch,
                   double tol, int threads, double* mean);

// out[q, j] = |x_q - v_c|^2 in difference form, c = candidates[q, j] (infinity where c < 0), [batch, width].
void squared_distances(const Kernels& kernels, const Rows& rows, const double* x, const int64_t* candidates,
                       int64_t batch, int64_t width, int threads, double* out);

}  // namespace geodiff
