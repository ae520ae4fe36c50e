#include "prepare.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "buffer.h"
#include "parallel.h"

namespace geodiff {

Prepared prepare(const Kernels& kernels, const Rows& rows, double shift, int threads, double* half_norm, float* away,
                 double* mean) {
    threads = int(std::clamp<int64_t>(rows.n * rows.d >> 18, 1, threads));
    std::vector<Buffer<double>> sums;
    for (int t = 0; t < threads; ++t) sums.emplace_back(rows.d, true);
    std::vector<int64_t> bad(size_t(threads), -1);
    parallel(threads, [&](int t) {
        const Range range = share(rows.n, 1, t, threads);
        for (int64_t i = range.begin; i < range.end; ++i) {
            double norm2 = 0;
            if (!kernels.row_stats(rows.row(i), rows.dtype, rows.d, &norm2, sums[size_t(t)].data()) &&
                bad[size_t(t)] < 0)
                bad[size_t(t)] = i;
            half_norm[i] = norm2 / 2;
        }
    });
    Prepared out{};
    out.bad_row = -1;
    for (int64_t b : bad)
        if (b >= 0 && out.bad_row < 0) out.bad_row = b;
    if (out.bad_row >= 0) return out;
    std::fill(mean, mean + rows.d, 0.0);
    for (const auto& s : sums)
        for (int64_t k = 0; k < rows.d; ++k) mean[k] += s[k];
    double mean2 = 0;
    for (int64_t k = 0; k < rows.d; ++k) {
        mean[k] /= double(rows.n);
        mean2 += mean[k] * mean[k];
    }
    out.mean_norm = std::sqrt(mean2);

    // Second look for distances from the mean and from the model's origin.
    std::vector<double> radius2(size_t(threads), 0.0), total(size_t(threads), 0.0), model2(size_t(threads), 0.0);
    Buffer<double> origin(rows.d);
    for (int64_t k = 0; k < rows.d; ++k) origin[k] = -shift;
    parallel(threads, [&](int t) {
        const Range range = share(rows.n, 1, t, threads);
        for (int64_t i = range.begin; i < range.end; ++i) {
            const double r2 = kernels.distance(mean, rows.row(i), rows.dtype, rows.d);
            const double m2 =
                shift == 0 ? 2 * half_norm[i] : kernels.distance(origin.data(), rows.row(i), rows.dtype, rows.d);
            away[i] = float(std::sqrt(r2) * (1 + 1e-7));
            radius2[size_t(t)] = std::max(radius2[size_t(t)], r2);
            model2[size_t(t)] = std::max(model2[size_t(t)], m2);
            total[size_t(t)] += r2;
        }
    });
    double sum = 0, radius = 0, model = 0, top = 0;
    for (int t = 0; t < threads; ++t) {
        sum += total[size_t(t)];
        radius = std::max(radius, radius2[size_t(t)]);
        model = std::max(model, model2[size_t(t)]);
    }
    for (int64_t i = 0; i < rows.n; ++i) top = std::max(top, half_norm[i]);
    out.radius = std::sqrt(radius);
    out.mean_square = sum / double(rows.n);
    out.max_norm = std::sqrt(2 * top);
    out.max_model_norm = std::sqrt(model);
    return out;
}

}  // namespace geodiff
