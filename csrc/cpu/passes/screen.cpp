#include "screen.h"

#include <optional>

#include "candidates.h"
#include "prune.h"
#include "refine.h"
#include "tiles.h"

namespace geodiff {
namespace {

// Leaves the candidates that a list is to have; returns the margin to all other rows.
double choose(std::vector<Candidate>& candidates, const Candidates::Ends& ends, double cut, int64_t room) {
    const auto before = [](const Candidate& a, const Candidate& b) { return a.upper > b.upper; };
    if (int64_t(candidates.size()) <= room) return ends.width;
    std::nth_element(candidates.begin(), candidates.begin() + room, candidates.end(), before);
    const double margin = ends.best - candidates[size_t(room)].upper;
    if (margin > cut)
        candidates.resize(size_t(room));
    else
        candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                        [&](const Candidate& c) { return c.upper < ends.best - cut; }),
                         candidates.end());
    // In this order sums have the same bits whatever else is in the list.
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.row < b.row; });
    return std::max(margin, cut);
}

// With `shaping` on its coordinates, too.
Found find(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which, double cut,
           Precision precision, const Wider& wider) {
    const int64_t count = int64_t(which.size()), tile = screened_tile_rows(request, count);
    Found out;
    if (count == 0) return out;
    const int64_t nearest = std::min(request.topk, request.rows.n);
    const double width = std::max(cut, wider.width);
    const Logits logits(request, which.data(), count, precision, false, bool(shaping));
    std::optional<Pruning> pruning;
    if (shaping) pruning.emplace(request, shaping, which, width, nearest);
    const Pieces pieces(request.rows.n, tile, request.threads, true);
    struct Share {
        std::vector<Candidates> candidates;
        int64_t read = 0;
    };
    struct Worker {
        Logits::Work logits;
        Pruning::Work pruning;
        Buffer<float> away;
    };
    const auto worker = [&] {
        return Worker{logits.work(tile), pruning ? pruning->work(tile) : Pruning::Work{}, Buffer<float>(tile)};
    };
    const auto nothing = [&] {
        Share share;
        for (int64_t i = 0; i < count; ++i)
            share.candidates.emplace_back(request.kernels, Candidates::Wanted{cut, width, nearest}, logits.row_error(i),
                                          logits.base_error(i));
        return share;
    };
    const auto visit = [&](Worker& mine, Share& share, const Tile& t) {
        const float* away = request.stats.away + t.first;
        const Pruning::Left* left = pruning ? &pruning->over(mine.pruning, t.first, t.R, t.ahead ? t.R : 0) : nullptr;
        share.read += left ? int64_t(left->rows.size()) : t.R;
        if (!left || left->most) {
            logits.over(mine.logits, t.first, t.R, tile,
                        [&](int64_t i, const double* l) { share.candidates[size_t(i)].offer(l, away, t.first, t.R); });
            return;
        }
        for (int64_t i = 0; i < count; ++i) {
            const int32_t* list = left->list(i);
            const int size = left->count[size_t(i)];
            if (size == 0) continue;
            for (int r = 0; r < size; ++r) mine.away[r] = away[list[r]];
            share.candidates[size_t(i)].offer(logits.listed(mine.logits, t.first, list, size, i, tile),
                                              mine.away.data(), t.first, size, list);
        }
    };
    const auto shares = over_tiles(request.rows, pieces, tile, worker, nothing, visit);
    for (const Share& s : shares) request.read(s.read);
    for (int64_t i = 0; i < count; ++i) {
        std::vector<const Candidates*> parts;
        for (const Share& s : shares) parts.push_back(&s.candidates[size_t(i)]);
        const Candidates::Ends ends = Candidates::ends(parts);
        if (!ends.whole) {
            const bool blurred = logits.gap_error(i) > 0.1 * cut;
            (blurred ? out.open.blurred : out.open.crowded).push_back(which[size_t(i)]);
            continue;
        }
        std::vector<Candidate> candidates;
        for (const Candidates* part : parts) part->collect(ends.least, candidates);
        out.margins.push_back(wider.room > 0 ? choose(candidates, ends, cut, wider.room) : cut);
        std::vector<int64_t> list;
        for (const Candidate& c : candidates) list.push_back(c.row);
        out.queries.push_back(which[size_t(i)]);
        out.lists.push_back(std::move(list));
    }
    return out;
}

// What coordinates there are, with exact integer products. One pass makes none, which takes many times as long, but
// many will have paid for it. Whether they are there changes no bit of an answer.
Shaping coordinates_of(const Request& request, const std::vector<int64_t>& which, double width) {
    if (!request.coordinates || !request.integers()) return {};
    const auto promises = [&](int64_t q) { return Pruning::promising(request, q, width); };
    if (which.empty() || !std::all_of(which.begin(), which.end(), promises)) return request.coordinates->at_hand();
    return request.coordinates->sparing(request.rows.n);
}

}  // namespace

void Found::append(Found&& other) {
    const auto join = [](auto& to, auto& from) {
        to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
    };
    join(queries, other.queries), join(lists, other.lists), join(margins, other.margins);
    join(open.blurred, other.open.blurred), join(open.crowded, other.open.crowded);
}

Found find(const Request& request, const std::vector<int64_t>& which, double cut, Precision precision,
           const Wider& wider) {
    const double width = std::max(cut, wider.width);
    const Shaping shaping = precision == Precision::coarse ? coordinates_of(request, which, width) : Shaping{};
    std::vector<int64_t> few, all;
    for (const int64_t q : which) {
        const bool prunes = shaping && Pruning::worthwhile(request, shaping, q, width) &&
                            (few.empty() || Pruning::together(request, q, few[0]));
        (prunes ? few : all).push_back(q);
    }
    Found found = find(request, shaping, few, cut, precision, wider);
    found.append(find(request, {}, all, cut, precision, wider));
    return found;
}

Unanswered screen(const Request& request, const std::vector<int64_t>& which, Precision precision, Answer& answer,
                  Memory* memory) {
    const double cut = request.cut();
    const Wider wider = memory ? Wider{Memory::kWidth * cut, memory->room()} : Wider{};
    const Found found = find(request, which, cut, precision, wider);
    refine(request, found.queries, found.lists, cut, Path::screened, answer);
    for (size_t i = 0; memory && i < found.queries.size(); ++i) {
        const int64_t q = found.queries[i];
        memory->keep(request, q, found.lists[i], found.margins[i], answer.log_sum[q]);
    }
    return found.open;
}

}  // namespace geodiff
