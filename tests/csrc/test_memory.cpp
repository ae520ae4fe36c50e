// What an evaluation leaves for the next: that no row which matters is left out, wherever the query goes.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/memory.h"
#include "../../csrc/cpu/passes/plan.h"
#include "../../csrc/cpu/passes/posterior.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

TEST_CASE("no logit of a row that is not listed exceeds the bound") {
    Random random(3);
    for (int trial = 0; trial < 2000; ++trial) {
        const double sigma = std::exp(random.normal()), level = sigma * std::exp(random.normal());
        const PriorRange prior{trial % 3 ? -4.0 * std::fabs(random.normal()) : 0.0, 0.0};
        Anchor anchor;
        anchor.x = {random.normal(), random.normal()};
        anchor.sigma = sigma;
        anchor.floor = 3 * random.normal();
        const double moved = 2 * std::fabs(random.normal()), bound = anchor.most(moved, level, prior);
        const double angle = 6.3 * random.normal();
        const double y[2] = {anchor.x[0] + moved * std::cos(angle), anchor.x[1] + moved * std::sin(angle)};
        for (int row = 0; row < 50; ++row) {
            const double log_prior = prior.least * (row % 11) / 10;
            const double v[2] = {y[0] + random.normal(), y[1] + random.normal()};
            const auto half = [&](const double* x) {
                return 0.5 * ((x[0] - v[0]) * (x[0] - v[0]) + (x[1] - v[1]) * (x[1] - v[1]));
            };
            if (half(anchor.x.data()) - sigma * sigma * log_prior < anchor.floor) continue;  // it would be listed
            CHECK(log_prior - half(y) / (level * level) <= bound + 1e-9 * std::fabs(bound));
        }
    }
}

TEST_CASE("a query that moves is answered from what is known of it, or not at all") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::f32}) {
            Problem problem(dtype, 200, 90, 4, 2.0);
            Memory memory(4);
            int64_t answered = 0;
            Random random(5);
            for (int step = 0; step < 12; ++step) {
                const Request request = problem.request(*table);
                std::vector<double> mean(size_t(4 * problem.rows.d), 0.0);
                for (int64_t q = 0; q < 4; ++q) {
                    double log_sum, entropy, ess, trace, mean_error, log_error;
                    int8_t path = -1;
                    double* r = mean.data() + q * problem.rows.d;
                    Answer answer{r,       &log_sum, &entropy, &ess,        &trace,
                                  nullptr, nullptr,  &path,    &mean_error, &log_error};
                    Request one = request;
                    one.batch = 1;
                    one.x = request.query(q);
                    if (memory.recall(one, q, answer)) {
                        ++answered;
                        CHECK(path == int8_t(Path::remembered));
                        CHECK(problem.error(q, r, 1e-5) <= 1);
                        continue;
                    }
                    const std::vector<double> l = problem.log_weights(q), exact = problem.denoised(q);
                    std::copy(exact.begin(), exact.end(), r);
                    const double best = *std::max_element(l.begin(), l.end());
                    std::vector<int64_t> list;
                    for (int64_t i = 0; i < problem.rows.n; ++i)
                        if (l[size_t(i)] >= best - 2 * request.cut()) list.push_back(i);
                    // The logits as passes have them: with the part that is common to all rows
                    const double log_sum_of_all = request.logit(q, list.front()) - l[size_t(list.front())];
                    memory.keep(request, q, list, 2 * request.cut(), log_sum_of_all);
                }
                for (size_t k = 0; k < problem.x.size(); ++k)
                    problem.x[k] = mean[k] + 0.7 * (problem.x[k] - mean[k]) + 0.01 * problem.sigma[0] * random.normal();
                for (double& sigma : problem.sigma) sigma *= 0.7;
            }
            CHECK(answered >= 12);
        }
}

TEST_CASE("products that are known serve wherever the queries go") {
    int64_t nearer = 0;
    for (const Table* table : tables())
        for (const double tol : {1e-5, 1e-3}) {
            Problem problem(DType::u8, 500, 130, 20, 20.0);
            Memory memory(20);
            Random random(5);
            const int64_t d = problem.rows.d;
            for (int step = 0; step < 8; ++step) {
                Request request = problem.request(*table, tol);
                request.known = memory.known(problem.rows.n);
                CHECK(request.known != nullptr);
                Answers found(request);
                Answer answer = found.view();
                posterior(request, answer);
                const std::vector<double>& mean = found.mean;
                CAPTURE(table->name);
                CAPTURE(step);
                for (int64_t q = 0; q < 20; ++q) {
                    CHECK(problem.error(q, mean.data() + q * d, tol) <= 1);
                    Known::Entry& entry = request.known->entry(q);
                    if (!entry.whole) continue;
                    ++nearer;
                    // What is known is so, row by row.
                    const int64_t row = (17 * q + step) % problem.rows.n;
                    double exact = 0;
                    for (int64_t k = 0; k < d; ++k) exact += entry.y[size_t(k)] * problem.points.v[size_t(row * d + k)];
                    CHECK(entry.products[row] == doctest::Approx(exact).epsilon(1e-7));
                    if (step == 5 && q % 3 == 0) entry.whole = false;  // as a pass that was interrupted leaves it
                }
                for (size_t k = 0; k < problem.x.size(); ++k)
                    problem.x[k] = step == 3 && k < size_t(d) ? problem.sigma[0] * random.normal()  // one that jumps
                                                              : mean[k] + 0.8 * (problem.x[k] - mean[k]);
                for (double& sigma : problem.sigma) sigma *= 0.8;
            }
        }
    CHECK(nearer > 100);  // where products take floats instead, nothing is left
}
