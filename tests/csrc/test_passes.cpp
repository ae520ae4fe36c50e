// Whole passes on every instruction set of the build, the tests' own included, against the formula.
#include <doctest/doctest.h>

#include <algorithm>

#include "../../csrc/cpu/passes/covariance.h"
#include "../../csrc/cpu/passes/draw.h"
#include "../../csrc/cpu/passes/plan.h"
#include "../../csrc/cpu/passes/posterior.h"
#include "../../csrc/cpu/passes/steps.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

Answers answered(const Request& request) {
    Answers found(request);
    Answer to = found.view();
    posterior(request, to);
    return found;
}

}  // namespace

TEST_CASE("the posterior keeps contract 1 at every tol") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::f32})
            for (const double sigma : {0.02, 0.5, 3.0, 40.0}) {
                const Problem problem(dtype, 700, 130, 9, sigma);
                for (const double tol : {1e-6, 1e-5, 1e-4, 1e-3}) {
                    const Request request = problem.request(*table, tol);
                    const Answers found = answered(request);
                    CAPTURE(table->name);
                    CAPTURE(sigma);
                    CAPTURE(tol);
                    for (int64_t q = 0; q < request.batch; ++q)
                        CHECK(problem.error(q, found.mean.data() + q * request.rows.d, tol) <= 1);
                }
            }
}

TEST_CASE("logits of short rows: queries are what errs where products are integers, and all that errs is said") {
    for (const Table* table : tables())
        for (const int64_t d : {7, 64, 128})
            for (const auto& [precision, queries] : {std::pair<Precision, int64_t>{Precision::normal, 21},
                                                     {Precision::normal, 4},
                                                     {Precision::normal, 1},
                                                     {Precision::fine, 21}}) {
                CAPTURE(table->name);
                CAPTURE(d);
                CAPTURE(queries);
                const Problem problem(DType::u8, 300, d, queries, 3.0);
                const Request request = problem.request(*table);
                const std::vector<int64_t> which = numbers_from(0, request.batch);
                const Logits logits(request, which.data(), request.batch, precision, true);
                CHECK(logits.integer() == (table->integers && queries > 1));  // one leaves too many lanes empty
                const Logits even(request, which.data(), request.batch, Precision::normal);
                if (in_floats(request, queries, false)) CHECK_FALSE(even.integer());
                const int64_t tile = tile_rows(request, request.batch);
                const int R = int(std::min<int64_t>(tile, 120));
                Logits::Work work = logits.work(tile);
                logits.multiply(work, 24, R, 0, tile);
                for (int64_t q = 0; q < request.batch; ++q) {
                    const double* l = logits.logits(work, 24, R, q, tile);
                    const double sigma2 = request.sigma[q] * request.sigma[q];
                    double square = 0;
                    for (int r = 0; r < R; ++r) {
                        double exact = 0, away = 0;
                        for (int64_t k = 0; k < d; ++k) {
                            const double v = problem.points.v[size_t((24 + r) * d + k)];
                            exact += (problem.x[size_t(q * d + k)] - v / 2) * v;
                            away += v * v;
                        }
                        const double off = std::fabs(l[r] - exact / sigma2);
                        CHECK(off <= logits.row_error(q) * std::sqrt(away) + logits.base_error(q));
                        square += off * off / R;
                    }
                    CHECK(std::sqrt(square) <
                          logits.logit_noise(q) + 4 * logits.query_step(q) * problem.stats.max_norm / sigma2);
                }
            }
}

TEST_CASE("logits of rows of floats: all that errs is said, for few queries and for many") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::f16, DType::bf16, DType::f32})
            for (const int64_t queries : {3, 30, 70}) {
                CAPTURE(table->name);
                CAPTURE(int(dtype));
                CAPTURE(queries);
                const int64_t d = 700;
                const Problem problem(dtype, 100, d, queries, 3.0);
                const Request request = problem.request(*table);
                const std::vector<int64_t> which = numbers_from(0, request.batch);
                const Logits logits(request, which.data(), request.batch, Precision::normal);
                const int64_t tile = tile_rows(request, request.batch);
                const int R = int(std::min<int64_t>(tile, 60));
                Logits::Work work = logits.work(tile);
                double largest = 0;  // of what is off, beside what is said of it
                logits.over(work, 24, R, tile, [&](int64_t q, const double* l) {
                    const double sigma2 = request.sigma[q] * request.sigma[q];
                    double square = 0;
                    for (int r = 0; r < R; ++r) {
                        double exact = 0;
                        for (int64_t k = 0; k < d; ++k) {
                            const double v = problem.points.v[size_t((24 + r) * d + k)];
                            exact += (problem.x[size_t(q * d + k)] - v / 2) * v;
                        }
                        const double off = std::fabs(l[r] - exact / sigma2);
                        CHECK(off <= logits.base_error(q));
                        square += off * off / R;
                    }
                    const double said = logits.logit_noise(q) + logits.query_step(q) * problem.stats.max_norm / sigma2;
                    largest = std::max(largest, std::sqrt(square) / said);
                });
                CHECK(largest < 1);
                CHECK(largest > 0.001);  // what is said is of the size of what there is
            }
}

TEST_CASE("a row that a query must not see is out before the maximum, in every pass") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::bf16, DType::f32})
            for (const int64_t n : {3, 700})  // small problems have a pass of their own
                for (const double sigma : {0.02, 0.5, 3.0, 40.0}) {
                    Problem problem(dtype, n, 130, 9, sigma);
                    problem.exclude = problem.from;
                    problem.exclude[4] = -1;
                    for (const double tol : {1e-6, 1e-5, 1e-3}) {
                        Request request = problem.request(*table, tol);
                        request.topk = 3;
                        const Answers found = answered(request);
                        std::vector<double> uniform(9, 0.3);
                        std::vector<int64_t> drawn(9, -1);
                        draw(request, {1, uniform.data(), drawn.data()});
                        CAPTURE(table->name);
                        CAPTURE(sigma);
                        CAPTURE(tol);
                        for (int64_t q = 0; q < request.batch; ++q) {
                            CHECK(problem.error(q, found.mean.data() + q * request.rows.d, tol) <= 1);
                            const std::vector<double> l = problem.log_weights(q);
                            for (int64_t j = 0; j < 3; ++j) {
                                const int64_t row = found.index[size_t(3 * q + j)];
                                CHECK(row != problem.exclude[size_t(q)]);
                                CHECK((row >= 0 || n == 3));
                            }
                            CHECK(l[size_t(drawn[size_t(q)])] > kUnseen);
                            CHECK(found.ess[size_t(q)] >= 1 - 1e-9);
                            CHECK(std::isfinite(found.entropy[size_t(q)]));
                        }
                    }
                }
}

TEST_CASE("the same bits whoever does which piece") {
    const Problem problem(DType::u8, 3000, 70, 20, 5.0);
    for (const Table* table : tables()) {
        const Request request = problem.request(*table, 1e-5, 3);
        const Answers once = answered(request);
        for (int again = 0; again < 5; ++again) CHECK(answered(request).mean == once.mean);
    }
}

TEST_CASE("covariances with a direction and a slope") {
    const Problem problem(DType::u8, 400, 90, 3, 2.0);
    const int64_t d = 90;
    Random random(5);
    std::vector<double> v(size_t(3 * d)), r, slope { 0, 0.3, -0.2 };
    for (double& value : v) value = random.normal();
    for (int64_t q = 0; q < 3; ++q) {
        const std::vector<double> mean = problem.denoised(q);
        r.insert(r.end(), mean.begin(), mean.end());
    }
    for (const Table* table : tables()) {
        std::vector<double> with_rows(size_t(3 * d), NAN), with_distance(3, NAN);
        Covariance out{with_rows.data(), with_distance.data()};
        covariance(problem.request(*table), {r.data(), v.data(), slope.data()}, out);
        for (int64_t q = 0; q < 3; ++q) {
            const std::vector<double> l = problem.log_weights(q);
            std::vector<double> c(l.size(), 0.0);
            double mean_c = 0, size = 0, off = 0;
            for (size_t i = 0; i < l.size(); ++i) {
                for (int64_t k = 0; k < d; ++k) {
                    const double value = problem.points.v[i * size_t(d) + size_t(k)],
                                 e = problem.x[size_t(q * d + k)] - value;
                    c[i] += value * v[size_t(q * d + k)] + slope[size_t(q)] * e * e;
                }
                mean_c += std::exp(l[i]) * c[i];
            }
            for (int64_t k = 0; k < d; ++k) {
                double exact = 0;
                for (size_t i = 0; i < l.size(); ++i)
                    exact += std::exp(l[i]) * (c[i] - mean_c) * problem.points.v[i * size_t(d) + size_t(k)];
                size += exact * exact;
                off += std::pow(with_rows[size_t(q * d + k)] - exact, 2);
            }
            CAPTURE(table->name);
            CHECK(std::sqrt(off) <= 1e-4 * std::sqrt(size) + 1e-2);
        }
    }
}

TEST_CASE("draws invert the distribution function") {
    for (const double sigma : {0.5, 30.0}) {
        const Problem problem(DType::u8, 900, 60, 2, sigma);
        Random random(9);
        const int64_t count = 200;
        std::vector<double> uniform(size_t(2 * count));
        for (double& u : uniform) u = random.uniform();
        for (const Table* table : tables()) {
            std::vector<int64_t> index(size_t(2 * count), -1);
            draw(problem.request(*table), {count, uniform.data(), index.data()});
            for (int64_t q = 0; q < 2; ++q) {
                const std::vector<double> l = problem.log_weights(q);
                std::vector<double> upto(l.size());
                double sum = 0;
                for (size_t i = 0; i < l.size(); ++i) upto[i] = sum += std::exp(l[i]);
                int64_t wrong = 0;
                for (int64_t j = 0; j < count; ++j) {
                    const int64_t row = index[size_t(q * count + j)];
                    REQUIRE(row >= 0);
                    const double u = uniform[size_t(q * count + j)], before = row ? upto[size_t(row - 1)] : 0;
                    wrong += u < before - 1e-6 || u > upto[size_t(row)] + 1e-6;
                }
                CAPTURE(table->name);
                CHECK(wrong == 0);
            }
        }
    }
}

TEST_CASE("the steps: inner products and weighted means") {
    const Problem problem(DType::u8, 300, 75, 70, 2.0);
    for (const Table* table : tables()) {
        const Request request = problem.request(*table);
        std::vector<double> out(size_t(70 * 300), NAN), mean(size_t(70 * 75), NAN);
        inner_products(request, out.data());
        double worst = 0;
        for (int64_t q = 0; q < 70; ++q)
            for (int64_t i = 0; i < 300; ++i) {
                double exact = 0, size = 0;
                for (int64_t k = 0; k < 75; ++k) {
                    exact += problem.x[size_t(q * 75 + k)] * problem.points.v[size_t(i * 75 + k)];
                    size += std::fabs(problem.x[size_t(q * 75 + k)] * problem.points.v[size_t(i * 75 + k)]);
                }
                worst = std::max(worst, std::fabs(out[size_t(q * 300 + i)] - exact) / size);
            }
        CAPTURE(table->name);
        CHECK(worst <= 1e-8);
        std::vector<double> l;
        for (int64_t q = 0; q < 70; ++q) {
            const std::vector<double> one = problem.log_weights(q);
            l.insert(l.end(), one.begin(), one.end());
        }
        weighted_mean(request, l.data(), mean.data());
        for (int64_t q = 0; q < 70; ++q) CHECK(problem.error(q, mean.data() + q * 75, 1e-5) <= 1);
    }
}

TEST_CASE("statistics do not depend on the threads, nor on where one look left off and the next went on") {
    for (const DType dtype : {DType::u8, DType::f16, DType::f32})
        for (const int64_t d : {7, 40'000}) {
            const Points points(dtype, 90, d);
            const Rows rows = points.rows();
            const Statistics whole = prepare(kernels_for(""), rows, 1);
            for (const int threads : {1, 3})
                for (const int64_t count : {1, 30, 90}) {
                    Statistics found(rows.n, d);
                    while (found.seen < 2 * rows.n) CHECK(found.look(kernels_for(""), rows, threads, count) == -1);
                    CHECK(std::equal(&found.mean[0], &found.mean[0] + d, &whole.mean[0]));
                    CHECK(std::equal(&found.away[0], &found.away[0] + rows.n, &whole.away[0]));
                    CHECK(std::equal(&found.half_norm[0], &found.half_norm[0] + rows.n, &whole.half_norm[0]));
                    CHECK((found.top == whole.top && found.radius2 == whole.radius2));
                    CHECK((found.model2 == whole.model2 && found.total == whole.total));
                }
        }
}
