#include "prepare.h"

#include <algorithm>
#include <cmath>

#include "../runtime/buffer.h"
#include "tiles.h"

namespace geodiff {

int64_t prepare(const Table& kernels, const Rows& rows, int threads, double* half_norm, float* away, double* mean,
                Stats& stats) {
    constexpr int64_t kTile = 64;
    const int64_t d = rows.d;
    const Pieces pieces(rows.n, 1, threads_for(rows.n * d / 2, threads), false);
    struct Norms {
        Buffer<double> sum;  // [d]
        int64_t bad = -1;
        double top = 0;
    };
    const auto norms = over_tiles(
        rows, pieces, kTile, [] { return 0; }, [&] { return Norms{Buffer<double>(d, true)}; },
        [&](int, Norms& mine, const Tile& t) {
            for (int64_t i = t.first; i < t.first + t.R; ++i) {
                double norm2 = 0;
                if (!kernels.row_stats(rows.row(i), rows.dtype, d, &norm2, mine.sum.data()) && mine.bad < 0)
                    mine.bad = i;
                half_norm[i] = norm2 / 2;
                mine.top = std::max(mine.top, norm2);
            }
        });
    for (const Norms& s : norms)
        if (s.bad >= 0) return s.bad;
    stats = Stats{};
    stats.half_norm = half_norm;
    stats.away = away;
    stats.unit = unit_of(rows.dtype);
    stats.shift = shift_of(rows.dtype);
    std::fill(mean, mean + d, 0.0);
    double top = 0, mean2 = 0;
    for (const Norms& s : norms) {
        for (int64_t k = 0; k < d; ++k) mean[k] += s.sum[k];
        top = std::max(top, s.top);
    }
    for (int64_t k = 0; k < d; ++k) {
        mean[k] /= double(rows.n);
        mean2 += mean[k] * mean[k];
    }

    // Second look for distances from the mean and from the model's origin.
    struct Distances {
        double radius2 = 0, total = 0, model2 = 0;
    };
    Buffer<double> origin(d);
    for (int64_t k = 0; k < d; ++k) origin[k] = -stats.shift;
    const auto distances = over_tiles(
        rows, pieces, kTile, [] { return 0; }, [] { return Distances{}; },
        [&](int, Distances& mine, const Tile& t) {
            for (int64_t i = t.first; i < t.first + t.R; ++i) {
                const double r2 = kernels.distance(mean, rows.row(i), rows.dtype, d);
                const double m2 =
                    stats.shift == 0 ? 2 * half_norm[i] : kernels.distance(origin.data(), rows.row(i), rows.dtype, d);
                away[i] = float(std::sqrt(r2) * (1 + 1e-7));
                mine.radius2 = std::max(mine.radius2, r2);
                mine.model2 = std::max(mine.model2, m2);
                mine.total += r2;
            }
        });
    double sum = 0, radius2 = 0, model2 = 0;
    for (const Distances& s : distances) {
        sum += s.total;
        radius2 = std::max(radius2, s.radius2);
        model2 = std::max(model2, s.model2);
    }
    stats.scale = {std::sqrt(model2), std::sqrt(radius2)};
    stats.mean_square = sum / double(rows.n);
    stats.max_norm = std::sqrt(top);
    stats.mean_norm = std::sqrt(mean2);
    return -1;
}

}  // namespace geodiff
