// A posterior for every number of a row, over its own subset of the numbers: PCA locality.
#pragma once

#include "../request.h"

namespace geodiff {

struct Subset {
    SubsetSums sums;
    double temperature;     // logits are -(squared differences in the subset) / (2 sigma^2 temperature) + log prior
    const int32_t* mirror;  // [d] or null: where the mirror image of a row, which is a further row, has its numbers
};

// Writes r [batch, d] in centred units, in float64 throughout. held [batch] is 0 where sums by differences may have
// lost more digits than `tol` allows: to be asked again with every sum from nothing.
void subset_posterior(const Request& request, const Subset& subset, double* mean, int8_t* held);

}  // namespace geodiff
