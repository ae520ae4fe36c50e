// What two looks at the stored rows find out: norms and mean, then distances from the mean; and whether all is finite.
#pragma once

#include "../isa/table.h"
#include "../request.h"
#include "../runtime/buffer.h"

namespace geodiff {

// In centred units. Found part by part, so that what was found can be kept, and gone on with by another process; the
// numbers do not depend on the parts nor on the threads.
struct Statistics {
    Buffer<double> half_norm;  // [n]  |v_i|^2 / 2
    Buffer<float> away;        // [n]  |v_i - mean|, rounded up
    Buffer<double> half_away;  // [n]  |v_i - mean|^2 / 2
    Buffer<double> mean;       // [d]  the sum of the rows as long as the first look lasts
    // max_i |v_i|^2, max_i |v_i - mean|^2, max_i |x_i|^2 (model space, times `unit` squared), sum_i |v_i - mean|^2
    double top = 0, radius2 = 0, model2 = 0, total = 0;
    int64_t seen = 0;  // rows looked at: n of the first look and n of the second

    Statistics(int64_t n, int64_t d) : half_norm(n), away(n), half_away(n), mean(d, true) {}

    // Looks at `count` rows more, or a few beyond, but not beyond the end of a look. Returns the first row with NaN or
    // Inf among them, or -1.
    int64_t look(const Table& kernels, const Rows& rows, int threads, int64_t count);

    // As passes take them, once both looks are done; they point into this.
    Stats stats(const Rows& rows) const;
};

// Both looks at once; throws std::domain_error naming the first row with NaN or Inf.
Statistics prepare(const Table& kernels, const Rows& rows, int threads);

}  // namespace geodiff
