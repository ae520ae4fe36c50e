// Local denoisers on every instruction set of the build, the tests' own included, against the formula at each pixel.
#include <doctest/doctest.h>

#include "../../csrc/cpu/passes/local.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

constexpr int64_t kChannels = 2, kHeight = 5, kWidth = 9, kPixels = kHeight * kWidth, kValues = kChannels * kPixels;

struct LocalProblem : Problem {
    std::vector<int64_t> patch;
    Local local{};

    LocalProblem(DType dtype, int64_t n, double level, std::vector<int64_t> sides, bool wraps, bool mirrored,
                 bool channels_last)
        : Problem(dtype, n, kValues, int64_t(sides.size()), level), patch(std::move(sides)) {
        exclude.assign(patch.size(), -1);
        if (n > 1) exclude[0] = from[0];
        local = {kChannels, kHeight,  kWidth, kPixels,           kWidth, 1, patch.data(),
                 wraps,     mirrored, false,  found.mean.data(), n};
        if (channels_last) local.of_channel = 1, local.of_row = kWidth * kChannels, local.of_column = kChannels;
    }

    double value(int64_t i, bool flipped, int64_t c, int64_t p) const {
        return points.v[size_t(i * kValues + local.value(c, flipped ? local.mirrored_pixel(p) : p))];
    }
    double far(int64_t q, int64_t i, bool flipped, int64_t pixel) const {
        const int64_t half = patch[size_t(q)] / 2;
        double sum = 0;
        for (int64_t dy = -half; dy <= half; ++dy)
            for (int64_t dx = -half; dx <= half; ++dx) {
                int64_t y = pixel / kWidth + dy, u = pixel % kWidth + dx;
                if (local.wraps) y = (y + kHeight) % kHeight, u = (u + kWidth) % kWidth;
                if (y < 0 || y >= kHeight || u < 0 || u >= kWidth) continue;
                for (int64_t c = 0; c < kChannels; ++c) {
                    const int64_t p = y * kWidth + u;
                    const double e = x[size_t(q * kValues + local.value(c, p))] - value(i, flipped, c, p);
                    sum += e * e;
                }
            }
        return sum;
    }
    // The same for the mean of all crops that a pixel is in.
    double crop_error(int64_t q, double tol, const std::vector<double>& mean) const {
        const int64_t k = patch[size_t(q)];
        const double s = sigma[size_t(q)];
        std::vector<double> r(size_t(kValues), 0.0), crops(size_t(kPixels), 0.0);
        const auto each = [&](int64_t y, int64_t u, auto&& f) {
            for (int64_t dy = 0; dy < k; ++dy)
                for (int64_t du = 0; du < k; ++du)
                    for (int64_t c = 0; c < kChannels; ++c) f(c, (y + dy) * kWidth + u + du);
        };
        for (int64_t y = 0; y + k <= kHeight; ++y)
            for (int64_t u = 0; u + k <= kWidth; ++u) {
                std::vector<double> l(size_t(rows.n), 0.0);
                double top = -1e308, total = 0;
                for (int64_t i = 0; i < rows.n; ++i) {
                    double sum = 0;
                    each(y, u, [&](int64_t c, int64_t p) {
                        sum += std::pow(x[size_t(q * kValues + local.value(c, p))] - value(i, false, c, p), 2);
                    });
                    l[size_t(i)] = exclude[size_t(q)] == i ? kUnseen : -sum / (2 * s * s);
                    top = std::max(top, l[size_t(i)]);
                }
                for (double& t : l) total += t = std::exp(t - top);
                for (int64_t i = 0; i < rows.n; ++i)
                    each(y, u, [&](int64_t c, int64_t p) {
                        r[size_t(local.value(c, p))] += l[size_t(i)] / total * value(i, false, c, p);
                    });
                each(y, u, [&](int64_t c, int64_t p) { crops[size_t(p)] += c == 0; });
            }
        double worst = 0;
        for (int64_t p = 0; p < kPixels; ++p) {
            double off = 0, length = 0, reach = 0;
            for (int64_t c = 0; c < kChannels; ++c) {
                const double right = r[size_t(local.value(c, p))] / crops[size_t(p)];
                off += std::pow(mean[size_t(q * kValues + local.value(c, p))] - right, 2);
                length += std::pow(right + stats.shift, 2);
            }
            for (int64_t i = 0; i < rows.n; ++i) {
                double norm = 0;
                for (int64_t c = 0; c < kChannels; ++c) norm += std::pow(value(i, false, c, p) + stats.shift, 2);
                reach = std::max(reach, std::sqrt(norm));
            }
            worst = std::max(worst, std::sqrt(off) / (tol * std::max(std::sqrt(length), 0.01 * reach)));
        }
        return worst;
    }

    // The largest error of a pixel in units of what contract 1 allows, and the largest of the other numbers.
    double error(int64_t q, double tol, const std::vector<double>& mean, const std::vector<double>& log_sum,
                 const std::vector<double>& ess, const std::vector<double>& variance, double* others) const {
        double worst = 0;
        for (int64_t p = 0; p < kPixels; ++p) {
            std::vector<double> l;
            double top = -1e308, total = 0, squares = 0, reach = 0, off = 0, length = 0;
            for (int64_t i = 0; i < rows.n * (local.mirrored ? 2 : 1); ++i) {
                const double s = sigma[size_t(q)];
                l.push_back(-far(q, i % rows.n, i >= rows.n, p) / (2 * s * s));
                if (exclude[size_t(q)] == i % rows.n) l.back() = kUnseen;
                top = std::max(top, l.back());
            }
            for (double& t : l) total += t = std::exp(t - top);
            for (const double t : l) squares += t * t;
            for (int64_t i = 0; i < int64_t(l.size()); ++i) {
                double norm = 0;
                for (int64_t c = 0; c < kChannels; ++c)
                    norm += std::pow(value(i % rows.n, i >= rows.n, c, p) + stats.shift, 2);
                reach = std::max(reach, std::sqrt(norm));
            }
            for (int64_t c = 0; c < kChannels; ++c) {
                double r = 0, square = 0;
                for (int64_t i = 0; i < int64_t(l.size()); ++i) {
                    const double v = value(i % rows.n, i >= rows.n, c, p);
                    r += l[size_t(i)] / total * v, square += l[size_t(i)] / total * v * v;
                }
                const size_t at = size_t(q * kValues + local.value(c, p));
                off += std::pow(mean[at] - r, 2), length += std::pow(r + stats.shift, 2);
                *others = std::max(*others, std::fabs(variance[at] - (square - r * r)) / (1e-5 * reach * reach));
            }
            worst = std::max(worst, std::sqrt(off) / (tol * std::max(std::sqrt(length), 0.01 * reach)));
            const size_t at = size_t(q * kPixels + p);
            *others = std::max(*others, std::fabs(ess[at] * squares / (total * total) - 1) / 1e-3);
            const double log_mass = top + std::log(total);
            *others = std::max(*others, std::fabs(log_sum[at] - log_mass) / (1e-3 + 1e-6 * std::fabs(log_mass)));
        }
        return worst;
    }
};

void check(const Table& table, const LocalProblem& problem, double tol) {
    const size_t batch = problem.patch.size();
    std::vector<double> mean(batch * kValues, NAN), variance(mean), log_sum(batch * kPixels, NAN), ess(log_sum);
    std::vector<int64_t> top(batch * kPixels, -7);
    std::vector<int8_t> path(batch, int8_t(-1));
    local_posterior(problem.request(table, tol), problem.local,
                    {mean.data(), variance.data(), log_sum.data(), ess.data(), top.data(), path.data()});
    for (int64_t q = 0; q < int64_t(batch); ++q) {
        double others = 0;
        CHECK(problem.error(q, tol, mean, log_sum, ess, variance, &others) <= 1);
        CHECK(others <= 1);
        for (int64_t p = 0; p < kPixels; ++p) {  // no row has a larger logit than the one that is named
            const int64_t i = top[size_t(q * kPixels + p)], n = problem.rows.n;
            const double s = problem.sigma[size_t(q)], best = problem.far(q, i % n, i >= n, p) / (2 * s * s);
            for (int64_t j = 0; j < n * (problem.local.mirrored ? 2 : 1); ++j) {
                if (problem.exclude[size_t(q)] == j % n) continue;
                const double other = problem.far(q, j % n, j >= n, p) / (2 * s * s);
                if (!(best <= other + 1e-4 + 1e-5 * other)) CHECK(best <= other);
            }
        }
    }
}

}  // namespace

TEST_CASE("local denoisers keep contract 1 at every pixel") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::bf16, DType::f32})
            for (const double level : {0.05, 0.5, 4.0})
                for (const int64_t n : {1, 83}) {
                    CAPTURE(table->name);
                    CAPTURE(level);
                    CAPTURE(n);
                    const LocalProblem clipped(dtype, n, level, {1, 3, 7, 19}, false, n > 1, dtype == DType::bf16);
                    const LocalProblem wrapped(dtype, n, level, {5, 3}, true, false, dtype == DType::u8);
                    for (const double tol : {1e-5, 1e-8}) {
                        check(*table, clipped, tol);
                        check(*table, wrapped, tol);
                    }
                }
}

TEST_CASE("crops keep contract 1 at every pixel") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::f32})
            for (const double level : {0.1, 1.0}) {
                LocalProblem problem(dtype, 41, level, {1, 2, 5}, false, false, dtype == DType::u8);
                problem.local.crops = true;
                for (const double tol : {1e-5, 1e-8}) {
                    std::vector<double> mean(problem.patch.size() * kValues, NAN);
                    std::vector<int8_t> path(problem.patch.size(), int8_t(-1));
                    local_posterior(problem.request(*table, tol), problem.local,
                                    {mean.data(), nullptr, nullptr, nullptr, nullptr, path.data()});
                    CAPTURE(table->name);
                    CAPTURE(level);
                    for (int64_t q = 0; q < int64_t(problem.patch.size()); ++q)
                        CHECK(problem.crop_error(q, tol, mean) <= 1);
                }
            }
}
