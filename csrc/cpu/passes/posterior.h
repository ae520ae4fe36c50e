// r*(x; sigma) and its companions to contract 1: picks the pass for every query and checks what comes back.
#pragma once

#include <vector>

#include "../request.h"
#include "memory.h"

namespace geodiff {

// All queries; or `which` of them, of which `memory` keeps what the next evaluation may want to know.
void posterior(const Request& request, Answer& answer);
void posterior(const Request& request, const std::vector<int64_t>& which, Answer& answer, Memory* memory);

}  // namespace geodiff
