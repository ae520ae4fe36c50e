// r*(x; sigma) and its companions to contract 1: picks the pass for every query and checks what comes back.
#pragma once

#include "kernels.h"
#include "types.h"

namespace geodiff {

void posterior(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, Answer& answer);

}  // namespace geodiff
