// Posteriors of candidates whose logits are given: ELS, whose logits are products of patches.
#pragma once

#include <cstdint>

#include "../isa/table.h"

namespace geodiff {

// Logits [rows, count] of candidates, and their values [channels, count].
struct GivenLogits {
    const double *logits, *values;
    int64_t rows, count, channels;
};

// What every row of logits has summed up: max and mass [rows], total [rows, channels], as GivenState has them.
struct GivenSums {
    double *max, *mass, *total;
};

// Adds candidates to each row's posterior; those further than `cut` below its largest logit may be left out. How many
// pairs of a row and a candidate were not.
int64_t add_given(const Table& kernels, const GivenLogits& given, double cut, int threads, const GivenSums& to);

}  // namespace geodiff
