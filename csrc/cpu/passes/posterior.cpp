#include "posterior.h"

#include <utility>

#include "../products/bounds.h"
#include "dense.h"
#include "plan.h"
#include "refine.h"
#include "screen.h"
#include "spread.h"

namespace geodiff {
namespace {

// Two kinds of integer weights share a pass.
ByBits weights(const Request& request, std::vector<int64_t> some, std::vector<int64_t> many,
               std::vector<int64_t> most) {
    const IntegerLayout& layout = request.dense_integers()->layout;
    const int64_t count = int64_t(some.size() + many.size() + most.size());
    if (some.empty() && 2 * most.size() >= many.size() && !most.empty() && layout.digits(8) < layout.digits(16) &&
        count > layout.free_to)
        return {std::move(most), std::move(many), 8, 16};
    append(many, most);
    // Where every third query needs more digits, the guess is about to fail for others, which would cost another pass.
    if (int64_t(many.size()) <= layout.free_to || 2 * some.size() > many.size()) append(some, std::exchange(many, {}));
    return {std::move(many), std::move(some), 16, 24};
}

// In float32: queries of which few rows carry most of the weight need these settled; to keep them costs the others as
// much as both products where rows are short.
void dense_floats(const Request& request, std::vector<int64_t> even, std::vector<int64_t> uneven, Answer& answer) {
    ByBits by_bits{{}, std::move(even)};
    append(uneven, dense(request, by_bits, Precision::normal, answer).finer);
    by_bits.finer = std::move(uneven);
    by_bits.heaviest = true;
    by_bits.finer = dense(request, by_bits, Precision::normal, answer).finer;
    exact(request, dense(request, by_bits, Precision::fine, answer).finer, kUnderflow, answer);
}

// The queries `which` from one pass to the next, finer one.
void in_passes(const Request& request, const std::vector<int64_t>& which, Answer& answer, Memory* memory) {
    const size_t batch = size_t(queries_per_pass(request));
    for (size_t base = 0; base < which.size(); base += batch) {
        const auto first = which.begin() + int64_t(base);
        auto [few, some, many, most] =
            by_spread(request, {first, first + int64_t(std::min(batch, which.size() - base))});
        // Each pass hands on what it could not answer to the next, finer one.
        Unanswered left = screen(request, few, Precision::coarse, answer, memory);
        append(some, left.crowded);
        left = screen(request, left.blurred, Precision::sharp, answer, memory);
        append(some, left.crowded);
        append(some, left.blurred);
        if (request.tol < kFloat64) {  // float32 sums cannot meet it
            for (const auto* rest : {&some, &many, &most}) exact(request, *rest, kUnderflow, answer);
            continue;
        }
        if (!request.dense_integers()) {
            append(many, most);
            dense_floats(request, std::move(many), std::move(some), answer);
            continue;
        }
        const int64_t wanted = int64_t(some.size() + many.size() + most.size());
        const bool asks = request.coordinates && wanted >= request.integers()->layout.shaped_from;
        const ByBits by_bits = weights(request, std::move(some), std::move(many), std::move(most));
        Open open =
            dense(request.shaped(asks ? request.coordinates->wanted() : Shaping{}), by_bits, Precision::normal, answer);
        if (open.shaped) append(open.coarser, std::exchange(open.finer, {}));  // the digit may be all that they lack
        append(open.finer, dense(request, {{}, open.coarser}, Precision::normal, answer).finer);
        open = dense(request, {{}, open.finer}, Precision::fine, answer);
        exact(request, open.finer, kUnderflow, answer);
    }
}

}  // namespace

void posterior(const Request& request, Answer& answer) {
    posterior(request, numbers_from(0, request.batch), answer, nullptr);
}

void posterior(const Request& asked, const std::vector<int64_t>& which, Answer& answer, Memory* memory) {
    const int64_t count = int64_t(which.size());
    const Request request = planned(asked, count);
    if (small(request.rows)) {
        exact(request, which, kUnderflow, answer);
        return;
    }
    if (!each_alone(request, count)) {
        in_passes(request, which, answer, memory);
        return;
    }
    std::vector<int64_t> read(size_t(request.threads), 0);
    parallel(request.threads, [&](int t) {
        const Range mine = share(count, 1, t, request.threads);
        Request one = request.with_threads(1);
        one.rows_read = &read[size_t(t)];
        in_passes(one, {which.begin() + mine.begin, which.begin() + mine.end}, answer, memory);
    });
    for (const int64_t rows : read) request.read(rows);
}

}  // namespace geodiff
