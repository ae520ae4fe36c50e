// Rows that principal coordinates tell from the nearest ones: bounds that hold, and tell most rows apart.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/prune.h"
#include "../../csrc/cpu/passes/shape.h"
#include "../../csrc/cpu/products/logits.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

// Rows that vary along some directions, and a little everywhere; 20 rows twice, one of them off by one number; and one
// far from all others, whose coordinates no byte holds where it is not in the sample that sets their steps.
struct Lines {
    int64_t n, d;
    std::vector<uint8_t> stored;
    Rows rows;
    Statistics found;
    Stats stats;

    explicit Lines(int64_t d, int64_t n = 1500, int64_t far = -1)
        : n(n),
          d(d),
          stored(made(d, n, far)),
          rows{stored.data(), DType::u8, n, d},
          found(prepare(kernels_for("portable"), rows, 1)),
          stats(found.stats(rows)) {}

    static std::vector<uint8_t> made(int64_t d, int64_t n, int64_t far) {
        std::vector<uint8_t> stored =
            bytes_along_lines(n, d, 9, [&](int64_t i) { return i == far ? 25.0 : 5.0; }, 120, 8, 11);
        std::copy_n(stored.begin(), 20 * d, stored.begin() + 500 * d);
        stored[size_t(503 * d)] ^= 1;
        return stored;
    }
    double value(int64_t i, int64_t k) const { return double(stored[size_t(i * d + k)]) - 128; }
};

struct Asked {
    std::vector<double> x, sigma;
    std::vector<int64_t> which, exclude;

    // Noise of some levels on rows, and x far from all of them.
    Asked(const Lines& data, int64_t batch) : x(size_t(batch * data.d)) {
        Random random(uint64_t(batch) + 4);
        for (int64_t q = 0; q < batch; ++q) {
            which.push_back(q);
            sigma.push_back(q % 16 == 15 ? 130 : std::vector<double>{0.13, 2, 8, 20}[size_t(q % 4)]);
            const int64_t row = q % 5 == 0 ? 503 : q * 37 % data.n;
            exclude.push_back(q % 3 == 0 ? row : -1);
            for (int64_t k = 0; k < data.d; ++k)
                x[size_t(q * data.d + k)] =
                    (q % 11 == 10 ? 200.0 : data.value(row, k)) + sigma[size_t(q)] * random.normal();
        }
    }
};

Request requested(const Table& table, const Lines& data, const Asked& asked) {
    Request request{table, data.rows, data.stats};
    request.batch = int64_t(asked.which.size());
    request.x = asked.x.data();
    request.sigma = asked.sigma.data();
    request.exclude = asked.exclude.data();
    request.tol = 1e-5;
    return request;
}

}  // namespace

TEST_CASE("what coordinates leave out of a row is no longer than they say") {
    for (const int64_t d : {int64_t(1100), int64_t(2100)}) {  // one and two halves
        const int64_t far = 55;                               // beside the sample
        const Lines data(d, 4500, far);
        const Coordinates made(kernels_for(""), data.rows, data.stats, data.found.mean.data(), 2);
        const Shaping s = made.view(data.found.mean.data());
        REQUIRE(s.count() == (d > 2048 ? 2 : 1) * kDirections);
        double slack = 0;
        int64_t clamped = 0;
        for (int64_t i = far; i < data.n; i += 50) {
            std::vector<double> w(static_cast<size_t>(d));
            for (int64_t k = 0; k < d; ++k) w[size_t(k)] = data.value(i, k) - data.found.mean[k];
            std::vector<double> rest = w;
            double rounded = 0;
            for (int64_t j = 0; j < s.count(); ++j) {
                const float* u = s.directions + j * d;
                double c = 0;
                for (int64_t k = 0; k < d; ++k) c += w[size_t(k)] * double(u[k]);
                for (int64_t k = 0; k < d; ++k) rest[size_t(k)] -= c * double(u[k]);
                const uint8_t* half = j < kDirections ? s.coordinates : s.beyond;
                clamped += i == far && half[i * kDirections + j % kDirections] % 255 == 0;
                const double lost = c / s.step[j] - (double(half[i * kDirections + j % kDirections]) - 128);
                rounded += s.step[j] * lost * lost;
            }
            double outside = 0;
            for (const double r : rest) outside += r * r;
            CHECK(double(s.outside[i]) >= std::sqrt(outside));
            CHECK(double(s.rounded[i]) >= std::sqrt(rounded));
            slack = std::max(slack, double(s.outside[i]) - std::sqrt(outside));
        }
        CHECK(clamped > 0);
        CHECK(slack < 0.1 * std::sqrt(s.left));
    }
}

TEST_CASE("every row that may matter is left, and most others are not") {
    for (const int64_t d : {int64_t(1100), int64_t(2100)}) {
        const Lines data(d);
        for (const Table* table : tables()) {
            if (!table->integers) continue;
            CAPTURE(table->name);
            const Coordinates made(*table, data.rows, data.stats, data.found.mean.data(), 1);
            const Shaping shaping = made.view(data.found.mean.data());
            for (const int64_t batch : {1, 17, 66})
                for (const int64_t nearest : {0, 3}) {
                    if (batch > 17 && nearest > 0) continue;
                    const Asked asked(data, batch);
                    Request request = requested(*table, data, asked);
                    request.threads = 2;
                    const double width = request.cut();
                    const Pruning pruning(request, shaping, asked.which, width, nearest);
                    const int64_t tile = 90;  // divides nothing
                    auto work = pruning.work(tile);
                    std::vector<std::vector<uint8_t>> left(size_t(batch), std::vector<uint8_t>(size_t(data.n), 0));
                    int64_t total = 0, told = 0, brought = 0;
                    for (int64_t first = 0; first < data.n; first += tile) {
                        const int R = int(std::min(tile, data.n - first));
                        const int ahead = int(std::min(tile, data.n - first - R));
                        const Pruning::Left& here = pruning.over(work, first, R, ahead);
                        CHECK(here.first == first);
                        brought += int64_t(here.rows.size());
                        for (int64_t q = 0; q < batch; ++q) {
                            if (here.most) std::fill_n(left[size_t(q)].begin() + first, R, uint8_t(1));
                            for (int r = 0; r < here.count[size_t(q)]; ++r)
                                left[size_t(q)][size_t(first + here.list(q)[r])] = 1;
                        }
                    }
                    int64_t lost = 0;
                    for (int64_t q = 0; q < batch; ++q) {
                        std::vector<double> l;
                        for (int64_t i = 0; i < data.n; ++i) l.push_back(request.logit(q, i));
                        if (asked.exclude[size_t(q)] >= 0) l[size_t(asked.exclude[size_t(q)])] = kUnseen;
                        std::vector<double> sorted = l;
                        std::sort(sorted.rbegin(), sorted.rend());
                        const double least = std::min(sorted[0] - width, nearest > 0 ? sorted[2] : sorted[0]);
                        for (int64_t i = 0; i < data.n; ++i)
                            lost += l[size_t(i)] >= least && !left[size_t(q)][size_t(i)];
                        if (asked.sigma[size_t(q)] > 8 || asked.exclude[size_t(q)] >= 0 || q % 11 == 10) continue;
                        told += data.n;
                        total += std::count(left[size_t(q)].begin(), left[size_t(q)].end(), uint8_t(1));
                    }
                    CHECK(lost == 0);
                    CHECK(brought > 0);
                    if (nearest == 0 && told > 0) CHECK(double(total) < 0.1 * double(told));
                }
        }
    }
}

TEST_CASE("with priors, too, every row that may matter is left, and most others are not") {
    const Lines data(1100);
    constexpr int64_t kBatch = 17, kTile = 90;
    for (const double spread : {1.0, 300.0, 1e6}) {  // nats: next to nothing, as much as distances say, far more
        Random random(21);
        Asked asked(data, kBatch);
        asked.sigma.assign(kBatch, 2);
        std::vector<double> prior;
        for (int64_t i = 0; i < data.n; ++i)
            prior.push_back(i % 7 == 0 ? kUnseen : -spread * std::pow(random.uniform(), 2));
        const auto asking = [&](const Table& table) {
            Request request = requested(table, data, asked);
            request.log_prior = prior.data();
            request.threads = 2;
            return request;
        };
        std::vector<std::vector<double>> logits(kBatch), sorted;
        for (int64_t q = 0; q < kBatch; ++q)
            for (int64_t i = 0; i < data.n; ++i)
                logits[size_t(q)].push_back(asking(kernels_for("portable")).logit(q, i));
        sorted = logits;
        for (auto& of_query : sorted) std::sort(of_query.rbegin(), of_query.rend());
        for (const Table* table : tables()) {
            if (!table->integers) continue;
            CAPTURE(table->name);
            CAPTURE(spread);
            const Request request = asking(*table);
            const Coordinates made(*table, data.rows, data.stats, data.found.mean.data(), 1);
            const Shaping shaping = made.view(data.found.mean.data());
            for (const int64_t nearest : {0, 3}) {
                const double width = request.cut();
                const Pruning pruning(request, shaping, asked.which, width, nearest);
                auto work = pruning.work(kTile);
                int64_t lost = 0, unseen = 0, total = 0;
                for (int64_t first = 0; first < data.n; first += kTile) {
                    const int R = int(std::min(kTile, data.n - first));
                    const Pruning::Left& here = pruning.over(work, first, R, 0);
                    for (int64_t q = 0; q < kBatch; ++q) {
                        const std::vector<double>& best = sorted[size_t(q)];
                        const double least = std::min(best[0] - width, best[size_t(nearest > 0 ? nearest - 1 : 0)]);
                        std::vector<uint8_t> left(size_t(R), uint8_t(here.most));
                        for (int r = 0; r < here.count[size_t(q)]; ++r) left[size_t(here.list(q)[r])] = 1;
                        for (int r = 0; r < R; ++r) {
                            lost += logits[size_t(q)][size_t(first + r)] >= least && !left[size_t(r)];
                            if (q % 11 != 10) total += left[size_t(r)];  // which is far away
                            unseen += left[size_t(r)] && !here.most && prior[size_t(first + r)] == kUnseen;
                        }
                    }
                }
                CHECK(lost == 0);
                CHECK(unseen == 0);
                CHECK(double(total) < 0.15 * double(kBatch * data.n));
            }
        }
    }
}

TEST_CASE("logits of listed rows are those of a whole tile, to the bit") {
    const Lines data(1100);
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        for (const int64_t batch : {1, 9, 70}) {
            const Asked asked(data, batch);
            Request request = requested(*table, data, asked);
            std::vector<double> prior;
            for (int64_t i = 0; i < data.n; ++i) prior.push_back(i % 8 == 7 ? kUnseen : -0.3 * double(i % 11));
            for (const Precision precision : {Precision::coarse, Precision::sharp}) {
                request.log_prior = request.log_prior ? nullptr : prior.data();  // with them, then without
                const Logits logits(request, asked.which.data(), batch, precision, false, true);
                const int64_t tile = 96, first = 432;  // with rows that are excluded
                auto whole = logits.work(tile), some = logits.work(tile);
                const std::vector<int32_t> list{0, 1, 7, 8, 30, 31, 32, 70, 71, 72, 73, 74, 75, 95};
                logits.over(whole, first, int(tile), tile, [&](int64_t i, const double* l) {
                    for (const int count : {1, 3, 8, int(list.size())}) {
                        const double* found = logits.listed(some, first, list.data(), count, i, tile);
                        for (int r = 0; r < count; ++r) CHECK(found[r] == l[list[size_t(r)]]);
                    }
                });
            }
        }
    }
}
