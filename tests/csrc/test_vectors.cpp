// What is done with whole vectors, on every instruction set, against the same in plain loops.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

const int64_t kLengths[] = {1, 3, 8, 15, 16, 17, 63, 64, 65, 100, 127, 300, 513, 1100};

std::vector<double> random_doubles(int64_t n, uint64_t seed) {
    Random random(seed);
    std::vector<double> out(static_cast<size_t>(n));
    for (double& x : out) x = 100 * random.normal();
    return out;
}

double off(double found, double exact) { return std::fabs(found - exact) / std::max(1.0, std::fabs(exact)); }

}  // namespace

TEST_CASE("vectors are centred, and what is not finite is noticed wherever it stands") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        const VectorLoops& loops = table->vectors;
        for (const int64_t n : kLengths) {
            const std::vector<double> x = random_doubles(n, uint64_t(n));
            std::vector<float> narrow(size_t(n) + 1, 7.0f);
            loops.narrow(x.data(), n, narrow.data());
            std::vector<double> to(size_t(n) + 1, 7.0), from32(size_t(n) + 1, 7.0);
            CHECK(loops.centre_f64(x.data(), n, 2.5, -1, to.data()));
            CHECK(loops.centre_f32(narrow.data(), n, 2.5, -1, from32.data()));
            double worst = 0;
            for (int64_t i = 0; i < n; ++i) {
                worst = std::max(worst, off(to[size_t(i)], x[size_t(i)] * 2.5 - 1));
                worst = std::max(worst, off(from32[size_t(i)], double(float(x[size_t(i)])) * 2.5 - 1));
            }
            CHECK(worst <= 1e-15);
            CHECK(narrow[size_t(n)] == 7.0f);
            CHECK(to[size_t(n)] == 7.0);
            CHECK(from32[size_t(n)] == 7.0);
            CHECK(loops.centre_f64(to.data(), n, 0.4, 0.4, to.data()));  // in place
            for (int64_t i = 0; i < n; ++i) worst = std::max(worst, off(to[size_t(i)], x[size_t(i)]));
            CHECK(worst <= 1e-14);
            for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
                for (const int64_t at : {int64_t(0), n / 2, n - 1}) {
                    std::vector<double> wide = x;
                    wide[size_t(at)] = double(bad);
                    CHECK(!loops.centre_f64(wide.data(), n, 1, 0, to.data()));
                    std::vector<float> single = narrow;
                    single[size_t(at)] = -bad;
                    CHECK(!loops.centre_f32(single.data(), n, 1, 0, to.data()));
                }
        }
    }
}

TEST_CASE("how large a vector is, as a whole and as a lane sees it") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int64_t n : kLengths)
            for (const int64_t fold : {kFold, kFewFold, n})
                for (const bool in_lanes : {false, true}) {
                    std::vector<double> x = random_doubles(n, uint64_t(n + fold)), y = random_doubles(n, 3);
                    if (n % 2) x[size_t(n - 1)] = -1234;  // the largest is negative, and the last
                    const int64_t lanes = in_lanes ? table->floats.few_lanes : 1;
                    double largest = 0, square = 0, part = 0, product = 0, apart = 0, shifted = 0;
                    for (int64_t base = 0; base < n; base += fold) {
                        std::vector<double> lane(size_t(lanes), 0.0);
                        for (int64_t k = base; k < std::min(base + fold, n); ++k) {
                            lane[size_t(k % lanes)] += x[size_t(k)] * x[size_t(k)];
                            largest = std::max(largest, std::fabs(x[size_t(k)]));
                            square += x[size_t(k)] * x[size_t(k)];
                            product += x[size_t(k)] * y[size_t(k)];
                            apart += (x[size_t(k)] - y[size_t(k)]) * (x[size_t(k)] - y[size_t(k)]);
                            shifted += (x[size_t(k)] + 0.75) * (x[size_t(k)] + 0.75);
                        }
                        part = std::max(part, *std::max_element(lane.begin(), lane.end()));
                    }
                    const VectorSize found = table->vectors.size(x.data(), n, fold, in_lanes);
                    CHECK(found.largest == largest);
                    CHECK(off(found.square, square) <= 1e-14);
                    if (fold % lanes == 0) CHECK(off(found.part, part) <= 1e-14);
                    CHECK(std::fabs(table->vectors.dot(x.data(), y.data(), n) - product) <= 1e-12 * square);
                    CHECK(off(table->vectors.squared_distance(x.data(), y.data(), n), apart) <= 1e-14);
                    CHECK(off(table->vectors.shifted_square(x.data(), 0.75, n), shifted) <= 1e-14);
                }
    }
}

TEST_CASE("the largest number of a vector, wherever it stands") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        CHECK(table->vectors.largest(nullptr, 0) == std::numeric_limits<double>::lowest());
        for (const int64_t n : kLengths) {
            std::vector<double> x = random_doubles(n, uint64_t(n));
            for (double& one : x) one = -std::fabs(one) - 1;
            for (const int64_t at : {int64_t(0), n / 3, n / 2, n - 1}) {
                std::vector<double> y = x;
                y[size_t(at)] = -0.5;
                CHECK(table->vectors.largest(y.data(), n) == -0.5);
            }
            const std::vector<double> nothing(size_t(n), -std::numeric_limits<double>::infinity());
            CHECK(table->vectors.largest(nothing.data(), n) < -1e308);
        }
    }
}

namespace {

// Of x the first n numbers in blocks of kPad, `step` apart; sevens between them.
std::vector<float> in_blocks(const std::vector<float>& x, int64_t n, int64_t step) {
    std::vector<float> far(size_t((n + kPad - 1) / kPad * step), 7.0f);
    for (int64_t k = 0; k < n; ++k) far[size_t(k / kPad * step + k % kPad)] = x[size_t(k)];
    return far;
}

}  // namespace

TEST_CASE("vectors are added, in float64 and, with their squares, in float32") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        const VectorLoops& loops = table->vectors;
        for (const int64_t n : kLengths) {
            const std::vector<double> x = random_doubles(n, uint64_t(n)), y = random_doubles(n, 3);
            std::vector<double> to = y;
            to.push_back(7);
            loops.add(-0.3, x.data(), n, to.data());
            std::vector<float> a(size_t(n) + 1, 7.0f), b(size_t(n) + 1, 7.0f);
            loops.narrow(x.data(), n, a.data());
            loops.narrow(y.data(), n, b.data());
            double worst = 0, of_a = 0, of_both = 0;
            for (int64_t k = 0; k < n; ++k) {
                worst = std::max(worst, off(to[size_t(k)], y[size_t(k)] - 0.3 * x[size_t(k)]));
                const double one = double(a[size_t(k)]), both = one + 0.25 * double(b[size_t(k)]);
                of_a += one * one;
                of_both += both * both;
            }
            CHECK(worst <= 1e-14);
            CHECK(to[size_t(n)] == 7.0);
            CHECK(off(double(loops.square_f32(a.data(), nullptr, 0.25f, n, kPad)), of_a) <= 1e-5);
            CHECK(off(double(loops.square_f32(a.data(), b.data(), 0.25f, n, kPad)), of_both) <= 1e-5);
            const int64_t step = 3 * kPad;
            std::vector<float> far_a = in_blocks(a, n, step), far_b = in_blocks(b, n, step);
            CHECK(loops.square_f32(far_a.data(), far_b.data(), 0.25f, n, step) ==
                  loops.square_f32(a.data(), b.data(), 0.25f, n, kPad));
            loops.fold_f32(far_a.data(), 0.25f, far_b.data(), n, step);
            loops.fold_f32(a.data(), 0.25f, b.data(), n, kPad);
            CHECK(far_a == in_blocks(a, n, step));
            CHECK(far_b == in_blocks(b, n, step));
            CHECK(off(double(loops.square_f32(b.data(), nullptr, 0, n, kPad)), of_both) <= 1e-5);
            CHECK(loops.square_f32(a.data(), nullptr, 0, n, kPad) == 0);
            CHECK(a[size_t(n)] == 7.0f);
            CHECK(b[size_t(n)] == 7.0f);
        }
    }
}

TEST_CASE("sums of pieces are joined, in the order of columns") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int64_t d : kLengths)
            for (const int count : {0, 1, 3, 6})
                for (const bool ordered : {false, true}) {
                    if (ordered && !table->integers) continue;
                    const uint8_t* column = ordered ? table->integers->layout.column_of_slot : nullptr;
                    const int64_t dp = padded(d);
                    std::vector<std::vector<float>> sums, apart;
                    std::vector<Summand> summands;
                    for (int s = 0; s < count; ++s) {
                        const std::vector<double> x = random_doubles(dp, uint64_t(s + 1));
                        sums.emplace_back(x.begin(), x.end());
                        apart.push_back(in_blocks(sums.back(), dp, (s + 1) * kPad));
                    }
                    for (int s = 0; s < count; ++s)
                        summands.push_back({apart[size_t(s)].data(), (s + 1) * kPad, 0.5 * (s + 1)});
                    std::vector<double> to(size_t(d) + 1, -7.0);
                    const Joined found = table->vectors.join(summands.data(), count, column, d, 0.25, 3, to.data());
                    double worst = 0, square = 0, model = 0;
                    for (int64_t slot = 0; slot < dp; ++slot) {
                        const int64_t k = slot / kPad * kPad + (column ? column[slot % kPad] : slot % kPad);
                        if (k >= d) continue;
                        double exact = 0;
                        for (int s = 0; s < count; ++s)
                            exact += summands[size_t(s)].factor * double(sums[size_t(s)][size_t(slot)]);
                        exact *= 0.25;
                        worst = std::max(worst, off(to[size_t(k)], exact));
                        square += exact * exact;
                        model += (exact + 3) * (exact + 3);
                    }
                    CHECK(worst <= 1e-13);
                    CHECK(to[size_t(d)] == -7.0);
                    CHECK(off(found.square, square) <= 1e-12);
                    CHECK(off(found.model_square, model) <= 1e-12);
                }
    }
}

TEST_CASE("a solver's update, into memory of its own or of one of its terms") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int64_t n : kLengths) {
            const std::vector<double> mean = random_doubles(n, 1), first = random_doubles(n, 2);
            const std::vector<double> second = random_doubles(n, 3);
            const double factors[] = {0.5, -2};
            std::vector<double> exact;
            for (size_t i = 0; i < size_t(n); ++i) exact.push_back(mean[i] * 3 + 1 + 0.5 * first[i] - 2 * second[i]);
            std::vector<double> out = second;
            const double* terms[] = {first.data(), out.data()};
            table->vectors.combine_f64(mean.data(), 3, 1, terms, factors, 2, n, out.data());
            const std::vector<float> first32(first.begin(), first.end());
            std::vector<float> out32(second.begin(), second.end());
            const float* terms32[] = {first32.data(), out32.data()};
            table->vectors.combine_f32(mean.data(), 3, 1, terms32, factors, 2, n, out32.data());
            double worst = 0, worst32 = 0;
            for (size_t i = 0; i < size_t(n); ++i) {
                worst = std::max(worst, std::fabs(out[i] - exact[i]));
                worst32 = std::max(worst32, std::fabs(double(out32[i]) - exact[i]));
            }
            CHECK(worst <= 1e-11);
            CHECK(worst32 <= 1e-4);
        }
    }
}

TEST_CASE("digits of a product are joined, onto nothing or onto what is there") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int R : {1, 7, 16, 33, 256})
            for (int parts = 1; parts <= 4; ++parts)
                for (const bool onto : {false, true}) {
                    const int64_t lds = R + 5;
                    const std::vector<double> s = random_doubles(parts * lds, 5);
                    std::vector<double> l = random_doubles(R + 1, 6), before = l;
                    table->join_digits({s.data(), lds, parts, 0.01, 256}, onto ? l.data() : nullptr, 0.5, 4, R,
                                       l.data());
                    double worst = 0;
                    for (int r = 0; r < R; ++r) {
                        double exact = 4 + (onto ? 0.5 * before[size_t(r)] : 0), weight = 0.01;
                        for (int part = parts - 1; part >= 0; --part, weight *= 256)
                            exact += weight * s[size_t(part * lds + r)];
                        worst = std::max(worst, off(l[size_t(r)], exact));
                    }
                    CHECK(worst <= 1e-12);
                    CHECK(l[size_t(R)] == before[size_t(R)]);
                }
    }
}

TEST_CASE("how far logits reach with their errors, whichever row it is") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const int R : {1, 3, 8, 17, 40, 120, 128}) {
            std::vector<double> l = random_doubles(R, uint64_t(R));
            std::vector<float> away(static_cast<size_t>(R));
            for (int r = 0; r < R; ++r) away[size_t(r)] = float(r % 7) + 0.5f;
            for (const int at : {0, R / 2, R - 1}) {
                l[size_t(at)] = 1e4;
                const Reach found = table->reach(l.data(), away.data(), 2.0, 0.25, R);
                const double error = 2.0 * double(away[size_t(at)]) + 0.25;
                CHECK(found.lower == 1e4 - error);
                CHECK(found.upper == 1e4 + error);
                l[size_t(at)] = -1e308;  // a row that must not be seen
            }
            const Reach unseen = table->reach(std::vector<double>(size_t(R), -1e308).data(), away.data(), 2.0, 0.25, R);
            CHECK(unseen.lower == -1e308);
            CHECK(unseen.upper == -1e308);
        }
    }
}
