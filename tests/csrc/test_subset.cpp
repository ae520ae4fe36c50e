// A posterior for every number, on every instruction set of the build, the tests' own included, against the formula.
#include <doctest/doctest.h>

#include "../../csrc/cpu/passes/subset.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

// Subsets of numbers on a ring around each, made along the ring or each from nothing; `mirrored`: rows backwards.
struct SubsetProblem : Problem {
    std::vector<std::vector<int32_t>> members;
    std::vector<SubsetStep> steps;
    std::vector<int32_t> terms, mirror;
    Subset subset{};

    SubsetProblem(DType dtype, int64_t n, int64_t d, double level, bool along, bool mirrored)
        : Problem(dtype, n, d, 3, level), members(static_cast<size_t>(d)) {
        exclude.assign(3, -1);
        if (n > 1) exclude[0] = from[0];
        const auto in = [&](int64_t k, int64_t output) { return (k - output + d) % d <= 2 + output % 3; };
        int64_t largest = 0;
        for (int64_t output = 0; output < d; ++output) {
            SubsetStep step{int32_t(output), 0, 0, SubsetStep::kNothing, -1};
            const int64_t other = output % 4 == 3 ? output - 3 : output - 1;  // every fourth from one that was kept
            if (along && output > 0) step.start = output % 4 == 3 ? 0 : SubsetStep::kPrevious;
            if (along && output % 4 == 0) step.keep = 0;
            const bool nothing = step.start == SubsetStep::kNothing;
            for (int64_t k = 0; k < d; ++k)
                if (!nothing && in(k, other) && !in(k, output)) terms.push_back(int32_t(k)), ++step.minus;
            for (int64_t k = 0; k < d; ++k) {
                if (!in(k, output)) continue;
                members[size_t(output)].push_back(int32_t(k));
                if (nothing || !in(k, other)) terms.push_back(int32_t(k)), ++step.plus;
            }
            largest = std::max(largest, int64_t(members[size_t(output)].size()));
            steps.push_back(step);
        }
        for (int64_t k = 0; mirrored && k < d; ++k) mirror.push_back(int32_t(d - 1 - k));
        subset = {
            {steps.data(), terms.data(), 1, largest, int64_t(terms.size())}, 1.5, mirrored ? mirror.data() : nullptr};
    }

    double value(int64_t i, int64_t k) const {
        const int64_t n = rows.n, d = rows.d;
        return points.v[size_t(i % n * d + (i >= n ? d - 1 - k : k))];
    }

    // The largest error of a number in units of what contract 1 allows.
    double error(int64_t q, double tol, const std::vector<double>& mean) const {
        const int64_t images = rows.n * (subset.mirror ? 2 : 1);
        const double s = sigma[size_t(q)];
        double worst = 0;
        for (int64_t k = 0; k < rows.d; ++k) {
            std::vector<double> l;
            double top = -1e308, total = 0, r = 0, reach = 0;
            for (int64_t i = 0; i < images; ++i) {
                double far = 0;
                for (const int32_t m : members[size_t(k)]) far += std::pow(x[size_t(q * rows.d + m)] - value(i, m), 2);
                l.push_back(exclude[size_t(q)] == i % rows.n ? kUnseen : -far / (2 * s * s * subset.temperature));
                top = std::max(top, l.back());
                reach = std::max(reach, std::fabs(value(i, k) + stats.shift));
            }
            for (double& t : l) total += t = std::exp(t - top);
            for (int64_t i = 0; i < images; ++i) r += l[size_t(i)] / total * value(i, k);
            const double off = std::fabs(mean[size_t(q * rows.d + k)] - r);
            worst = std::max(worst, off / (tol * std::max(std::fabs(r + stats.shift), 0.01 * reach)));
        }
        return worst;
    }
};

std::vector<int8_t> check(const Table& table, const SubsetProblem& problem, double tol) {
    std::vector<double> mean(problem.x.size(), NAN);
    std::vector<int8_t> held(problem.sigma.size(), int8_t(-1));
    subset_posterior(problem.request(table, tol), problem.subset, mean.data(), held.data());
    for (int64_t q = 0; q < int64_t(problem.sigma.size()); ++q) CHECK(problem.error(q, tol, mean) <= 1);
    return held;
}

}  // namespace

TEST_CASE("a posterior for every number keeps contract 1") {
    for (const Table* table : tables())
        for (const DType dtype : {DType::u8, DType::f16, DType::bf16, DType::f32})
            for (const double level : {0.05, 1.0, 20.0})
                for (const int64_t n : {1, 15, 83})
                    for (const bool along : {false, true}) {
                        CAPTURE(table->name);
                        CAPTURE(level);
                        CAPTURE(n);
                        CAPTURE(along);
                        const SubsetProblem problem(dtype, n, 67, level, along, n == 15);
                        check(*table, problem, 1e-7);
                        for (const int8_t held : check(*table, problem, 1e-5)) CHECK(held == 1);
                    }
}

TEST_CASE("sums by differences say where they may have lost digits") {
    // Two images that weigh alike, the one black and the other white, and logits of 1e10.
    SubsetProblem problem(DType::u8, 2, 67, 1.0, true, false);
    std::memset(const_cast<char*>(problem.points.stored.data()), 0, 67);
    std::memset(const_cast<char*>(problem.points.stored.data()) + 67, 255, 67);
    problem.exclude.assign(3, -1);
    for (double& x : problem.x) x = -0.5;
    for (double& s : problem.sigma) s = 1e-3;
    for (const Table* table : tables()) {
        std::vector<double> mean(problem.x.size(), NAN);
        std::vector<int8_t> held(problem.sigma.size(), int8_t(-1));
        subset_posterior(problem.request(*table, 1e-7), problem.subset, mean.data(), held.data());
        for (const int8_t one : held) CHECK(one == 0);
        subset_posterior(problem.request(*table, 1e-1), problem.subset, mean.data(), held.data());
        for (const int8_t one : held) CHECK(one == 1);
    }
}

TEST_CASE("logits so large that the cut is less than their rounding lose no row") {
    for (const Table* table : tables())
        for (const double far : {1e15, 1e17, 1e40, 1e300}) {
            CAPTURE(table->name);
            CAPTURE(far);
            std::vector<double> q(kSide, far), prior(kSide, 0.0);
            std::vector<float> v(kSide, 3.0f);
            double max = -1e308, mass = 0, total = 0, square = 0;
            for (int part = 0; part < 2; ++part)  // the second ties with the first
                table->subset.posterior(q.data(), 1, 1, v.data(), nullptr, prior.data(), 1.0, 40.0,
                                        {&max, &mass, &total, &square});
            CHECK(max == -far);
            CHECK(mass == 2 * kSide);
            CHECK(total == 2 * kSide * 3.0);
        }
}
