// Rows drawn from the posterior, exactly: no weight is dropped and none is stored.
#pragma once

#include "kernels.h"
#include "types.h"

namespace geodiff {

// index[q, j] = the first row at which the distribution function of query q exceeds uniform[q, j] in [0, 1).
// uniform and index: [batch, count].
void draw(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, int64_t count,
          const double* uniform, int64_t* index);

}  // namespace geodiff
