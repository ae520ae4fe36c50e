#include "posterior.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "parallel.h"
#include "passes.h"
#include "spread.h"

namespace geodiff {
namespace {

constexpr int64_t kFewQueries = 8;      // for so few, bound by memory, a third digit costs less than a second pass
constexpr int64_t kMergedQueries = 48;  // the same beside queries that need the third digit anyway
constexpr int64_t kBatch = 256;         // queries per pass over the data

}  // namespace

int64_t queries_per_pass(const Rows& rows, int threads) {
    return std::clamp(kSumBytes / (threads * padded(rows.d) * 4), int64_t(8), kBatch);
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
        const std::vector<Spread> spread = guess_spread(kernels, rows, stats, plan, base, count);
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
        if (integer && int64_t(many.size()) <= (some.empty() ? kFewQueries : kMergedQueries))
            append(some, std::exchange(many, {}));
        append(some, dense(kernels, rows, stats, plan, many, Precision::normal, answer));
        std::vector<int64_t> open = std::move(some);
        if (integer) open = dense(kernels, rows, stats, plan, open, Precision::peaked, answer);
        open = dense(kernels, rows, stats, plan, open, Precision::fine, answer);
        exact(kernels, rows, plan, open, kUnderflow, answer);
    }
}

}  // namespace geodiff
