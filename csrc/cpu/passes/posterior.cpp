#include "posterior.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "../products/bounds.h"
#include "dense.h"
#include "plan.h"
#include "refine.h"
#include "screen.h"
#include "screen_known.h"
#include "spread.h"

namespace geodiff {
namespace {

constexpr int64_t kFailing = 8;       // one query of so many asked again costs what exact logits do
constexpr double kFloatCost = 1.1;    // of a product in float32, for each digit that it stands for
constexpr double kCarrying = 0.1;     // of a digit: what else it takes to carry what digits lose
constexpr double kApart = 0.2;        // of a digit: what it takes to lay rows out for two kinds of weights, not one
constexpr double kConcentrated = 30;  // rows in effect of which a query was the mean: few may be left
constexpr double kMoreSo = 15;        // the same of up to kFew queries, whose pass takes hardly longer than to look
constexpr int64_t kFew = 8;
constexpr int64_t kJoining =
    2;  // times as many queries in a dense pass of integers: others are spared a pass of their own
constexpr double kOfTwo = 1.35;  // the largest sum of two neighbours' weights over the largest: 1.26 to 1.63
constexpr double kShared = 1.5;  // what a query is rounded by takes its part of what is allowed

// Two kinds of integer weights share a pass where that pays; else all have the finer.
ByBits in_two(const Request& request, ByUnits by) {
    auto& [some, many, most] = by;
    const int64_t count = int64_t(some.size() + many.size() + most.size());
    const IntegerLayout& layout = request.integers_for(count)->layout;
    const auto apart = [&](const std::vector<int64_t>& coarser, int bits) {
        return int64_t(coarser.size()) * layout.digits(bits) >= layout.apart_from;
    };
    if (some.empty() && 2 * most.size() >= many.size() && !most.empty() && layout.digits(8) < layout.digits(16) &&
        count > layout.free_to && (many.empty() || apart(most, 8)))
        return {std::move(most), std::move(many), 8, 16};
    append(many, most);
    // Where every third query needs more digits, the guess is about to fail for others, which would cost another pass.
    const bool about_to_fail = 2 * some.size() > many.size();
    if (int64_t(many.size()) <= layout.free_to || about_to_fail || (!some.empty() && !apart(many, 16)))
        append(some, std::exchange(many, {}));
    return {std::move(many), std::move(some), 16, 24};
}

// What the digits of weights cost a pass, in products of one digit with all of a row.
double digits_of_weights(const IntegerLayout& layout, const ByBits& by) {
    const auto cost = [&](const std::vector<int64_t>& queries, int bits) {
        const int digits = layout.digits(bits);
        return double(queries.size()) * digits * (digits > layout.worth ? kFloatCost : 1);
    };
    const bool apart = !by.coarser.empty() && !by.finer.empty();
    return cost(by.coarser, by.coarser_bits) + cost(by.finer, by.finer_bits) +
           (apart ? kApart * double(by.coarser.size() + by.finer.size()) : 0);
}

// With principal coordinates that carry what digits lose, if these save more than they cost.
ByBits weights(const Request& request, const std::vector<DenseQuery>& even, const Shaping& shaping) {
    ByBits plain = in_two(request, by_units(even));
    // One query by itself: where 15 bits turn out to be too few, it takes another pass with as many as it would have
    // had.
    const OneQuerySum& alone = request.weight_integers()->one_query;
    if (even.size() == 1 && alone.bits > 0 && kOfTwo * even[0].units <= alone.most_of_two)
        plain = {{even[0].query}, {}, alone.bits, plain.coarser.empty() ? plain.finer_bits : plain.coarser_bits};
    int64_t uneven = 0;
    for (const DenseQuery& e : even) uneven += e.uneven;
    plain.exact = kFailing * uneven > int64_t(even.size());
    if (!shaping) return plain;
    const IntegerLayout& layout = request.weight_integers()->layout;
    const double left = shaping.left / shaping.mean_square;
    ByBits carried = in_two(request, by_units(even, kShared * std::sqrt(left)));
    const double more = double(even.size()) * (double(shaping.count()) / double(request.rows.d) + kCarrying);
    if (digits_of_weights(layout, carried) + more >= digits_of_weights(layout, plain)) return plain;
    carried.carried = shaping;
    carried.exact = plain.exact;
    return carried;
}

// Weights in float32. Queries of which few rows carry most of the weight need better logits than float32 has: those of
// short rows of bytes are exact integers then, but for few queries, and those of other rows are settled, which costs
// the rest as much as both products where rows are short.
void dense_floats(const Request& request, std::vector<int64_t> even, std::vector<int64_t> uneven, Answer& answer) {
    const IntegerProducts* integers = request.integers();
    // All take integers anyway.
    const bool alike = integers && integers->layout.digits(32) <= integers->layout.worth &&
                       !in_floats(request, int64_t(even.size() + uneven.size()), false);
    if (integers && (alike || kFailing * uneven.size() > even.size())) append(uneven, std::exchange(even, {}));
    ByBits by_bits{{}, std::move(even)};
    append(uneven, dense(request, by_bits, Precision::normal, answer).finer);
    const bool exact_logits = integers && !in_floats(request, int64_t(uneven.size()), true);
    by_bits.finer = std::move(uneven);
    (exact_logits ? by_bits.exact : by_bits.heaviest) = true;
    by_bits.finer = dense(request, by_bits, Precision::normal, answer).finer;
    exact(request, dense(request, by_bits, Precision::fine, answer).finer, kUnderflow, answer);
}

// Answers those of the queries that need no look at the rows, as far as what is known of them tells.
void answer_known(const Request& request, BySpread& sorted, Answer& answer, Memory& memory) {
    const bool possible = request.known && request.coordinates && request.weight_integers();
    const Shaping shaping = possible ? request.coordinates->at_hand() : Shaping{};
    if (!shaping) return;
    const Known& known = *request.known;
    const bool many = sorted.few.size() + sorted.even.size() > size_t(kFew);
    std::vector<int64_t> few, even;
    for (const int64_t q : sorted.few)
        if (may_screen_known(request, shaping, q)) few.push_back(q);
    // Another path has other bits, which must not depend on whether there are coordinates by chance.
    for (const DenseQuery& e : sorted.even)
        if (known.shaped && known.entry(e.query).ess < (many ? kConcentrated : kMoreSo) &&
            may_screen_known(request, shaping, e.query))
            even.push_back(e.query);
    std::vector<uint8_t> answered(size_t(request.batch), 0);
    const auto answer_these = [&](const std::vector<int64_t>& tried, bool wide) {
        for (const int64_t q : tried) answered[size_t(q)] = 1;
        for (const int64_t q : screen_known(request, shaping, tried, answer, memory, wide)) answered[size_t(q)] = 0;
    };
    if (many) append(even, std::exchange(few, {}));
    answer_these(few, true);
    answer_these(even, false);
    const auto drop = [&](auto& from, auto&& query) {
        from.erase(std::remove_if(from.begin(), from.end(), [&](const auto& q) { return answered[size_t(query(q))]; }),
                   from.end());
    };
    drop(sorted.few, [](int64_t q) { return q; });
    drop(sorted.even, [](const DenseQuery& e) { return e.query; });
    // More rows matter to screening than to a list.
    for (const int64_t q : sorted.few)
        if (known.shaped && known.entry(q).crowded == request.sigma[q])
            request.known->entry(q).swamped = request.sigma[q];
}

// Screening that was in vain just now, or at a noise level not much higher, is not tried again.
void spare_screening(const Request& request, BySpread& sorted) {
    if (!request.known) return;
    const auto vain = std::stable_partition(sorted.few.begin(), sorted.few.end(), [&](int64_t q) {
        return Known::Entry::worth_trying(request.sigma[q], request.known->entry(q).swamped);
    });
    for (auto q = vain; q != sorted.few.end(); ++q) sorted.even.push_back(crowded(request, *q));
    sorted.few.erase(vain, sorted.few.end());
}

// The queries `which` from one pass to the next, finer one.
void in_passes(const Request& request, const std::vector<int64_t>& which, Answer& answer, Memory* memory) {
    const size_t batch = size_t(queries_per_pass(request));
    for (size_t base = 0; base < which.size(); base += batch) {
        const auto first = which.begin() + int64_t(base);
        BySpread sorted = by_spread(request, {first, first + int64_t(std::min(batch, which.size() - base))});
        if (memory) answer_known(request, sorted, answer, *memory);
        spare_screening(request, sorted);
        auto& [few, even] = sorted;
        const auto take_crowded = [&even = even, &request](const std::vector<int64_t>& queries) {
            for (const int64_t q : queries) {
                even.push_back(crowded(request, q));
                if (request.known) request.known->entry(q).swamped = request.sigma[q];
            }
        };
        // Each pass hands on what it could not answer to the next, finer one.
        Unanswered left = screen(request, few, Precision::coarse, answer, memory);
        take_crowded(left.crowded);
        const bool in_integers = request.weight_integers() && request.tol >= kFloat64;
        if (!in_integers || kJoining * left.blurred.size() > even.size()) {
            left = screen(request, left.blurred, Precision::sharp, answer, memory);
            take_crowded(left.crowded);
        }
        take_crowded(left.blurred);
        if (request.tol < kFloat64) {  // float32 sums cannot meet it
            std::vector<int64_t> all;
            for (const DenseQuery& e : even) all.push_back(e.query);
            exact(request, all, kUnderflow, answer);
            continue;
        }
        if (!request.weight_integers()) {
            std::vector<int64_t> by_evenness[2];
            for (const DenseQuery& e : even) by_evenness[e.uneven].push_back(e.query);
            dense_floats(request, std::move(by_evenness[false]), std::move(by_evenness[true]), answer);
            continue;
        }
        const int64_t count = int64_t(even.size());
        const bool asks = request.coordinates && count >= request.integers_for(count)->layout.shaped_from;
        const Shaping shaping = asks ? request.coordinates->wanted() : Shaping{};
        if (request.known && shaping) request.known->shapes = true;
        const ByBits by_bits = weights(request, even, shaping);
        Open open = dense(request.shaped(shaping), by_bits, Precision::normal, answer);
        if (open.shaped) append(open.coarser, std::exchange(open.finer, {}));  // the digit may be all that they lack
        const ByBits again{{}, open.coarser, by_bits.coarser_bits, by_bits.finer_bits};
        append(open.finer, dense(request, again, Precision::normal, answer).finer);
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
    if (request.known) request.known->begin_evaluation();
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
