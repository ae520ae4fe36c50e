// How the queries of a call are dealt to passes, and how many of them share one.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "../products/logits.h"
#include "../request.h"
#include "../runtime/pieces.h"

namespace geodiff {

// n*d below which packing costs more than plain float64 arithmetic.
inline bool small(const Rows& rows) { return rows.n * rows.d <= 1 << 14; }

constexpr int64_t kSumBytes = 48 << 20;  // budget of all float32 sums of a pass
constexpr int64_t kBatch = 256;          // most queries per pass over the data

// Queries that share a pass over the data, within the budget for their sums.
inline int64_t queries_per_pass(const Request& request) {
    return std::clamp(kSumBytes / (request.threads * padded(request.rows.d) * 4), int64_t(8), kBatch);
}

// The pieces of a pass that keeps sums for `count` queries; balanced where the budget allows.
inline Pieces pieces_with_sums(const Request& request, int64_t count, int64_t tile) {
    const Pieces balanced(request.rows.n, tile, request.threads, true);
    const bool fits = balanced.count() * count * padded(request.rows.d) * 4 <= kSumBytes;
    return fits ? balanced : Pieces(request.rows.n, tile, request.threads, false);
}

// The request on as many threads as its products are worth, for all queries or so many of them.
inline Request planned(const Request& request, int64_t queries) {
    return request.with_threads(threads_for(queries * request.rows.n * request.rows.d / 2, request.threads));
}
inline Request planned(const Request& request) { return planned(request, request.batch); }

inline std::vector<int64_t> numbers_from(int64_t first, int64_t count) {
    std::vector<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), first);
    return all;
}

inline void append(std::vector<int64_t>& to, const std::vector<int64_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
}

}  // namespace geodiff
