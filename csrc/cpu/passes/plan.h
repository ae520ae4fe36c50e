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

// Budget of all float32 sums of a pass, and as much again where its pieces have more tiles than are added up together.
constexpr int64_t kSumBytes = 48 << 20;
constexpr int64_t kBatch = 256;  // most queries per pass over the data

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

// Whether each thread takes queries of its own over all rows, instead of rows of its own for all queries: then there is
// one fork and join instead of four, nothing to merge, and sums that half as many queries share stay in cache. Two Zen
// 4 cores, time of a call before over after: 500 rows of 64, 784 and 3,072 bytes 1.4, 1.15 and 1.1 (256
// queries), 1.0, 1.4 and 1.4 (16); 2,000 rows of 3,072 bytes 1.04 and 1.04; 5,000 rows 1.07 and 0.97; 20,000 rows 1.00
// and 0.95 (64). Of short rows of bytes queries lie in lanes, and of fewer these would stay empty: two cores of an
// Emerald Rapids, rows of 64, the same for all three of AMX, VNNI and AVX2: 5,000 rows 1.02 to 1.13 (8 and 16 queries)
// and 0.91 to 0.94 (64), 20,000 1.1 to 1.4 and 1.02 to 1.05, 50,000 1.2 to 1.4 and 1.03 to 1.08.
constexpr int64_t kAlone = 4;                  // queries a thread
constexpr int64_t kShared = 8LL << 20;         // bytes of the rows
constexpr int64_t kSharedShort = 768LL << 10;  // the same of short rows of bytes
inline bool each_alone(const Request& request, int64_t queries) {
    const int64_t most = request.short_bytes() ? kSharedShort : kShared;
    return request.threads > 1 && queries >= kAlone * request.threads && request.rows.bytes() <= most;
}

inline std::vector<int64_t> numbers_from(int64_t first, int64_t count) {
    std::vector<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), first);
    return all;
}

inline void append(std::vector<int64_t>& to, const std::vector<int64_t>& from) {
    to.insert(to.end(), from.begin(), from.end());
}

}  // namespace geodiff
