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

constexpr int64_t kFewQueries = 8;  // for so few, bound by memory, a third digit costs less than a second pass
constexpr int64_t kBatch = 256;     // queries per pass over the data

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
        // Weights have digits on the integer path only; and where every third query needs the third, the guess is about
        // to fail for others, which would cost another pass.
        if (!integer || int64_t(many.size()) <= kFewQueries || 2 * some.size() > many.size())
            append(some, std::exchange(many, {}));
        const auto pass = [&](const ByDigits& which, Precision precision) {
            return dense(kernels, rows, stats, plan, which, precision, answer);
        };
        ByDigits open = pass({many, some}, Precision::normal);
        append(open.three, pass({{}, open.two}, Precision::normal).three);
        open = pass({{}, open.three}, Precision::fine);
        exact(kernels, rows, plan, open.three, kUnderflow, answer);
    }
}

}  // namespace geodiff
