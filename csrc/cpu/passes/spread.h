// How many rows carry weight, guessed from an even sample before any pass. A wrong guess costs time, never accuracy.
#pragma once

#include <cstdint>
#include <vector>

#include "../request.h"

namespace geodiff {

struct BySpread {
    std::vector<int64_t> few;  // screening and refinement of single rows is cheaper than the dense pass
    // Dense, but weights so unequal that 16 bits will hardly hold them, or logits in float32 the heaviest of them.
    std::vector<int64_t> some;
    std::vector<int64_t> many;
    std::vector<int64_t> most;  // 8 bits of weights will do
};

// Of the queries `which`, in their order.
BySpread by_spread(const Request& request, const std::vector<int64_t>& which);

}  // namespace geodiff
