// The second product for one query by itself: weights to their rounding, exact integers, and when it is taken.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/posterior.h"
#include "../../csrc/cpu/products/digits.h"
#include "../../csrc/cpu/products/weighted_sum.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

std::vector<const Table*> with_one_query() {
    std::vector<const Table*> some;
    for (const Table* table : tables())
        if (table->integers && table->integers->one_query.bits > 0) some.push_back(table);
    if (some.empty()) MESSAGE("left out: no instruction set that runs here adds the weights of one query by itself");
    return some;
}

// Digits of R rows, as `sum` takes them.
class Digits {
  public:
    explicit Digits(int R) : digits_(size_t(R + 3), 77) {}
    uint8_t& high(int r) { return bytes()[r / 4 * 8 + r % 4]; }
    uint8_t& low(int r) { return bytes()[r / 4 * 8 + r % 4 + 4]; }
    int value(int r) { return 128 * high(r) + low(r); }
    void set(int r, int value) { high(r) = uint8_t(value / 128), low(r) = uint8_t(value % 128); }
    int16_t* data() { return digits_.data(); }

  private:
    uint8_t* bytes() { return reinterpret_cast<uint8_t*>(digits_.data()); }
    std::vector<int16_t> digits_;
};

RoundedWeights rounded(const OneQuerySum& sum, const std::vector<double>& p, Digits& to) {
    int32_t total = 0;
    WeightPlace place{};
    place.units = sum.most_of_two;
    place.up = dithers() + 5 * p.size();
    place.parts = 1;
    place.digits = to.data();
    place.total = &total;
    return sum.round(p.data(), int(p.size()), place);
}

// What `sum` adds to 3 less half of it, in quarters, must be these digits times the rows, exactly.
void check_sum(const OneQuerySum& sum, const Points& points, Digits& digits) {
    const int R = int(points.n);
    const int64_t d = points.d, dp = padded(d);
    std::vector<float> A(size_t(dp), 3.0f);
    const uint8_t active = 1;
    const float rescale = 0.5f, quantum = 0.25f;
    const int32_t total = 0;
    const WeightDigits w{false, 1, 1, 1, digits.data(), &active, &total, &rescale, &quantum};
    const auto* rows = reinterpret_cast<const uint8_t*>(points.stored.data());
    sum.sum(rows, d, R, d, w, A.data(), R > 8 ? rows : nullptr);
    int64_t wrong = 0;
    for (int64_t slot = 0; slot < dp; ++slot) {
        const int64_t c = slot / kPad * kPad + sum.column_of_slot[slot % kPad];
        int64_t exact = 0;
        for (int r = 0; r < R && c < d; ++r) exact += digits.value(r) * int64_t(points.v[size_t(r * d + c)]);
        const double expected = 1.5 + 0.25 * double(exact);
        wrong += c < d && std::fabs(double(A[size_t(slot)]) - expected) > 2e-7 * std::max(1.0, std::fabs(expected));
    }
    CHECK(wrong == 0);
}

// Rows of 0 and of 255 by turns, column by column.
Points extreme(int64_t n, int64_t d) {
    Points points(DType::u8, n, d);
    for (int64_t i = 0; i < n * d; ++i) {
        points.stored[size_t(i)] = char(i % d % 2 ? 0 : 255);
        points.v[size_t(i)] = i % d % 2 ? -128 : 127;
    }
    return points;
}

}  // namespace

TEST_CASE("weights of one query: to their rounding, and no two neighbours beyond what 16 bits hold") {
    for (const Table* table : with_one_query()) {
        CAPTURE(table->name);
        const OneQuerySum& sum = table->integers->one_query;
        for (const auto& [R, d] : {std::pair<int, int>{1, 1}, {2, 64}, {5, 70}, {18, 129}, {72, 200}, {256, 100}})
            for (const int shape : {0, 1, 2}) {  // all alike, one row in three, at random
                Random random{uint64_t(R)};
                std::vector<double> p;
                for (int r = 0; r < R; ++r)
                    p.push_back(shape == 0 ? 0.7 : shape == 1 ? double(r % 3 == 0) : random.uniform());
                Digits digits(R);
                const RoundedWeights found = rounded(sum, p, digits);
                double total = 0;
                for (int r = 0; r < R; ++r) {
                    total += digits.value(r);
                    CHECK(std::fabs(p[size_t(r)] - double(found.quantum) * digits.value(r)) <
                          1.01 * double(found.quantum));
                    CHECK(digits.low(r) < 128);
                    if (r % 2) CHECK(int(digits.high(r - 1)) + int(digits.high(r)) <= 255);
                }
                for (int r = R; r < (R + 3) / 4 * 4; ++r) CHECK(digits.value(r) == 0);
                CHECK(total == found.total);
                check_sum(sum, shape == 0 ? extreme(R, d) : Points(DType::u8, R, d, uint64_t(R)), digits);
            }
    }
}

TEST_CASE("sums of one query: exact for the largest digits that neighbours may have") {
    for (const Table* table : with_one_query()) {
        CAPTURE(table->name);
        for (const auto& [first, second] : {std::pair<int, int>{255 * 128 + 127, 127},
                                            {127, 255 * 128 + 127},
                                            {127 * 128 + 127, 128 * 128 + 127},
                                            {0, 0}}) {
            Digits digits(8);
            for (int r = 0; r < 8; ++r) digits.set(r, r % 2 ? second : first);
            check_sum(table->integers->one_query, extreme(8, 128), digits);
        }
    }
}

TEST_CASE("one query takes weights of 15 bits where tol allows them, and is answered within it in any case") {
    for (const Table* table : with_one_query()) {
        CAPTURE(table->name);
        const OneQuerySum& sum = table->integers->one_query;
        const Problem problem(DType::u8, 3001, 200, 2, 30);
        const Request both = problem.request(*table, 1e-3);
        const auto taken = [&](int64_t count, int bits) {  // the order of columns tells which it is
            return WeightedSum(both, count, 64, {bits}).order() == sum.column_of_slot;
        };
        CHECK(taken(1, sum.bits));
        CHECK(!taken(2, sum.bits));
        CHECK(!taken(1, 16));

        int other_bits = 0, again = 0;  // tolerances
        for (const double tol : {1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7}) {
            CAPTURE(tol);
            Request request = problem.request(*table, tol);
            Answers of_two(request);
            Answer answer = of_two.view();
            posterior(request, answer);
            request.batch = 1;
            int64_t read = 0;
            request.rows_read = &read;
            Answers of_one(request);
            answer = of_one.view();
            posterior(request, answer);
            CHECK(problem.error(0, of_one.mean.data(), tol) <= 1);
            CHECK(read >= problem.rows.n);
            again += read >= 2 * problem.rows.n;
            const auto end = of_one.mean.begin() + problem.rows.d;
            other_bits += !std::equal(of_one.mean.begin(), end, of_two.mean.begin());
        }
        MESSAGE(other_bits << " other " << again << " again");
        CHECK(other_bits > 0);  // of 15 bits here, of 16 there
    }
}
