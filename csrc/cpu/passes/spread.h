// How many rows carry weight, guessed from an even sample before any pass. A wrong guess costs time, never accuracy.
#pragma once

#include <cstdint>
#include <vector>

#include "../request.h"

namespace geodiff {

// What a query asks of the dense pass, guessed.
struct DenseQuery {
    int64_t query;
    double units;    // how large an integer the largest of its weights must be
    double caution;  // by how much that guess is rather to be too high: a digit too few costs a whole pass
    bool uneven;     // so few rows carry so much of the weight that logits in float32 will hardly do
};

struct BySpread {
    std::vector<int64_t> few;  // screening and refinement of single rows is cheaper than the dense pass
    std::vector<DenseQuery> even;
};

// Of the queries `which`, in their order.
BySpread by_spread(const Request& request, const std::vector<int64_t>& which);

// A query that few rows were expected to answer, and do not.
DenseQuery crowded(const Request& request, int64_t q);

// By the bits that hold their weights: 8 for `most`, 16 for `many`, more for `some`.
struct ByUnits {
    std::vector<int64_t> some, many, most;
};
// `factor`: of the units that are wanted.
ByUnits by_units(const std::vector<DenseQuery>& even, double factor = 1);

}  // namespace geodiff
