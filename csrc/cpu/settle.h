// Exact logits for the heaviest rows of a finished dense pass: where few rows carry the weight, the error of float32
// logits is all theirs.
#pragma once

#include "candidates.h"
#include "kernels.h"
#include "top.h"
#include "types.h"

namespace geodiff {

// What is left of the posterior without the settled rows.
struct Rest {
    double weight;   // sum of w
    double largest;  // no w is larger
    double trace;    // sum of w |v - r|^2
};

// `nearest` has the largest logits of the pass. Brings the sums and the mean (both of `query`, normalised) up to date.
// False if a logit was off by more than first-order bounds bear.
bool settle(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, int64_t query,
            const Top& nearest, double cut, Online& sums, double* mean, Rest& rest);

}  // namespace geodiff
