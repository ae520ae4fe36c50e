// The two ways over all rows: screening, which hands a few rows per query to `refine`, and the dense fused pass.
// Both return the queries they could not answer to the contract.
#pragma once

#include <vector>

#include "bounds.h"
#include "candidates.h"
#include "kernels.h"
#include "logits.h"
#include "types.h"

namespace geodiff {

struct Unanswered {
    std::vector<int64_t> blurred;  // too many candidates because the logits' error is wide: finer logits may help
    std::vector<int64_t> crowded;  // too many candidates because that many rows matter
};

Unanswered screen(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                  const std::vector<int64_t>& which, Precision precision, Answer& answer);

std::vector<int64_t> dense(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                           const std::vector<int64_t>& which, Precision precision, Answer& answer);

}  // namespace geodiff
