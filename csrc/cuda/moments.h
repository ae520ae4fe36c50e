// What is made of the posterior's weights beside its mean, in float64 differences: covariances and draws.
#pragma once

#include "types.h"

namespace geodiff::cuda {

// Rows whose weights are summed up at first, and of which one lot is looked at again for each draw.
constexpr int kLot = 256;

// c_i = <v_i, v> - along[0] + along[2] f_i and f_i = |x - v_i|^2 - along[1] for every query, centred units. All kernels
// here take x as the problem has it: double, centred.
struct Covariance {
    Problem problem;
    const double* v;      // [batch, d]
    const double* along;  // [3, batch]
    const double* mean;   // [batch, d] r, centred units
    double* with_rows;    // [batch, d] Cov_w(c, v_i)
    double* with_far;     // [batch] Cov_w(c, f)
    double* sums;         // [parts, batch, d]
    double* states;       // [parts, batch, 5] largest logit; sums of p, p c, p f, p c f
    int64_t parts;
    int dtype;
};
void covariance(const Covariance& covariance, uintptr_t stream);

// The largest logit of every lot of rows, and the sum of exp(logit - largest): [lots, batch] each.
struct Masses {
    Problem problem;
    double *top, *mass;
    int dtype;
};
void masses(const Masses& masses, uintptr_t stream);

// The first row of its lot at which the running sum of exp(logit - largest of the lot) exceeds its target, for every
// draw; the last one of any weight, should rounding end short. All [batch, count].
struct Picks {
    Problem problem;
    const double* top;  // [lots, batch]
    const int64_t* lot;
    const double* target;
    int64_t* row;
    int64_t count;
    int dtype;
};
void picks(const Picks& picks, uintptr_t stream);

}  // namespace geodiff::cuda
