// Rows drawn from the posterior, exactly: no weight is dropped and none is stored.
#pragma once

#include "../request.h"

namespace geodiff {

struct Draws {
    int64_t count;          // of each query
    const double* uniform;  // [batch, count] in [0, 1)
    int64_t* index;         // [batch, count]
};

// index[q, j] = the first row at which the distribution function of query q exceeds uniform[q, j].
void draw(const Request& request, const Draws& draws);

}  // namespace geodiff
