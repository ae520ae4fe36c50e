#include "heavy.h"

#include <algorithm>

namespace geodiff {
namespace {

constexpr int kLooked = 64;  // weights, of which the largest is looked at first

}  // namespace

void HeavyRows::take(const Request& request, double* p, int64_t first, int R, const Online& state, double rescale) {
    const double n = double(request.rows.n);
    seen_ += R;
    weight_ *= rescale;
    rescale_ *= float(rescale);
    // Rows to come weigh what those seen do, but for the heavy ones.
    const double expected = weight_ + (state.sum - weight_) * n / double(seen_);
    const double light = expected / n * heaviest_left(request.rows.n);
    for (int r = 0; r < R; r += kLooked) {
        const int end = std::min(R, r + kLooked);
        if (request.kernels.vectors.largest(p + r, end - r) <= light) continue;
        for (int i = r; i < end; ++i)
            if (p[i] > light) {
                add(request, p[i], first + i);
                p[i] = 0;
            }
    }
}

void HeavyRows::add(const Request& request, double p, int64_t row) {
    const int64_t dp = padded(request.rows.d);
    if (!sum_.data()) sum_ = Buffer<float>(dp, true);
    const float w = float(p);
    request.kernels.sum_few(request.rows.row(row), request.rows.dtype, request.rows.d, 1, &w, 1, &rescale_, 1,
                            sum_.data(), dp, nullptr);
    rescale_ = 1;
    weight_ += double(w);
}

}  // namespace geodiff
