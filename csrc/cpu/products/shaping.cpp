#include "shaping.h"

#include <cmath>

namespace geodiff {

double Shaping::expected_error(double query_step, double sigma) const {
    return query_step * std::sqrt(mean_square * left / double(kDrawn)) / (sigma * sigma);
}

bool worth_shaping(int64_t n, int64_t d) {
    return d >= 8 * kDirections && n >= kDirections && n * d >= int64_t(1) << 25;
}

}  // namespace geodiff
