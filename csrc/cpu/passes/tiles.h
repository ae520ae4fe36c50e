// What every pass over the rows is made of: tiles dealt to threads, sums of each piece apart, joined in row order.
#pragma once

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "../request.h"
#include "../runtime/pieces.h"
#include "../runtime/read_ahead.h"

namespace geodiff {

// Rows [first, first + R). `ahead`: the rows after them, to prefetch, or null where fewer than R follow in this piece.
struct Tile {
    int64_t first;
    int R;
    const void* ahead;
    uint64_t seed;  // of the tile's own random numbers
};

inline ReadAhead read_ahead(const Rows& rows, Range range) {
    const bool large = rows.mapped && ReadAhead::larger_than_memory(rows.bytes());
    return {rows.row(range.begin), rows.part(range.begin, range.end).bytes(), rows.mapped, large};
}

// Visits every tile of the pieces. worker() makes the scratch of a thread, share() what a piece adds to the answer;
// visit(worker, share, tile). Returns the shares in the order of the pieces, which does not depend on who did which.
template <class Worker, class Share, class Visit>
auto over_tiles(const Rows& rows, const Pieces& pieces, int64_t tile, Worker&& worker, Share&& share, Visit&& visit) {
    typedef decltype(share()) Sums;
    std::vector<std::optional<Sums>> shares(size_t(pieces.count()));
    pieces.each([&](auto&& next) {
        auto scratch = worker();
        for (int piece = next(); piece >= 0; piece = next()) {
            const Range range = pieces[piece];
            Sums& mine = shares[size_t(piece)].emplace(share());
            ReadAhead reading = read_ahead(rows, range);
            for (int64_t first = range.begin; first < range.end; first += tile) {
                interruption_point();
                const int R = int(std::min(tile, range.end - first));
                reading.reached(rows.row(first));
                const void* ahead = first + tile + R <= range.end ? rows.row(first + tile) : nullptr;
                visit(scratch, mine, Tile{first, R, ahead, uint64_t(first / tile)});
            }
        }
    });
    std::vector<Sums> done;
    for (auto& s : shares) done.push_back(std::move(*s));
    return done;
}

// Joins online sums of shares by log-sum-exp: state(share) is one query's, and each(share, factor) adds what hangs on
// it. `max` of the result is the largest; a share that saw no weight is left out.
template <class Sums, class State, class Each>
Online join(const std::vector<Sums>& shares, State&& state, Each&& each) {
    Online all;
    for (const Sums& s : shares) all.max = std::max(all.max, state(s).max);
    for (const Sums& s : shares) {
        const Online& o = state(s);
        if (!(o.sum > 0)) continue;
        const double scale = std::exp(o.max - all.max);
        all.sum += o.sum * scale;
        all.sum_l += (o.sum_l + (o.max - all.max) * o.sum) * scale;
        all.sum_2 += o.sum_2 * scale * scale;
        all.sum_h += o.sum_h * scale;
        all.sum_q += o.sum_q * scale;
        all.noise += o.noise * scale * scale;
        each(s, scale);
    }
    return all;
}

}  // namespace geodiff
