// Exact answers in float64 and difference form: over a list of rows per query, or over all of them.
#pragma once

#include <vector>

#include "../request.h"

namespace geodiff {

// Queries `which`, each over its own list of rows; rows further than `cut` below the largest logit take nothing.
void refine(const Request& request, const std::vector<int64_t>& which, const std::vector<std::vector<int64_t>>& lists,
            double cut, Path path, Answer& answer);

// The same for one query whose logits are known: l[i] belongs to list[i].
void weigh(const Request& request, int64_t q, const std::vector<int64_t>& list, const double* l, double cut, Path path,
           Answer& answer);

// The same over all rows, tile by tile: the last resort when no bound suffices, and the plain way for small problems.
void exact(const Request& request, const std::vector<int64_t>& which, double cut, Answer& answer);

}  // namespace geodiff
