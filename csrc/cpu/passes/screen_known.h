// Screening that reads no row: along a trajectory, products that are known and principal coordinates of what is new of
// a query say how large each logit can be. docs/trajectories.md, "Between the two".
#pragma once

#include <vector>

#include "../request.h"
#include "memory.h"

namespace geodiff {

// Whether so much is known of query q that its logits are likely to be told apart, and it is not long ago that too many
// of its rows mattered.
bool may_screen_known(const Request& request, const Shaping& shaping, int64_t q);

// Answers those of the queries `which` for which few rows can matter, which `memory` then keeps; returns the others.
// Rows that are left out may have a share of what r may be off by where `request.known->shaped`, but for lists that
// shall be `wide`, which serve memory longer; else nothing.
std::vector<int64_t> screen_known(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which,
                                  Answer& answer, Memory& memory, bool wide = false);

}  // namespace geodiff
