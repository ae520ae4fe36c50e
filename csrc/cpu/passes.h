// The two ways over all rows: screening, which hands a few rows per query to `refine`, and the dense fused pass.
// Both return the queries they could not answer to the contract.
#pragma once

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "bounds.h"
#include "candidates.h"
#include "kernels.h"
#include "logits.h"
#include "parallel.h"
#include "types.h"

namespace geodiff {

// n*d below which packing costs more than plain float64 arithmetic.
inline bool small(const Rows& rows) { return rows.n * rows.d <= 1 << 14; }

constexpr int64_t kSumBytes = 48 << 20;  // budget of all float32 sums of a pass

// Queries that share a pass over the data, within the budget for their sums.
int64_t queries_per_pass(const Rows& rows, int threads);

// The pieces of a pass that keeps sums for `count` queries; balanced where the budget allows.
inline Pieces pieces_with_sums(const Rows& rows, int64_t count, int64_t tile, int threads) {
    const Pieces balanced(rows.n, tile, threads, true);
    const bool fits = balanced.count() * count * padded(rows.d) * 4 <= kSumBytes;
    return fits ? balanced : Pieces(rows.n, tile, threads, false);
}

struct Unanswered {
    std::vector<int64_t> blurred;  // too many candidates because the logits' error is wide: finer logits may help
    std::vector<int64_t> crowded;  // too many candidates because that many rows matter
};

// For every query the rows that may lie less than `cut` below its largest logit.
struct Found {
    std::vector<int64_t> queries;
    std::vector<std::vector<int64_t>> lists;  // as `queries`
    Unanswered open;
};

Found find(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
           const std::vector<int64_t>& which, double cut, Precision precision);

// Calls each(query, rows) for every query whose list can be had, on several threads, rows in rising order; returns the
// queries for which it cannot.
template <class Each>
std::vector<int64_t> over_lists(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                                std::vector<int64_t> which, double cut, Each&& each) {
    std::vector<int64_t> crowded;
    for (const Precision precision : {Precision::coarse, Precision::sharp}) {
        Found found = find(kernels, rows, stats, request, which, cut, precision);
        std::atomic<size_t> next{0};
        parallel(request.threads, [&](int) {
            for (size_t i = next++; i < found.queries.size(); i = next++) {
                std::sort(found.lists[i].begin(), found.lists[i].end());
                each(found.queries[i], found.lists[i]);
            }
        });
        crowded.insert(crowded.end(), found.open.crowded.begin(), found.open.crowded.end());
        which = std::move(found.open.blurred);
    }
    crowded.insert(crowded.end(), which.begin(), which.end());
    return crowded;
}

Unanswered screen(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                  const std::vector<int64_t>& which, Precision precision, Answer& answer);

// Queries by the digits that their weights have, on the integer path; elsewhere all are in `three`.
struct ByDigits {
    std::vector<int64_t> two, three;
};

ByDigits dense(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
               const ByDigits& which, Precision precision, Answer& answer);

}  // namespace geodiff
