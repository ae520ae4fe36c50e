// How many rows carry weight, guessed from an even sample before any pass. A wrong guess costs time, never accuracy.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "types.h"

namespace geodiff {

enum class Spread : uint8_t {
    few,   // screening and refinement of single rows is cheaper than the dense pass
    some,  // dense, but weights so unequal that two digits will hardly hold them
    many,
};

// Of queries [first, first + count), in their order.
std::vector<Spread> guess_spread(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                                 int64_t first, int64_t count);

}  // namespace geodiff
