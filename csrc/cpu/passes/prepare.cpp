#include "prepare.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tiles.h"

namespace geodiff {
namespace {

constexpr int64_t kPart = 1 << 20;  // numbers of the data that have sums of their own, whoever looks at them

struct Part {
    Buffer<double> sum;  // [d]
    int64_t bad = -1;
    double top = 0, radius2 = 0, model2 = 0, total = 0;
};

void norms(const Table& kernels, const Rows& rows, Range range, double* half_norm, Part& mine) {
    mine.sum = Buffer<double>(rows.d, true);
    for (int64_t i = range.begin; i < range.end; ++i) {
        double norm2 = 0;
        if (!kernels.row_stats(rows.row(i), rows.dtype, rows.d, &norm2, mine.sum.data()) && mine.bad < 0) mine.bad = i;
        half_norm[i] = norm2 / 2;
        mine.top = std::max(mine.top, norm2);
    }
}

void distances(const Table& kernels, const Rows& rows, Range range, const double* origin, Statistics& found,
               Part& mine) {
    for (int64_t i = range.begin; i < range.end; ++i) {
        const double r2 = kernels.distance(found.mean.data(), rows.row(i), rows.dtype, rows.d);
        const double m2 = shift_of(rows.dtype) == 0 ? 2 * found.half_norm[i]
                                                    : kernels.distance(origin, rows.row(i), rows.dtype, rows.d);
        found.away[i] = float(std::sqrt(r2) * (1 + 1e-7));
        found.half_away[i] = r2 / 2;
        mine.radius2 = std::max(mine.radius2, r2);
        mine.model2 = std::max(mine.model2, m2);
        mine.total += r2;
    }
}

}  // namespace

int64_t Statistics::look(const Table& kernels, const Rows& rows, int threads, int64_t count) {
    const int64_t n = rows.n, d = rows.d, size = std::max<int64_t>(1, kPart / d);
    if (seen >= 2 * n) return -1;
    const bool first = seen < n;
    const int64_t base = first ? 0 : n, begin = seen - base;
    const int64_t end = std::min(n, (begin + count + size - 1) / size * size);
    const std::vector<double> origin(size_t(d), -shift_of(rows.dtype));
    ReadAhead reading = read_ahead(rows, {begin, end});
    for (int64_t from = begin; from < end; from = seen - base) {
        // The sums of so many parts are kept until they are added, in the order of the rows.
        const int64_t to = std::min(end, from + 4 * threads * size);
        reading.reached(rows.row(from));
        std::vector<Part> parts(size_t((to - from + size - 1) / size));
        one_by_one(int64_t(parts.size()), threads_for((to - from) * d / 2, threads), [&](int64_t k) {
            const Range range{from + k * size, std::min(to, from + (k + 1) * size)};
            if (first)
                norms(kernels, rows, range, half_norm.data(), parts[size_t(k)]);
            else
                distances(kernels, rows, range, origin.data(), *this, parts[size_t(k)]);
        });
        for (const Part& one : parts) {
            if (one.bad >= 0) return one.bad;
            for (int64_t k = 0; first && k < d; ++k) mean[k] += one.sum[k];
            top = std::max(top, one.top);
            radius2 = std::max(radius2, one.radius2);
            model2 = std::max(model2, one.model2);
            total += one.total;
        }
        seen = base + to;
    }
    if (first && seen == n)
        for (int64_t k = 0; k < d; ++k) mean[k] /= double(n);
    return -1;
}

namespace {

// The most rows of one norm and one distance from the mean: as a rule they are one and the same.
int64_t most_alike(const Statistics& found, int64_t n) {
    std::vector<std::pair<double, float>> keys(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) keys[size_t(i)] = {found.half_norm[i], found.away[i]};
    std::sort(keys.begin(), keys.end());
    int64_t most = 0, run = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
        run = i > 0 && keys[i] == keys[i - 1] ? run + 1 : 1;
        most = std::max(most, run);
    }
    return most;
}

}  // namespace

Stats Statistics::stats(const Rows& rows) const {
    double mean2 = 0;
    for (int64_t k = 0; k < rows.d; ++k) mean2 += mean[k] * mean[k];
    Stats out{};
    out.half_norm = half_norm.data();
    out.away = away.data();
    out.half_away = half_away.data();
    out.mean = mean.data();
    out.unit = unit_of(rows.dtype);
    out.shift = shift_of(rows.dtype);
    out.scale = {std::sqrt(model2), std::sqrt(radius2)};
    out.mean_square = total / double(rows.n);
    out.max_norm = std::sqrt(top);
    out.mean_norm = std::sqrt(mean2);
    out.alike = double(most_alike(*this, rows.n));
    return out;
}

Statistics prepare(const Table& kernels, const Rows& rows, int threads) {
    Statistics found(rows.n, rows.d);
    while (found.seen < 2 * rows.n) {
        const int64_t bad = found.look(kernels, rows, threads, rows.n);
        if (bad >= 0) throw std::domain_error(std::to_string(bad));
    }
    return found;
}

}  // namespace geodiff
