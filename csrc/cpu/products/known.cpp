#include "known.h"

namespace geodiff {

double Known::Entry::factor(const VectorLoops& loops, const double* x) const {
    if (!whole) return 0;
    const int64_t d = int64_t(y.size());
    const double square = loops.dot(y.data(), y.data(), d);
    return square > 0 ? loops.dot(x, y.data(), d) / square : 0;
}

}  // namespace geodiff
