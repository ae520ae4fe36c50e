#include "screen.h"

#include "candidates.h"
#include "refine.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr double kWidth = 4;  // cuts, of a list that is kept for other states

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

}  // namespace

Found find(const Request& request, const std::vector<int64_t>& which, double cut, Precision precision,
           const Wider& wider) {
    const int64_t count = int64_t(which.size()), tile = tile_rows(request, count);
    Found out;
    if (count == 0) return out;
    const Logits logits(request, which.data(), count, precision);
    const Pieces pieces(request.rows.n, tile, request.threads, true);
    typedef std::vector<Candidates> Share;
    const auto nothing = [&] {
        Share share;
        for (int64_t i = 0; i < count; ++i)
            share.emplace_back(request.kernels, cut, std::max(cut, wider.width), logits.row_error(i),
                               logits.base_error(i), std::min(request.topk, request.rows.n));
        return share;
    };
    const auto visit = [&](Logits::Work& work, Share& share, const Tile& t) {
        logits.over(work, t.first, t.R, tile, [&](int64_t i, const double* l) {
            share[size_t(i)].offer(l, request.stats.away + t.first, t.first, t.R);
        });
    };
    const auto shares = over_tiles(request.rows, pieces, tile, [&] { return logits.work(tile); }, nothing, visit);
    request.read(request.rows.n);
    for (int64_t i = 0; i < count; ++i) {
        std::vector<const Candidates*> parts;
        bool overflowed = false;
        for (const Share& s : shares) {
            parts.push_back(&s[size_t(i)]);
            overflowed |= parts.back()->overflowed();
        }
        if (overflowed) {
            const bool blurred = logits.gap_error(i) > 0.1 * cut;
            (blurred ? out.open.blurred : out.open.crowded).push_back(which[size_t(i)]);
            continue;
        }
        const Candidates::Ends ends = Candidates::ends(parts);
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

Unanswered screen(const Request& request, const std::vector<int64_t>& which, Precision precision, Answer& answer,
                  Memory* memory) {
    const double cut = request.cut();
    const Wider wider = memory ? Wider{kWidth * cut, memory->room()} : Wider{};
    const Found found = find(request, which, cut, precision, wider);
    refine(request, found.queries, found.lists, cut, Path::screened, answer);
    for (size_t i = 0; memory && i < found.queries.size(); ++i) {
        const int64_t q = found.queries[i];
        if (int64_t(found.lists[i].size()) <= memory->room())
            memory->keep(request, q, found.lists[i], found.margins[i], answer.log_sum[q]);
        else
            memory->forget(q);
    }
    return found.open;
}

}  // namespace geodiff
