// Principal coordinates of the rows, and the error that is measured on drawn rows.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/dense.h"
#include "../../csrc/cpu/passes/drawn.h"
#include "../../csrc/cpu/passes/shape.h"
#include "../../csrc/cpu/products/known.h"
#include "../../csrc/cpu/products/logits.h"
#include "../../csrc/cpu/products/weighted_sum.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

// Rows that vary along a few directions, and a little everywhere; the first `rough` ones more.
struct Shaped {
    static constexpr int64_t n = 900, d = 1100;
    double level = 128;
    int64_t rough = 0;
    std::vector<uint8_t> stored = bytes();
    Rows rows{stored.data(), DType::u8, n, d};
    Statistics found = prepare(kernels_for("portable"), rows, 1);
    Stats stats = found.stats(rows);

    std::vector<uint8_t> bytes() const {
        std::vector<uint8_t> made = bytes_along_lines(n, d, 6, [](int64_t) { return 12.0; }, level, 4, 5);
        Random random(11);
        for (int64_t at = 0; at < rough * d; ++at)
            made[size_t(at)] = uint8_t(std::clamp(double(made[size_t(at)]) + 15 * random.normal(), 0.0, 255.0));
        return made;
    }
    double value(int64_t i, int64_t k) const { return double(stored[size_t(i * d + k)]) - 128; }
    Coordinates coordinates(const Table& table, int threads) const {
        return {table, rows, stats, found.mean.data(), threads};
    }
    // Queries x [sigmas, d], which stay where they are.
    Request request(const Table& table, const std::vector<double>& x, const std::vector<double>& sigmas,
                    double tol) const {
        Request asked{table, rows, stats};
        asked.batch = int64_t(sigmas.size());
        asked.x = x.data();
        asked.sigma = sigmas.data();
        asked.tol = tol;
        return asked;
    }
};

}  // namespace

TEST_CASE(
    "principal coordinates: orthonormal directions, bytes within half a step, the same on any number of threads") {
    const Shaped data;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const Coordinates made = data.coordinates(*table, 1), again = data.coordinates(*table, 3);
        const Shaping s = made.view(data.found.mean.data());
        double worst = 0;
        for (int64_t i = 0; i < kDirections; ++i)
            for (int64_t j = 0; j <= i; ++j) {
                double product = 0;
                for (int64_t k = 0; k < data.d; ++k)
                    product += double(s.directions[i * data.d + k]) * double(s.directions[j * data.d + k]);
                worst = std::max(worst, std::fabs(product - (i == j)));
            }
        CHECK(worst < 1e-5);
        // Six directions hold nearly all: 1 - left / mean_square would be 0.12 for the first six columns alone.
        CHECK(s.left < 0.1 * s.mean_square);
        int64_t saturated = 0;
        double off = 0;
        for (int64_t i = 0; i < data.n; i += 37)
            for (int64_t j = 0; j < kDirections; ++j) {
                const int byte = s.coordinates[i * kDirections + j];
                saturated += byte == 0 || byte == 255;
                double exact = 0;
                for (int64_t k = 0; k < data.d; ++k) exact += double(s.directions[j * data.d + k]) * data.value(i, k);
                off = std::max(off, std::fabs(exact - s.centre[j] - s.step[j] * (byte - 128)) / s.step[j]);
            }
        CHECK(saturated == 0);
        CHECK(off < 0.51);
        for (int64_t i = 0; i < data.n * kDirections; ++i)
            if (s.coordinates[i] != again.view(data.found.mean.data()).coordinates[i])
                FAIL("another number of threads, another coordinate");
        for (int64_t i = 0; i < data.n; ++i)
            if (s.chance[i] != again.view(data.found.mean.data()).chance[i])
                FAIL("another number of threads, another chance");
    }
}

TEST_CASE("what rounding has lost of a shaped query is all that is missing from its logits") {
    const Shaped data;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const Coordinates made = data.coordinates(*table, 1);
        const int64_t batch = table->integers->layout.shaped_from;
        if (table->integers_for(batch)->layout.shaped_from > batch) continue;  // no digit is worth coordinates
        const double sigma = 5100;
        std::vector<double> x(size_t(batch * data.d)), sigmas(size_t(batch), sigma);
        Random random(9);
        for (double& v : x) v = sigma * random.normal();
        Request request = data.request(*table, x, sigmas, 1e-5);
        request.shaping = made.view(data.found.mean.data());
        std::vector<int64_t> which;
        for (int64_t q = 0; q < batch; ++q) which.push_back(q);
        const Logits logits(request, which.data(), batch, Precision::normal);
        REQUIRE(logits.shaped());
        const Logits whole(request.shaped({}), which.data(), batch, Precision::normal);
        REQUIRE(!whole.shaped());
        const int64_t tile = tile_rows(request, batch);
        auto work = logits.work(tile);
        const int R = int(std::min(tile, data.n - 24));
        logits.multiply(work, 24, R, 0, tile);
        double left = 0, lost = 0;
        for (int64_t q = 0; q < batch; ++q) {
            const double* l = logits.logits(work, 24, R, q, tile);
            for (int r = 0; r < R; r += 5) {
                double exact = 0, missing = 0, norm = 0;
                for (int64_t k = 0; k < data.d; ++k) {
                    const double v = data.value(24 + r, k);
                    exact += x[size_t(q * data.d + k)] * v;
                    missing += double(logits.lost(q)[k]) * v;
                    norm += v * v;
                }
                const double off = (exact - norm / 2) / (sigma * sigma) - l[r];
                left += std::pow(off - missing / (sigma * sigma), 2);  // the rounding of coordinates to bytes
                lost += off * off;
            }
        }
        CHECK(left < 0.05 * lost);
    }
}

TEST_CASE(
    "where coordinates say what is new of queries no digit does: bytes err as much as is said, and what is known "
    "stays") {
    const Shaped data;
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(std::string(table->name));
        const Coordinates made = data.coordinates(*table, 1);
        const int64_t batch = std::max(table->integers->layout.shaped_from, table->integers->layout.side_by_side + 1);
        if (table->integers_for(batch)->layout.shaped_from > batch) continue;  // no digit is worth coordinates
        std::vector<double> x(size_t(batch * data.d)), sigmas(size_t(batch), 5100.0);
        Random random(9);
        for (double& v : x) v = 5100 * random.normal();
        std::vector<int64_t> which;
        for (int64_t q = 0; q < batch; ++q) which.push_back(q);
        Known known(batch);
        Request request = data.request(*table, x, sigmas, 10);
        request.shaping = made.view(data.found.mean.data());
        request.known = &known;
        const int64_t tile = tile_rows(request, batch);
        const auto all_of = [&](const Logits& logits, auto&& each) {
            auto work = logits.work(tile);
            for (int64_t first = 0; first < data.n; first += tile) {
                const int R = int(std::min(tile, data.n - first));
                logits.over(work, first, R, tile, [&](int64_t q, const double* l) { each(q, first, R, l); });
            }
            logits.commit();
        };
        all_of(Logits(request, which.data(), batch, Precision::normal), [](int64_t, int64_t, int, const double*) {});
        std::vector<std::vector<double>> y;
        for (int64_t q = 0; q < batch; ++q) {
            Known::Entry& entry = known.entry(q);
            REQUIRE(entry.passes == 1);
            entry.ess = 300;
            y.push_back(entry.y);
            for (int64_t k = 0; k < data.d; ++k)  // along a direction, and a little beside it
                x[size_t(q * data.d + k)] = 0.9 * x[size_t(q * data.d + k)] +
                                            1e4 * double(request.shaping.directions[q % 6 * data.d + k]) +
                                            20 * random.normal();
        }
        const Logits logits(request, which.data(), batch, Precision::normal);
        REQUIRE(logits.shaped());
        double off = 0, said = 0;
        all_of(logits, [&](int64_t q, int64_t first, int R, const double* l) {
            for (int r = 0; r < R; r += 5) {
                double exact = 0;
                for (int64_t k = 0; k < data.d; ++k) {
                    const double v = data.value(first + r, k);
                    exact += (x[size_t(q * data.d + k)] - double(logits.lost(q)[k]) - v / 2) * v;
                }
                off += std::pow(exact / (5100.0 * 5100.0) - l[r], 2);
                said += std::pow(logits.logit_noise(q), 2);
            }
        });
        CHECK(off < 1.5 * said);
        CHECK(off > 0.6 * said);
        for (int64_t q = 0; q < batch; ++q) {
            CHECK(known.entry(q).passes == 1);
            CHECK(known.entry(q).y == y[size_t(q)]);
        }
    }
}

TEST_CASE("what digits lose of weights is carried by coordinates: to the variance that is left, and no further") {
    const Shaped data{180, 50};
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const Coordinates made = data.coordinates(*table, 1);
        Request request{*table, data.rows, data.stats};
        const Shaping shaping = made.view(data.found.mean.data());
        const int64_t count = 5, tile = 48, k = shaping.count();
        const int bits = table->integers->layout.digit_bits;
        WeightedSum plain(request, count, tile, {8}), sum(request, count, tile, {8, false, shaping});
        REQUIRE(!plain.carries());
        REQUIRE(sum.carries());
        Random random(4);
        std::vector<double> exact(size_t(count * data.d), 0.0), total(size_t(count), 0.0);
        std::vector<Online> states(static_cast<size_t>(count)), plain_states(static_cast<size_t>(count));
        for (int64_t first = 0; first < data.n; first += tile) {
            const int R = int(std::min(tile, data.n - first));
            plain.begin(first, R, uint64_t(first));
            sum.begin(first, R, uint64_t(first));
            for (int64_t q = 0; q < count; ++q) {
                if (q == 1 && first == tile) continue;  // takes nothing from this tile
                const double rescale = q == 2 ? 0.5 : 1;
                std::vector<double> p(size_t(tile), 0.0);
                for (int r = 0; r < R; ++r) p[size_t(r)] = random.uniform() * random.uniform();
                total[size_t(q)] *= rescale;
                for (int64_t c = 0; c < data.d; ++c) exact[size_t(q * data.d + c)] *= rescale;
                for (int r = 0; r < R; ++r) {
                    total[size_t(q)] += p[size_t(r)];
                    for (int64_t c = 0; c < data.d; ++c)
                        exact[size_t(q * data.d + c)] += p[size_t(r)] * data.value(first + r, c);
                }
                states[size_t(q)].sum_q *= rescale;  // as softmax does
                sum.set(q, p.data(), rescale, states[size_t(q)]);
                plain.set(q, p.data(), rescale, plain_states[size_t(q)]);
            }
            plain.add(nullptr);
            sum.add(nullptr);
        }
        double off = 0, plain_off = 0, expected = 0;
        for (int64_t q = 0; q < count; ++q) {
            const WeightedSum::Rest rest = sum.rest(q);
            expected += rest.unsaid + rest.rounding * data.stats.mean_square;
            CHECK(states[size_t(q)].sum_q ==
                  doctest::Approx(total[size_t(q)]).epsilon(1e-2 / largest_balanced(bits, 1)));
            std::vector<double> carried(size_t(data.d), 0.0);
            for (int64_t c = 0; c < data.d; ++c) carried[size_t(c)] = rest.sum * data.found.mean[size_t(c)];
            for (int64_t at = 0; at < k; ++at) {
                const int64_t j = at / kPad * kPad + sum.order()[at % kPad];
                for (int64_t c = 0; c < data.d; ++c)
                    carried[size_t(c)] +=
                        double(rest.at(at)) * shaping.step[j] * double(shaping.directions[j * data.d + c]);
            }
            for (int64_t at = 0; at < padded(data.d); ++at) {
                const int64_t c = at / kPad * kPad + sum.order()[at % kPad];
                if (c >= data.d) continue;
                const double wanted = exact[size_t(q * data.d + c)];
                const int64_t place = at / kPad * sum.step() + at % kPad;
                off += std::pow(double(sum.sum(q)[place]) + carried[size_t(c)] - wanted, 2);
                plain_off += std::pow(double(plain.sum(q)[place]) - wanted, 2);
            }
        }
        // float32 sums, which errors of 16 bits are as small as: 20 additions of sums of some thousands
        const double floats = double(count * data.d) * 20 * std::pow(2e4 * 0x1p-24, 2);
        CHECK(off < 1.3 * expected + floats);
        CHECK(off > 0.5 * expected);
        if (bits == 8) CHECK(off < 0.05 * plain_off);
    }
}

TEST_CASE("the dense pass with weights carried: nearer to the exact mean, and as near as it says") {
    const Shaped data{180, 50};
    const double sigma = 700;  // some hundred rows share the weight
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        const Coordinates made = data.coordinates(*table, 1);
        constexpr int64_t batch = 21;
        std::vector<double> x(size_t(batch * data.d)), sigmas(size_t(batch), sigma), exact(x.size(), 0.0);
        Random random(6);
        for (double& v : x) v = sigma * random.normal();
        Request request = data.request(*table, x, sigmas, 1);
        request.log_tol = 1;
        request.threads = 2;
        ByBits by{{}, {}, 8, 24};  // the last five have weights of 24 bits, which are in float32 in places
        for (int64_t q = 0; q < batch; ++q) {
            (q < 16 ? by.coarser : by.finer).push_back(q);
            double top = -1e300, sum = 0;
            std::vector<double> l(static_cast<size_t>(data.n));
            for (int64_t i = 0; i < data.n; ++i) top = std::max(top, l[size_t(i)] = request.logit(q, i));
            for (int64_t i = 0; i < data.n; ++i) sum += l[size_t(i)] = std::exp(l[size_t(i)] - top);
            for (int64_t i = 0; i < data.n; ++i) request.add_row(l[size_t(i)] / sum, i, exact.data() + q * data.d);
        }
        double off[2] = {}, finer_off[2] = {}, bound = 0;
        for (const bool carries : {false, true}) {
            if (carries) by.carried = made.view(data.found.mean.data());
            std::vector<double> mean(x.size()), log_sum(batch), entropy(batch), ess(batch), error(batch),
                log_error(batch);
            std::vector<int8_t> path(batch);
            Answer answer{mean.data(), log_sum.data(), entropy.data(), ess.data(),   nullptr,
                          nullptr,     nullptr,        path.data(),    error.data(), log_error.data()};
            const Open open = dense(request, by, Precision::fine, answer);
            REQUIRE(open.coarser.empty());
            REQUIRE(open.finer.empty());
            for (int64_t q = 0; q < batch; ++q) {
                double square = 0;
                for (int64_t k = q * data.d; k < (q + 1) * data.d; ++k)
                    square += std::pow(mean[size_t(k)] - exact[size_t(k)], 2);
                CHECK(std::sqrt(square) < error[size_t(q)] + 1e-5 * std::sqrt(data.stats.mean_square));  // float32 sums
                (q < 16 ? off : finer_off)[carries] += square;
                if (q < 16 && carries) bound += std::pow(error[size_t(q)], 2);
            }
        }
        if (table->integers->layout.digit_bits == 8) {
            CHECK(off[1] < 0.2 * off[0]);
            CHECK(off[1] * 15 < bound);  // which is five deviations
            CHECK(off[1] * 40 > bound);
        }
        CHECK(finer_off[1] < 2 * finer_off[0] + 1e-9 * data.stats.mean_square);
    }
}

TEST_CASE("the error of logits, measured on drawn rows, is a bound and no wild one") {
    const Shaped data;
    const Table& table = kernels_for("");
    const Coordinates made = data.coordinates(table, 1);
    const double sigma = 2500;
    Random random(3);
    int64_t below = 0, trials = 60;
    double largest = 0;
    for (int64_t trial = 0; trial < trials; ++trial) {
        std::vector<double> x(size_t(data.d)), one(1, trial % 2 ? sigma : sigma / 6);
        for (double& v : x) v = one[0] * random.normal();
        Request request = data.request(table, x, one, 1e-5);
        request.shaping = made.view(data.found.mean.data());
        // Exact logits, and those of a query that is off by a random vector.
        std::vector<double> delta(size_t(data.d)), exact(size_t(data.n)), off(size_t(data.n));
        for (double& v : delta) v = 0.3 * random.normal();
        for (int64_t j = 0; j < (trial % 4 < 2 ? kDirections : 0); ++j) {  // half of them are shaped
            const float* u = request.shaping.directions + j * data.d;
            double along = 0;
            for (int64_t k = 0; k < data.d; ++k) along += delta[size_t(k)] * double(u[k]);
            for (int64_t k = 0; k < data.d; ++k) delta[size_t(k)] -= along * double(u[k]);
        }
        double x2 = 0;
        for (const double v : x) x2 += v * v;
        Top drawn(kDrawn + 1);
        Online sums;
        for (int64_t i = 0; i < data.n; ++i) {
            double missing = 0;
            for (int64_t k = 0; k < data.d; ++k) missing += delta[size_t(k)] * data.value(i, k);
            exact[size_t(i)] = request.logit(0, i) + 0.5 * x2 / (one[0] * one[0]);
            off[size_t(i)] = exact[size_t(i)] - missing / (one[0] * one[0]);
            drawn.offer(off[size_t(i)] + double(request.shaping.chance[i]), i);
        }
        const auto mean_of = [&](const std::vector<double>& l, double& top, double& sum) {
            std::vector<double> mean(size_t(data.d), 0.0);
            top = *std::max_element(l.begin(), l.end());
            sum = 0;
            for (int64_t i = 0; i < data.n; ++i) {
                const double p = std::exp(l[size_t(i)] - top);
                sum += p;
                for (int64_t k = 0; k < data.d; ++k) mean[size_t(k)] += p * data.value(i, k);
            }
            for (double& m : mean) m /= sum;
            return mean;
        };
        double top = 0, sum = 0;
        const std::vector<double> right = mean_of(exact, top, sum), found = mean_of(off, sums.max, sums.sum);
        double error = 0;
        for (int64_t k = 0; k < data.d; ++k) error += std::pow(right[size_t(k)] - found[size_t(k)], 2);
        const double bound = error_of_logits(request, 0, drawn, sums, found.data());
        below += std::sqrt(error) > bound;
        largest = std::max(largest, bound / std::sqrt(error));
    }
    CHECK(below == 0);
    CHECK(largest < 40);
}
