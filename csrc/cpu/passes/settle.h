// Exact logits for the heaviest rows of a finished dense pass: where few rows carry the weight, the error of float32
// logits is all theirs.
#pragma once

#include "../request.h"
#include "top.h"

namespace geodiff {

// What is left of the posterior without the settled rows.
struct Rest {
    double weight;   // sum of w
    double largest;  // no w is larger
    double trace;    // sum of w |v - r|^2
};

// `nearest` has the largest logits of the pass. Brings the sums and the mean (both of query q, normalised) up to date.
// False if a logit was off by more than first-order bounds bear.
bool settle(const Request& request, int64_t q, const Top& nearest, Online& sums, double* mean, Rest& rest);

}  // namespace geodiff
