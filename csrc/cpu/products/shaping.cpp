#include "shaping.h"

#include <algorithm>
#include <cmath>

namespace geodiff {

double Shaping::expected_error(double query_step, double sigma) const {
    return query_step * std::sqrt(mean_square * left / double(kDrawn)) / (sigma * sigma);
}

// As if all of it lay along the direction whose bytes are the coarsest, which is the one that data vary most along.
double Shaping::expected_error_of_bytes(double length, double sigma, double rows) const {
    const double byte = *std::max_element(step, step + count()) / std::sqrt(12.0);
    return length * byte * std::sqrt(mean_square * (1 / double(kDrawn) + 1 / rows)) / (sigma * sigma);
}

bool worth_shaping(int64_t n, int64_t d) {
    return d >= 8 * kDirections && n >= kDirections && n * d >= int64_t(1) << 25;
}

}  // namespace geodiff
