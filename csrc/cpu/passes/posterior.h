// r*(x; sigma) and its companions to contract 1: picks the pass for every query and checks what comes back.
#pragma once

#include "../request.h"

namespace geodiff {

void posterior(const Request& request, Answer& answer);

}  // namespace geodiff
