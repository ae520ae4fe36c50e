// The steps of the fused pass as operations of their own, for work that needs one without the others.
#pragma once

#include "../request.h"

namespace geodiff {

// out[q, i] = <x_q, v_i>, [batch, n]; x in any units, v in centred units.
void inner_products(const Request& request, double* out);

// mean[q] = sum_i softmax_i(l[q, :]) v_i for given logits l [batch, n]; rows that carry nothing are not read.
void weighted_mean(const Request& request, const double* l, double* mean);

// out[q, j] = |x_q - v_c|^2 in difference form, c = candidates[q, j] (infinity where c < 0), [batch, width].
void squared_distances(const Request& request, const int64_t* candidates, int64_t width, double* out);

}  // namespace geodiff
