// Rows that carry much of a query's weight: beside them the digits of all others would be coarse, so the second product
// leaves them out, and they are added one by one in float32. csrc/cpu/README.md, "Heavy rows".
#pragma once

#include <cmath>
#include <cstdint>

#include "../request.h"
#include "../runtime/buffer.h"

namespace geodiff {

// The largest weight that digits say, over the mean weight of n rows.
inline double heaviest_left(int64_t n) { return 0.5 * std::sqrt(double(n)); }

// Those of one query and one piece of the rows.
class HeavyRows {
  public:
    // Takes the heavy ones from p[0..R), the weights of rows [first, first + R), which are 0 then. `state`: the sums so
    // far, with this tile, which multiplied older ones with `rescale`; they say what all rows will come to.
    void take(const Request& request, double* p, int64_t first, int R, const Online& state, double rescale);
    void pass_over(int R) { seen_ += R; }  // rows of no weight

    explicit operator bool() const { return weight_ > 0; }
    double weight() const { return weight_; }  // sum p of the rows taken, relative to the state's maximum
    // sum p v, [padded(d)], is so many times this.
    double factor() const { return double(rescale_); }
    const float* sum() const { return sum_.data(); }

  private:
    void add(const Request& request, double p, int64_t row);

    Buffer<float> sum_;
    double weight_ = 0;
    float rescale_ = 1;  // of the sum, since it was added to
    int64_t seen_ = 0;   // rows
};

}  // namespace geodiff
