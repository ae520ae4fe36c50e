// The float kernels of every instruction set against plain loops in float64.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

constexpr DType kAll[] = {DType::u8, DType::f16, DType::bf16, DType::f32};

std::vector<float> random_floats(int64_t count, uint64_t seed) {
    Random random(seed);
    std::vector<float> out(static_cast<size_t>(count));
    for (float& value : out) value = float(random.normal());
    return out;
}

}  // namespace

TEST_CASE("each instruction set has a name of its own, and an unknown one is refused by name") {
    std::vector<std::string> names = isas();
    CHECK(names.front() == "portable");
    std::sort(names.begin(), names.end());
    CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
    CHECK_THROWS_WITH_AS(kernels_for("sse9"), doctest::Contains("portable"), std::invalid_argument);
}

TEST_CASE("float products, for every number of queries that a register block leaves over") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const DType dtype : kAll)
            for (const auto& [R, d] : {std::pair<int, int>{1, 1}, {7, 64}, {25, 131}, {130, 300}})
                for (const int nq : {1, 7, 8, 17, 31, 64}) {
                    CAPTURE(nq);
                    const Points points(dtype, R, d);
                    const int64_t dp = padded(d), lanes = table->floats.lanes;
                    const std::vector<float> Q = random_floats(nq * d, uint64_t(nq)), P = random_floats(nq * R, 5);
                    // Lanes past the last query hold NaN: they must reach nobody's sum.
                    std::vector<float> packed(size_t(64 * d), NAN);
                    std::vector<double> packed64(size_t(64 * d), double(NAN));
                    for (int64_t q = 0; q < nq; ++q)
                        for (int64_t k = 0; k < d; ++k) {
                            const float x = Q[size_t(q * d + k)];
                            packed[size_t((q / lanes * d + k) * lanes + q % lanes)] = x;
                            packed64[size_t((q / (lanes / 2) * d + k) * (lanes / 2) + q % (lanes / 2))] = double(x);
                        }
                    const void* X = points.stored.data();
                    std::vector<double> S(size_t(nq * R), -1.0), S64(size_t(nq * R), -1.0);
                    table->dot_f32(X, dtype, d, R, packed.data(), nq, S.data(), R);
                    table->dot_f64(X, dtype, d, R, packed64.data(), nq, S64.data(), R);
                    std::vector<float> A(size_t(nq * dp), 2.0f);
                    const std::vector<float> rescale(size_t(nq), 0.5f);
                    table->sum_f32(X, dtype, d, R, P.data(), R, rescale.data(), nq, A.data(), dp, nullptr);
                    double worst = 0, worst64 = 0, worst_sum = 0;
                    for (int q = 0; q < nq; ++q) {
                        for (int r = 0; r < R; ++r) {
                            double exact = 0, size = 0;
                            for (int64_t k = 0; k < d; ++k) {
                                exact += double(Q[size_t(q * d + k)]) * points.v[size_t(r * d + k)];
                                size += std::fabs(double(Q[size_t(q * d + k)]) * points.v[size_t(r * d + k)]);
                            }
                            worst = std::max(worst, std::fabs(S[size_t(q * R + r)] - exact) / size);
                            worst64 = std::max(worst64, std::fabs(S64[size_t(q * R + r)] - exact) / size);
                        }
                        for (int64_t k = 0; k < dp; ++k) {
                            double exact = 1, size = 1;
                            for (int r = 0; k < d && r < R; ++r) {
                                exact += double(P[size_t(q * R + r)]) * points.v[size_t(r * d + k)];
                                size += std::fabs(double(P[size_t(q * R + r)]) * points.v[size_t(r * d + k)]);
                            }
                            worst_sum = std::max(worst_sum, std::fabs(double(A[size_t(q * dp + k)]) - exact) / size);
                        }
                    }
                    CHECK(worst <= kFold * 0x1p-24);
                    CHECK(worst64 <= 1e-13);
                    CHECK(worst_sum <= (R + 2) * 0x1p-24);
                }
    }
}

TEST_CASE(
    "float products of tiles err as sums in float32 do, for every number of rows, columns and queries left over") {
    for (const Table* table : tables()) {
        const FloatTiles* tiles = table->float_tiles;
        if (!tiles) continue;
        CAPTURE(table->name);
        for (const DType dtype : kAll)
            for (const auto& [R, d] :
                 {std::pair<int, int>{1, 1}, {31, 16}, {33, 77}, {130, 300}, {256, 64}, {45, 1100}})
                for (const int nq : {1, 16, 17, 40, 200}) {
                    CAPTURE(R);
                    CAPTURE(d);
                    CAPTURE(nq);
                    const Points points(dtype, R, d);
                    const int64_t dp = padded(d), ldp = R + 3;
                    const std::vector<float> Q = random_floats(nq * d, uint64_t(nq));
                    std::vector<float> P = random_floats(nq * ldp, 5);
                    Buffer<char> packed(tiles->packed_bytes(nq, d), true), room(tiles->room_bytes(nq));
                    for (int64_t q = 0; q < nq; ++q) {
                        const std::vector<double> x(Q.begin() + q * d, Q.begin() + (q + 1) * d);
                        tiles->pack(x.data(), d, q, packed.data());
                        // What lies behind a query's weights must reach nobody's sum.
                        for (int64_t r = R; r < ldp; ++r) P[size_t(q * ldp + r)] = NAN;
                    }
                    const void* X = points.stored.data();
                    std::vector<double> S(size_t(nq * R), -1.0);
                    tiles->dot(X, dtype, d, R, packed.data(), nq, S.data(), R);
                    Buffer<float> A(nq * dp);
                    std::fill_n(A.data(), nq * dp, 2.0f);
                    const std::vector<float> rescale(size_t(nq), 0.5f);
                    tiles->sum(X, dtype, d, R, P.data(), ldp, rescale.data(), nq, A.data(), dp, nullptr, room.data());
                    double worst = 0, worst_sum = 0;
                    for (int q = 0; q < nq; ++q) {
                        for (int r = 0; r < R; ++r) {
                            double exact = 0, size = 0;
                            for (int64_t k = 0; k < d; ++k) {
                                const double term = double(Q[size_t(q * d + k)]) * points.v[size_t(r * d + k)];
                                exact += term;
                                size += std::fabs(term);
                            }
                            worst = std::max(worst, std::fabs(S[size_t(q * R + r)] - exact) / size);
                        }
                        for (int64_t k = 0; k < dp; ++k) {
                            double exact = 1, size = 1;
                            for (int r = 0; k < d && r < R; ++r) {
                                const double term = double(P[size_t(q * ldp + r)]) * points.v[size_t(r * d + k)];
                                exact += term;
                                size += std::fabs(term);
                            }
                            worst_sum = std::max(worst_sum, std::fabs(double(A[q * dp + k]) - exact) / size);
                        }
                    }
                    // 16 products of a sum, the two sums of a step, steps one by one; and pieces left out.
                    CHECK(worst <= double(20 + std::min<int64_t>(d, tiles->chunk) / tiles->step) * 0x1p-24);
                    CHECK(worst_sum <= double(22 + R / tiles->step) * 0x1p-24);
                }
    }
}

TEST_CASE("products of rows as stored, whole registers and tails") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        for (const DType dtype : kAll)
            for (const int64_t d : {1, 5, 77, 259, 600})
                for (int nq = 1; nq <= table->floats.few; ++nq) {
                    const int R = 11;
                    const Points points(dtype, R, d);
                    const int64_t dp = padded(d);
                    std::vector<float> Q = random_floats(nq * dp, 3), P = random_floats(nq * R, 5);
                    std::vector<double> S(size_t(nq * R), 0.0);
                    std::vector<float> A(size_t(nq * dp), 2.0f);
                    const std::vector<float> rescale(size_t(nq), 0.5f);
                    table->dot_few(points.stored.data(), dtype, d, R, Q.data(), dp, nq, S.data(), R);
                    table->sum_few(points.stored.data(), dtype, d, R, P.data(), R, rescale.data(), nq, A.data(), dp,
                                   nullptr);
                    double worst = 0;
                    for (int q = 0; q < nq; ++q) {
                        for (int r = 0; r < R; ++r) {
                            double exact = 0, size = 1;
                            for (int64_t k = 0; k < d; ++k) {
                                exact += double(Q[size_t(q * dp + k)]) * points.v[size_t(r * d + k)];
                                size += std::fabs(double(Q[size_t(q * dp + k)]) * points.v[size_t(r * d + k)]);
                            }
                            worst = std::max(worst, std::fabs(S[size_t(q * R + r)] - exact) / size);
                        }
                        for (int64_t k = 0; k < d; ++k) {
                            double exact = 1, size = 1;
                            for (int r = 0; r < R; ++r) {
                                exact += double(P[size_t(q * R + r)]) * points.v[size_t(r * d + k)];
                                size += std::fabs(double(P[size_t(q * R + r)]) * points.v[size_t(r * d + k)]);
                            }
                            worst = std::max(worst, std::fabs(double(A[size_t(q * dp + k)]) - exact) / size);
                        }
                    }
                    CHECK(worst <= double(kFewFold / table->floats.few_lanes) * 0x1p-24);
                }
    }
}

TEST_CASE("online softmax over tiles is the softmax over all") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        Random random(11);
        const int n = 301, tile = 37;
        std::vector<double> l(n), h(n), p(tile);
        for (int i = 0; i < n; ++i) {
            l[size_t(i)] = 200 * random.normal();
            h[size_t(i)] = random.uniform();
        }
        Online state;
        double weighted = 0;
        for (int first = 0; first < n; first += tile) {
            const int R = std::min(tile, n - first);
            double rescale = 1;
            if (!table->softmax(l.data() + first, h.data() + first, R, 745, &state, p.data(), &rescale)) continue;
            weighted *= rescale;
            for (int r = 0; r < R; ++r) weighted += p[size_t(r)] * h[size_t(first + r)];
        }
        const double top = *std::max_element(l.begin(), l.end());
        double sum = 0, sum_l = 0, sum_2 = 0, sum_h = 0;
        for (int i = 0; i < n; ++i) {
            const double w = std::exp(l[size_t(i)] - top);
            sum += w;
            sum_l += w * (l[size_t(i)] - top);
            sum_2 += w * w;
            sum_h += w * h[size_t(i)];
        }
        CHECK(state.max == top);
        CHECK(state.sum == doctest::Approx(sum).epsilon(1e-13));
        CHECK(state.sum_l == doctest::Approx(sum_l).epsilon(1e-12));
        CHECK(state.sum_2 == doctest::Approx(sum_2).epsilon(1e-13));
        CHECK(state.sum_h == doctest::Approx(sum_h).epsilon(1e-13));
        CHECK(weighted == doctest::Approx(sum_h).epsilon(1e-13));
        const Online before = state;
        const std::vector<double> far(5, top - 800);
        double rescale = 7;
        CHECK_FALSE(table->softmax(far.data(), h.data(), 5, 700, &state, p.data(), &rescale));
        CHECK(state.sum == before.sum);
        CHECK(rescale == 1);
    }
}

TEST_CASE("the largest that logits can be, and what those below a threshold can weigh") {
    for (const Table* table : tables()) {
        CAPTURE(table->name);
        Random random(12);
        for (const int R : {1, 7, 8, 37, kMaxTileRows}) {
            std::vector<double> l(static_cast<size_t>(R));
            std::vector<float> away(static_cast<size_t>(R));
            for (int r = 0; r < R; ++r) {
                l[size_t(r)] = r % 5 == 4 ? -INFINITY : 20 * random.normal();
                away[size_t(r)] = float(random.uniform());
            }
            const double row_error = 3, base_error = 0.5, least = -4, top = 6;
            double upper = -INFINITY, lower = -INFINITY, weight = 0;
            for (int r = 0; r < R; ++r) {
                const double e = row_error * double(away[size_t(r)]) + base_error;
                upper = std::max(upper, l[size_t(r)] + e);
                lower = std::max(lower, l[size_t(r)] - e);
                if (l[size_t(r)] + e < least) weight += std::exp(l[size_t(r)] + e - top);
            }
            const Reach reach = table->reach(l.data(), away.data(), row_error, base_error, R);
            CHECK(reach.upper == doctest::Approx(upper).epsilon(1e-13));
            CHECK(reach.lower == doctest::Approx(lower).epsilon(1e-13));
            const double below = table->below(l.data(), away.data(), row_error, base_error, least, top, R);
            CHECK(below == doctest::Approx(weight).epsilon(1e-13));
        }
    }
}

TEST_CASE("distances, weighted rows and statistics in float64") {
    for (const Table* table : tables())
        for (const DType dtype : kAll)
            for (const int64_t d : {1, 63, 513, 1100}) {
                CAPTURE(table->name);
                const Points points(dtype, 1, d);
                std::vector<double> x(size_t(d), 0.25), acc(size_t(d), 1.0), sums(size_t(d), 0.0);
                double exact = 0, norm2 = 0, found = -1;
                for (int64_t k = 0; k < d; ++k) {
                    exact += (0.25 - points.v[size_t(k)]) * (0.25 - points.v[size_t(k)]);
                    norm2 += points.v[size_t(k)] * points.v[size_t(k)];
                }
                CHECK(table->distance(x.data(), points.stored.data(), dtype, d) ==
                      doctest::Approx(exact).epsilon(1e-14));
                double along = 0;
                for (int64_t k = 0; k < d; ++k) along += 0.25 * points.v[size_t(k)];
                CHECK(table->inner(x.data(), points.stored.data(), dtype, d) == doctest::Approx(along).epsilon(1e-12));
                table->axpy(2, points.stored.data(), dtype, d, acc.data());
                CHECK(table->row_stats(points.stored.data(), dtype, d, &found, sums.data()));
                CHECK(found == doctest::Approx(norm2).epsilon(1e-14));
                int64_t wrong = 0;
                for (int64_t k = 0; k < d; ++k)
                    wrong += acc[size_t(k)] != 1 + 2 * points.v[size_t(k)] || sums[size_t(k)] != points.v[size_t(k)];
                CHECK(wrong == 0);
            }
}
