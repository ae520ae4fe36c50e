// One pass over stored rows: norms, mean, radius, and whether every value is finite.
#pragma once

#include "../isa/table.h"
#include "../request.h"

namespace geodiff {

// Fills half_norm [n], away [n] and mean [d], in centred units, and every number of `stats`, which points to the first
// two. Returns the first row with NaN or Inf, or -1.
int64_t prepare(const Table& kernels, const Rows& rows, int threads, double* half_norm, float* away, double* mean,
                Stats& stats);

}  // namespace geodiff
