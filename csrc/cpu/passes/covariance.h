// Posterior covariances with a linear function of the data: vJ, Jv and what sigma does to r, in one pass over the rows.
#pragma once

#include "../request.h"

namespace geodiff {

// c_i = <v_i - r, v> + slope |x - v_i|^2; all in centred units.
struct Direction {
    const double* mean;   // [batch, d]  r; an error in it enters as csrc/cpu/README.md says
    const double* v;      // [batch, d]
    const double* slope;  // [batch]
};

struct Covariance {
    double* with_rows;      // [batch, d]  Cov_w(c, v)
    double* with_distance;  // [batch]     Cov_w(c, |x - v|^2)
};

// with_rows to tol max(sqrt(Var_w(c) trace), 0.01 sigma^2 |v|, 0.01 sigma^2 |slope| max |x_i|): the first is the
// Cauchy-Schwarz bound on its length.
void covariance(const Request& request, const Direction& direction, Covariance& out);

}  // namespace geodiff
