#include "posterior.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "parallel.h"
#include "passes.h"

namespace geodiff {
namespace {

constexpr int64_t kFewQueries = 8;       // for so few, bound by memory, a third digit costs less than a second pass
constexpr int64_t kSample = 64;          // rows looked at to guess how many carry weight
constexpr int64_t kFewShare = 4;         // screening costs 1/20 of a dense pass: tried unless 1/4 of the sample matters
constexpr double kEqualEnough = 0.4;     // effective share of the sample above which two weight digits suffice
constexpr int64_t kBatch = 256;          // queries per pass over the data
constexpr int64_t kSumBytes = 48 << 20;  // budget of all threads' float32 sums

}  // namespace

int64_t queries_per_pass(const Rows& rows, int threads) {
    return std::clamp(kSumBytes / (threads * padded(rows.d) * 4), int64_t(8), kBatch);
}

Spread guess_spread(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                    int64_t query) {
    const int64_t samples = std::min(kSample, rows.n);
    const double sigma = request.sigma[query], window = cutoff(stats, rows.n, request.tol);
    double logits[kSample], top = -1e308;
    for (int64_t i = 0; i < samples; ++i) {
        const int64_t row = rows.n * i / samples;
        logits[i] =
            -0.5 * kernels.distance(request.x + query * rows.d, rows.row(row), rows.dtype, rows.d) / (sigma * sigma) +
            request.bias_at(query, row);
        top = std::max(top, logits[i]);
    }
    int64_t within = 0;
    double sum = 0, sum_2 = 0;
    for (int64_t i = 0; i < samples; ++i) {
        within += logits[i] >= top - window;
        const double p = std::exp(logits[i] - top);
        sum += p;
        sum_2 += p * p;
    }
    if (within <= 2 || within * kFewShare <= samples) return Spread::few;
    return sum * sum / sum_2 > kEqualEnough * double(samples) ? Spread::many : Spread::some;
}

void posterior(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, Answer& answer) {
    Request plan = request;
    plan.threads = int(std::clamp<int64_t>(request.batch * rows.n * rows.d >> 18, 1, request.threads));
    std::vector<int64_t> all(size_t(request.batch));
    std::iota(all.begin(), all.end(), 0);
    if (small(rows)) {
        exact(kernels, rows, plan, all, kUnderflow, answer);
        return;
    }
    const bool integer = kernels.int8 && rows.dtype == DType::u8;
    const int64_t batch = queries_per_pass(rows, plan.threads);
    for (int64_t base = 0; base < request.batch; base += batch) {
        const int64_t count = std::min(batch, request.batch - base);
        std::vector<Spread> spread(static_cast<size_t>(count));
        parallel(plan.threads, [&](int t) {
            const Range mine = share(count, 1, t, plan.threads);
            for (int64_t i = mine.begin; i < mine.end; ++i)
                spread[size_t(i)] = guess_spread(kernels, rows, stats, plan, base + i);
        });
        std::vector<int64_t> few, some, many;
        for (int64_t i = 0; i < count; ++i) {
            const Spread s = spread[size_t(i)];
            (s == Spread::few ? few : s == Spread::some ? some : many).push_back(base + i);
        }
        // Each pass hands on what it could not answer to the next, finer one.
        const auto append = [](std::vector<int64_t>& to, const std::vector<int64_t>& from) {
            to.insert(to.end(), from.begin(), from.end());
        };
        Unanswered left = screen(kernels, rows, stats, plan, few, Precision::coarse, answer);
        append(some, left.crowded);
        left = screen(kernels, rows, stats, plan, left.blurred, Precision::sharp, answer);
        append(some, left.crowded);
        append(some, left.blurred);
        if (request.tol < kFloat64) {  // float32 sums cannot meet it
            for (const auto* rest : {&some, &many}) exact(kernels, rows, plan, *rest, kUnderflow, answer);
            continue;
        }
        if (!integer) append(many, std::exchange(some, {}));  // float32 weights need no further digits
        if (integer && int64_t(many.size()) <= kFewQueries) append(some, std::exchange(many, {}));
        append(some, dense(kernels, rows, stats, plan, many, Precision::normal, answer));
        std::vector<int64_t> open = std::move(some);
        if (integer) open = dense(kernels, rows, stats, plan, open, Precision::peaked, answer);
        open = dense(kernels, rows, stats, plan, open, Precision::fine, answer);
        exact(kernels, rows, plan, open, kUnderflow, answer);
    }
}

}  // namespace geodiff
