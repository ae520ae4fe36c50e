// Rows that carry much of a query's weight, which no digits say.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/dense.h"
#include "../../csrc/cpu/passes/heavy.h"
#include "../../csrc/cpu/passes/plan.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

TEST_CASE("heavy rows are taken with their weights, and no more is left of a tile than digits may say") {
    constexpr int64_t n = 900, d = 200, tile = 100;
    const Points points{DType::u8, n, d};
    const Rows rows = points.rows();
    const Statistics found = prepare(kernels_for("portable"), rows, 1);
    const Stats stats = found.stats(rows);
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        const Request request{*table, rows, stats};
        Random random(3);
        HeavyRows heavy;
        Online state;
        std::vector<double> exact(size_t(d), 0.0);
        double weight = 0, taken = 0;
        for (int64_t first = 0; first < n; first += tile) {
            if (first == 5 * tile) {
                heavy.pass_over(int(tile));
                continue;
            }
            std::vector<double> p(size_t(tile), 0.0), before;
            for (double& w : p) w = 0.01 * random.uniform();
            if (first != 3 * tile && first != 8 * tile) p[size_t(first / tile * 7)] = 0.2 + 0.8 * random.uniform();
            const double rescale =
                first == 4 * tile || first == 8 * tile ? 0.25 : 1;  // as a larger maximum would ask for
            before = p;
            state.sum *= rescale;
            weight *= rescale;
            for (double& sum : exact) sum *= rescale;
            for (const double w : p) state.sum += w;
            heavy.take(request, p.data(), first, int(tile), state, rescale);
            for (int64_t r = 0; r < tile; ++r) {
                const double left = p[size_t(r)], was = before[size_t(r)];
                CHECK((left == was || left == 0));
                if (left == was) continue;
                ++taken;
                weight += was;
                for (int64_t k = 0; k < d; ++k) exact[size_t(k)] += was * points.v[size_t((first + r) * d + k)];
            }
            // The others, were all rows like them.
            CHECK(*std::max_element(p.begin(), p.end()) < 0.1);
        }
        CHECK(taken == 6);
        CHECK(heavy.weight() == doctest::Approx(weight).epsilon(1e-6));
        for (int64_t k = 0; k < d; ++k)
            CHECK(std::fabs(heavy.factor() * double(heavy.sum()[k]) - exact[size_t(k)]) <
                  1e-4 + 1e-6 * std::fabs(exact[size_t(k)]));
        const HeavyRows none;
        CHECK(!none);
    }
}

namespace {

// Queries at one sigma in the dense pass, the weights of `bits`, and how far the answers are from float64.
struct Asked {
    static constexpr int64_t n = 4000, d = 160, batch = 24;
    std::vector<uint8_t> stored = bytes_along_lines(n, d, 6, [](int64_t) { return 12.0; }, 128, 4, 5);
    Rows rows{stored.data(), DType::u8, n, d};
    Statistics found = prepare(kernels_for("portable"), rows, 1);
    Stats stats = found.stats(rows);
    std::vector<double> prior = std::vector<double>(size_t(n), 0.0);
    double off[batch], error[batch], largest[batch];

    void ask(const Table& table, double sigma, int bits, double tol) {
        std::vector<double> x(size_t(batch * d)), sigmas(size_t(batch), sigma);
        Random random(6);
        for (double& v : x) v = sigma * random.normal();
        Request request{table, rows, stats};
        request.batch = batch;
        request.x = x.data();
        request.sigma = sigmas.data();
        request.log_prior = prior.data();
        request.tol = tol;
        request.log_tol = 1;
        request.threads = 2;
        std::vector<double> mean(x.size()), log_sum(batch), entropy(batch), ess(batch), log_error(batch);
        std::vector<int8_t> path(batch);
        Answer answer{mean.data(), log_sum.data(), entropy.data(), ess.data(), nullptr,
                      nullptr,     nullptr,        path.data(),    error,      log_error.data()};
        const Open open = dense(request, {{}, numbers_from(0, batch), 16, bits}, Precision::fine, answer);
        REQUIRE(open.finer.empty());
        for (int64_t q = 0; q < batch; ++q) {
            std::vector<double> w(static_cast<size_t>(n)), exact(size_t(d), 0.0);
            double top = -1e300, sum = 0, square = 0;
            for (int64_t i = 0; i < n; ++i) top = std::max(top, w[size_t(i)] = request.logit(q, i));
            for (double& weight : w) sum += weight = std::exp(weight - top);
            for (int64_t i = 0; i < n; ++i) request.add_row(w[size_t(i)] / sum, i, exact.data());
            for (int64_t k = 0; k < d; ++k) square += std::pow(mean[size_t(q * d + k)] - exact[size_t(k)], 2);
            off[q] = std::sqrt(square);
            largest[q] = 1 / sum;
            CHECK(log_sum[size_t(q)] == doctest::Approx(top + std::log(sum)).epsilon(1e-6));
        }
    }
    double spread() const { return std::sqrt(stats.mean_square); }
    // Rows below the cut, and float32 sums.
    double beside(double tol) const { return tol / 50 * stats.scale.least() + 2e-6 * spread(); }
};

}  // namespace

TEST_CASE("weights of 8 bits beside a row that has most of the weight: off by what the others' digits lose") {
    Asked asked;
    asked.prior[70] = 12;  // one row has most of the weight, another a tenth
    asked.prior[3907] = 10;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        asked.ask(*table, 260, 8, 1e-2);
        for (int64_t q = 0; q < Asked::batch; ++q) {
            CHECK(asked.largest[q] > 0.2);
            CHECK(asked.off[q] < asked.error[q] + asked.beside(1e-2));
            // Digits for the largest weight, too, would leave five deviations of sqrt(tile / 6) / 255 of it.
            CHECK(asked.error[q] < 0.002 * asked.spread());
        }
    }
}

TEST_CASE("weights of 24 bits, one row or a thousand having most of the weight: as near as is said") {
    Asked asked;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        for (const double sigma : {30.0, 60.0, 90.0, 130.0, 200.0}) {
            CAPTURE(sigma);
            asked.ask(*table, sigma, 24, 1e-5);
            for (int64_t q = 0; q < Asked::batch; ++q) CHECK(asked.off[q] < asked.error[q] + asked.beside(1e-5));
        }
    }
}

TEST_CASE("a row that was heavy among the first and is not among all: its weight falls with the others'") {
    Asked asked;
    for (int64_t i = 0; i < 256; ++i) asked.prior[size_t(i)] = i == 5 ? 0 : -8;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        asked.ask(*table, 400, 24, 1e-5);
        for (int64_t q = 0; q < Asked::batch; ++q) {
            CHECK(asked.largest[q] < 0.02);
            CHECK(asked.off[q] < asked.error[q] + asked.beside(1e-5));
        }
    }
}
