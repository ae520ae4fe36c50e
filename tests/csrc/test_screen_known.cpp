// Screening by what is known of earlier queries: bounds that hold, and lists beside which nothing matters.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "../../csrc/cpu/passes/candidates.h"
#include "../../csrc/cpu/passes/plan.h"
#include "../../csrc/cpu/passes/posterior.h"
#include "../../csrc/cpu/passes/screen_known.h"
#include "../../csrc/cpu/passes/shape.h"
#include "problem.h"

using namespace geodiff;
using namespace geodiff::test;

namespace {

// Rows near lines, some of them twice and one off by one number; queries that have been asked once, and have moved:
// towards a row, every sixth along two directions alone.
struct Walk {
    static constexpr int64_t n = 1500, d = 1100, batch = 18;
    std::vector<uint8_t> stored = bytes_along_lines(n, d, 9, [](int64_t) { return 6.0; }, 120, 9, 11);
    Rows rows{stored.data(), DType::u8, n, d};
    Statistics found;
    Stats stats;
    Coordinates made;
    Memory memory{64};  // of many queries, so that lists are short
    std::vector<double> x, sigma, prior;
    std::vector<int64_t> exclude;

    Walk(const Table& table, bool conditioned)
        : found((std::copy_n(stored.begin(), 5 * d, stored.begin() + 500 * d), stored[size_t(503 * d)] ^= 1,
                 prepare(table, rows, 1))),
          stats(found.stats(rows)),
          made(table, rows, stats, found.mean.data(), 1),
          x(size_t(batch * d)),
          sigma(size_t(batch)) {
        Random random(3);
        for (int64_t i = 0; conditioned && i < n; ++i) prior.push_back(i % 50 == 7 ? kUnseen : random.normal());
        for (int64_t q = 0; q < batch; ++q) {
            sigma[size_t(q)] = 150;
            if (conditioned) exclude.push_back(q % 3 == 0 ? row(q) : -1);
            for (int64_t k = 0; k < d; ++k) x[size_t(q * d + k)] = value(row(q), k) + 150 * random.normal();
        }
        ask(table);
        // What is known are products with x; another level, and other vectors not far from it.
        for (int64_t q = 0; q < batch; ++q) {
            sigma[size_t(q)] = q % 6 == 5 ? 150 : std::vector<double>{1, 20, 30, 40, 60}[size_t(q % 6)];
            const float* u = shaping().directions;
            for (int64_t k = 0; k < d; ++k) {
                double& v = x[size_t(q * d + k)];
                if (q % 6 == 1) {
                    v += 3000 * double(u[k]) - 2000 * double(u[d + k]);
                    continue;
                }
                v = value(row(q), k) + sigma[size_t(q)] / 150 * (v - value(row(q), k)) + 0.02 * random.normal();
            }
        }
    }
    Walk(const Walk&) = delete;

    int64_t row(int64_t q) const { return q % 4 == 0 ? 503 : 37 * q % n; }
    double value(int64_t i, int64_t k) const { return double(stored[size_t(i * d + k)]) - 128; }
    Shaping shaping() const { return made.view(found.mean.data()); }
    Request request(const Table& table, double tol = 1e-5) {
        Request asked{table, rows, stats};
        asked.batch = batch;
        asked.x = x.data();
        asked.sigma = sigma.data();
        asked.log_prior = prior.empty() ? nullptr : prior.data();
        asked.exclude = exclude.empty() ? nullptr : exclude.data();
        asked.tol = tol;
        asked.threads = 2;
        asked.known = memory.known(n);
        return asked;
    }
    // Leaves the products with x.
    void ask(const Table& table) {
        const Request asked = request(table);
        Answers found(asked);
        Answer answer = found.view();
        posterior(asked, answer);
    }
    std::vector<double> logits(const Request& asked, int64_t q) const {
        std::vector<double> l;
        for (int64_t i = 0; i < n; ++i) l.push_back(asked.logit(q, i));
        return l;
    }
};

}  // namespace

TEST_CASE("logits of what is known are no further off than is said of each row") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        for (const bool conditioned : {false, true}) {
            Walk walk(*table, conditioned);
            const Request request = walk.request(*table).shaped(walk.shaping());
            for (int64_t q = 0; q < Walk::batch; ++q) REQUIRE(request.known->entry(q).whole);
            const std::vector<int64_t> which = numbers_from(0, Walk::batch);
            const Logits logits(request, which.data(), Walk::batch, Precision::known);
            const int64_t tile = 90;  // divides nothing
            auto work = logits.work(tile);
            double tightest = 0;
            for (int64_t q = 0; q < Walk::batch; ++q) {
                double low = -INFINITY, high = INFINITY;  // of what all logits may be off by alike
                for (int64_t first = 0; first < Walk::n; first += tile) {
                    const int R = int(std::min(tile, Walk::n - first));
                    logits.multiply(work, first, R, 0, tile);
                    const double* l = logits.logits(work, first, R, q, tile);
                    std::vector<float> error(static_cast<size_t>(R));
                    logits.errors_of_known(q, first, R, error.data());
                    for (int r = 0; r < R; ++r) {
                        const double exact = request.logit(q, first + r);
                        if (std::isinf(exact)) {
                            CHECK(std::isinf(l[r]));
                            continue;
                        }
                        low = std::max(low, l[r] - exact - double(error[size_t(r)]));
                        high = std::min(high, l[r] - exact + double(error[size_t(r)]));
                        CHECK(double(error[size_t(r)]) <=
                              logits.row_error(q) * request.stats.scale.radius + logits.base_error(q) + 1e-6);
                    }
                }
                CHECK(low <= high + 1e-9 * std::fabs(high));
                tightest = std::max(tightest, low - high);
            }
            CHECK(tightest > -40);  // the bound is none that anything would keep
        }
    }
}

TEST_CASE("queries are answered from lists of what is known, or not at all") {
    for (const Table* table : tables()) {
        if (!table->integers) continue;
        CAPTURE(table->name);
        for (const bool conditioned : {false, true})
            for (const bool counts : {false, true})
                for (const double tol : {1e-5, 1e-3}) {
                    Walk walk(*table, conditioned);
                    const Request request = walk.request(*table, tol);
                    request.known->shaped = counts;
                    constexpr int64_t batch = Walk::batch, d = Walk::d;
                    Answers room(request);
                    Answer answer = room.view();
                    int64_t read = 0;
                    Request counted = request;
                    counted.rows_read = &read;
                    const std::vector<int64_t> open =
                        screen_known(counted, walk.shaping(), numbers_from(0, batch), answer, walk.memory);
                    int64_t answered = 0, left_out = 0;
                    for (int64_t q = 0; q < batch; ++q) {
                        CAPTURE(q);
                        if (std::find(open.begin(), open.end(), q) != open.end()) continue;
                        ++answered;
                        const std::vector<double> logits = walk.logits(request, q);
                        const double top = *std::max_element(logits.begin(), logits.end());
                        double sum = 0;
                        for (const double l : logits) sum += std::exp(l - top);
                        CHECK(room.path[size_t(q)] == int8_t(Path::screened));
                        std::vector<double> exact(size_t(d), 0.0);
                        for (int64_t i = 0; i < Walk::n; ++i) {
                            const double w = std::exp(logits[size_t(i)] - top) / sum;
                            for (int64_t k = 0; k < d && w > 0; ++k) exact[size_t(k)] += w * walk.value(i, k);
                        }
                        double off = 0, model = 0;
                        for (int64_t k = 0; k < d; ++k) {
                            off += std::pow(room.mean[size_t(q * d + k)] - exact[size_t(k)], 2);
                            model += std::pow(exact[size_t(k)] + walk.stats.shift, 2);
                        }
                        const double allowed = walk.stats.scale.allowed(std::sqrt(model), tol);
                        CHECK(std::sqrt(off) <= answer.mean_error[q] + 1e-9);
                        CHECK(answer.mean_error[q] <= allowed);
                        left_out += std::sqrt(off) > 1e-3 * allowed;
                        if (!counts) CHECK(std::sqrt(off) <= 0.021 * allowed);
                        // What is kept for other states is so: no other row is as near.
                        const Anchor& anchor = walk.memory.anchor(q);
                        for (int64_t i = 0; i < Walk::n && walk.memory.knows(q); ++i) {
                            if (std::binary_search(anchor.rows.begin(), anchor.rows.end(), i)) continue;
                            const double far = -logits[size_t(i)] * anchor.sigma * anchor.sigma;
                            CHECK(far >= anchor.floor - 1e-9 * std::fabs(anchor.floor));
                        }
                    }
                    CHECK(answered >= 6);
                    CHECK(read < batch * Walk::n / 2);
                    CAPTURE(counts);
                    if (counts && tol == 1e-3) CHECK(left_out > 0);
                }
    }
}

TEST_CASE("the weight of rows that are not kept is counted, whenever they are dropped") {
    const Table& table = kernels_for("");
    Random random(4);
    for (const double width : {8.0, 40.0})        // wider than the cut: rows are kept first and dropped later
        for (const double rise : {0.0, 0.005}) {  // larger ones come later
            CAPTURE(width);
            CAPTURE(rise);
            constexpr int n = 4000, tile = 90;
            std::vector<double> l(n);
            std::vector<float> none(tile, 0.0f);
            for (int i = 0; i < n; ++i) l[size_t(i)] = 6 * random.normal() + rise * i;
            Candidates candidates(table, {8, width, 0, true}, 1, 0);
            for (int first = 0; first < n; first += tile)
                candidates.offer(l.data() + first, none.data(), first, std::min(tile, n - first));
            const Candidates::Ends ends = Candidates::ends({&candidates});
            REQUIRE(ends.whole);
            std::vector<Candidate> kept;
            candidates.collect(ends.least, kept);
            std::vector<uint8_t> there(n, 0);
            for (const Candidate& c : kept) there[size_t(c.row)] = 1;
            double weight = 0;
            for (int i = 0; i < n; ++i) {
                if (l[size_t(i)] >= ends.best - 8) CHECK(there[size_t(i)] == 1);
                if (!there[size_t(i)]) weight += std::exp(l[size_t(i)] - ends.best);
            }
            CHECK(candidates.left_out(ends.least, ends.best) == doctest::Approx(weight).epsilon(1e-9));
        }
}

TEST_CASE(
    "a query is tried where enough is known of it, and not again at nearly a level at which too many rows mattered") {
    const Table& table = kernels_for("");
    if (!table.integers) return;
    Walk walk(table, false);
    const Request request = walk.request(table);
    const auto tried = [&] { return may_screen_known(request, walk.shaping(), 5); };
    Known::Entry& entry = request.known->entry(5);
    CHECK(tried());
    entry.crowded = walk.sigma[5];
    CHECK(!tried());
    walk.sigma[5] *= 0.7;
    CHECK(tried());
    walk.sigma[5] = 1e-2;
    CHECK(!tried());
    walk.sigma[5] = 150;
    entry.crowded = 0;
    entry.whole = false;
    CHECK(!tried());
}
