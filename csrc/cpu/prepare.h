// One pass over stored rows: norms, mean, radius, and whether every value is finite.
#pragma once

#include "kernels.h"
#include "types.h"

namespace geodiff {

struct Prepared {
    double radius, mean_square, max_norm, mean_norm, max_model_norm;
    int64_t bad_row;  // first row with NaN or Inf, or -1
};

// half_norm [n], away [n] and mean [d] are outputs, in centred units.
Prepared prepare(const Kernels& kernels, const Rows& rows, double shift, int threads, double* half_norm, float* away,
                 double* mean);

}  // namespace geodiff
