#include <algorithm>

#include "layout.h"
#include "plan.h"

namespace geodiff::cuda {
namespace {

constexpr int64_t kReserved = 1024;       // shared memory that the system takes per block
constexpr int64_t kMaxColumns = 1 << 16;  // int32 dot products of bytes and digits cannot overflow below twice this

int64_t rounded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t shared_of(const Plan& p) { return stream_shared(p.slice, p.queries, p.stages).total; }

// The fewest blocks per cluster whose share of a tile fits into `limit` bytes of shared memory.
bool fit(Plan& p, const Machine& machine, int stages, int64_t limit) {
    p.stages = stages;
    for (p.cluster = 1; p.cluster <= (machine.clusters ? 8 : 1); p.cluster *= 2) {
        p.slice = (p.d + p.cluster * 32 - 1) / (p.cluster * 32) * 32;
        if (p.slice <= kMaxColumns && shared_of(p) <= limit) return true;
    }
    p.cluster = 1;
    p.slice = 32;
    return false;
}

}  // namespace

Plan make_plan(const Machine& machine, DType dtype, int64_t n, int64_t d, int64_t batch) {
    Plan p{};
    p.cluster = p.stages = 1;
    p.slice = 32;
    p.n = n;
    p.d = d;
    p.batch = std::clamp<int64_t>(batch, 1, kBatch);
    const int64_t half = (machine.shared + kReserved) / 2 - kReserved;
    for (const int queries : {4 * kQueriesPerMma, kQueriesPerMma}) {  // sixteen at a time if there are and they fit
        if (queries > kQueriesPerMma && p.batch <= kQueriesPerMma) continue;
        p.queries = queries;
        if (dtype != DType::u8) break;
        // Two blocks per multiprocessor hide each other's barriers, two stages per block hide the memory.
        p.streams =
            fit(p, machine, 2, half) || fit(p, machine, 2, machine.shared) || fit(p, machine, 1, machine.shared);
        if (p.streams) break;
    }
    // All clusters at once: those that wait for a place would double the time of the pass. What they cannot take in one
    // round, the next does.
    const int64_t at_once = p.streams ? resident(machine, p.queries, p.cluster, shared_of(p)) : 1;
    if (p.streams) p.batch = std::min(p.batch, std::max<int64_t>(1, at_once) * p.queries);
    p.padded = (p.batch + p.queries - 1) / p.queries * p.queries;
    const int64_t tiles = (n + kRows - 1) / kRows;
    const int64_t most = std::min(tiles, std::max<int64_t>(1, kSumBytes / (p.padded * d * 8)));
    p.parts = std::clamp<int64_t>(at_once / (p.padded / p.queries), 1, most);
    p.exact_parts = std::clamp<int64_t>(4 * machine.multiprocessors / p.batch, 1, most);
    return p;
}

int64_t Plan::workspace() const {
    const int64_t all = std::max(parts, exact_parts) * padded;
    return rounded(batch * d * 8) + rounded(padded * int64_t(sizeof(Query))) +
           rounded(padded / kQueriesPerMma * (slice * cluster) / 32 * 512) + rounded(all * int64_t(sizeof(Online))) +
           rounded(all * d * 8);
}

Workspace Plan::carve(void* memory) const {
    auto* at = static_cast<char*>(memory);
    const int64_t all = std::max(parts, exact_parts) * padded;
    const auto take = [&](int64_t bytes) {
        char* mine = at;
        at += rounded(bytes);
        return static_cast<void*>(mine);
    };
    Workspace w{};
    w.centred = static_cast<double*>(take(batch * d * 8));
    w.queries = static_cast<Query*>(take(padded * int64_t(sizeof(Query))));
    w.digits = take(padded / kQueriesPerMma * (slice * cluster) / 32 * 512);
    w.states = static_cast<Online*>(take(all * int64_t(sizeof(Online))));
    w.sums = static_cast<double*>(take(all * d * 8));
    return w;
}

}  // namespace geodiff::cuda
