#include <algorithm>

#include "dense.h"
#include "fused.h"
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

// Shares of the rows, such that blocks are busy to the end. What is left after whole rounds waits for the slowest, and
// every share ends with its sums being written, which takes about as long as six tiles.
int64_t best_shares(const DenseLayout& at, int64_t n) {
    const int64_t items = (at.column_tiles + 1) / 2 * at.groups, least = (n + kShareRows - 1) / kShareRows;
    const auto time = [&](int64_t shares) {
        const int64_t rounds = (items * shares + at.clusters - 1) / at.clusters;
        return rounds * ((at.row_tiles + shares - 1) / shares + 6);
    };
    int64_t best = least;
    for (int64_t shares = least; shares <= std::min(at.row_tiles, least + 64); ++shares)
        if (time(shares) < time(best)) best = shares;
    return best;
}

// The dense pass in rounds of as many queries as its budget allows; false where that is none.
bool lay_out_dense(Plan& p, const Machine& machine) {
    DenseLayout at{};
    at.row_tiles = (p.n + kTile - 1) / kTile;
    at.column_tiles = (p.d + kTile - 1) / kTile;
    at.stride = at.row_tiles * kTile;
    if (at.column_tiles * kTile > kMaxColumns) return false;
    for (const int group : {64, 16}) {
        if (group == 64 && p.batch <= 16) continue;
        const int64_t most = kDenseBytes / (group * at.stride * (8 + kDigits));
        if (most == 0) continue;
        at.group = group;
        at.clusters = dense_resident(machine, group);
        at.groups = std::min<int64_t>((p.batch + group - 1) / group, std::min<int64_t>(most, 65535 / group));
        p.batch = std::min<int64_t>(p.batch, at.groups * group);
        at.shares = best_shares(at, p.n);
        p.padded = at.groups * group;
        p.parts = std::clamp<int64_t>(3 * machine.multiprocessors * kWeighed / p.batch, 1,
                                      std::min<int64_t>(256, at.row_tiles));
        p.exact_parts = std::clamp<int64_t>(4 * machine.multiprocessors / p.batch, 1, std::max<int64_t>(1, at.shares));
        p.dense = at;
        return true;
    }
    return false;
}

// The fused pass, of all queries at once; false where they are too many for it, or the columns.
bool lay_out_fused(Plan& p, const Machine& machine) {
    const FewShape shape = few_shape(p.batch, p.d, machine.shared);
    const int64_t at_once = shape.queries > 0 ? fused_resident(machine, shape) : 0;
    if (at_once == 0) return false;
    DenseLayout at{};
    at.group = shape.queries;
    at.cluster = shape.cluster;
    at.stages = shape.stages;
    at.groups = 1;
    at.row_tiles = (p.n + kFewRows - 1) / kFewRows;
    at.column_tiles = at.cluster * (kFewTiles / at.group);
    p.queries = int(p.padded = at.group);
    p.cluster = at.cluster;
    p.stages = at.stages;
    const int64_t most = std::min(at.row_tiles, std::max<int64_t>(1, kSumBytes / (p.padded * p.d * 8)));
    p.parts = std::min(at_once, most);
    p.exact_parts = std::clamp<int64_t>(4 * machine.multiprocessors / p.batch, 1, most);
    p.dense = at;
    return true;
}

}  // namespace

Plan make_plan(const Machine& machine, DType dtype, int64_t n, int64_t d, int64_t batch) {
    Plan p{};
    p.cluster = p.stages = 1;
    p.slice = 32;
    p.n = n;
    p.d = d;
    p.batch = std::max<int64_t>(batch, 1);
    if (machine.dense && dtype == DType::u8) {
        if (machine.pass == Pass::fused && lay_out_fused(p, machine)) return p;
        if (machine.pass != Pass::stream && lay_out_dense(p, machine)) return p;
    }
    p.batch = std::min(p.batch, kBatch);
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
    p.exact_parts = std::clamp<int64_t>(4 * machine.multiprocessors / ((p.batch + kTogether - 1) / kTogether), 1, most);
    return p;
}

int64_t Plan::workspace() const { return carve(nullptr).bytes; }

Plan::Carved Plan::carve(void* memory) const {
    int64_t bytes = 0;
    const auto take = [&](int64_t size) {
        char* mine = static_cast<char*>(memory) + bytes;
        bytes += rounded(size);
        return static_cast<void*>(mine);
    };
    const int64_t all = std::max(parts, exact_parts) * padded;
    const int64_t sums = std::max(dense.group && !dense.cluster ? dense.shares : parts, exact_parts) * padded;
    const int64_t steps = dense.group ? 0 : slice * cluster / 32;
    Carved at{};
    at.work.centred = static_cast<double*>(take(batch * d * 8));
    at.work.queries = static_cast<Query*>(take(padded * int64_t(sizeof(Query))));
    at.work.digits = take(padded / kQueriesPerMma * steps * 512);
    at.work.states = static_cast<Online*>(take(all * int64_t(sizeof(Online))));
    at.work.sums = static_cast<double*>(take(sums * d * 8));
    const int64_t line = padded * kDigits * kTile;  // a tile's digits of all queries
    if (dense.group) {
        at.dense.digits = static_cast<uint8_t*>(take(dense.column_tiles * line));
        at.dense.top = static_cast<long long*>(take(padded * 8));
    }
    if (dense.group && !dense.cluster) {
        at.dense.weights = static_cast<uint8_t*>(take(dense.row_tiles * line));
        at.dense.logits = static_cast<double*>(take(padded * dense.stride * 8));
        at.dense.active = static_cast<uint8_t*>(take(dense.groups * dense.row_tiles));
    }
    at.bytes = bytes;
    return at;
}

}  // namespace geodiff::cuda
