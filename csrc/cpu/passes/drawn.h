// The error that rounded logits leave in r, measured on rows that are drawn from the posterior.
#pragma once

#include "../request.h"
#include "top.h"

namespace geodiff {

// A bound on |E_w[e (v - r)]|, e the errors of the pass's logits. `drawn`: the kDrawn + 1 largest of logit + chance
// that the pass saw (products/shaping.h), the last of which says how likely the others were; `sums` and `mean` as it
// found them.
double error_of_logits(const Request& request, int64_t q, const Top& drawn, const Online& sums, const double* mean);

}  // namespace geodiff
