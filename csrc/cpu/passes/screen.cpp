#include "screen.h"

#include "candidates.h"
#include "refine.h"
#include "tiles.h"

namespace geodiff {

Found find(const Request& request, const std::vector<int64_t>& which, double cut, Precision precision) {
    const int64_t count = int64_t(which.size()), tile = tile_rows(request, count);
    Found out;
    if (count == 0) return out;
    const Logits logits(request, which.data(), count, precision);
    const Pieces pieces(request.rows.n, tile, request.threads, true);
    typedef std::vector<Candidates> Share;
    const auto nothing = [&] {
        Share share;
        for (int64_t i = 0; i < count; ++i)
            share.emplace_back(cut, logits.row_error(i), logits.base_error(i), std::min(request.topk, request.rows.n));
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
        const double least = Candidates::least(parts);
        std::vector<int64_t> list;
        for (const Candidates* part : parts) part->collect(least, list);
        out.queries.push_back(which[size_t(i)]);
        out.lists.push_back(std::move(list));
    }
    return out;
}

Unanswered screen(const Request& request, const std::vector<int64_t>& which, Precision precision, Answer& answer) {
    const Found found = find(request, which, request.cut(), precision);
    refine(request, found.queries, found.lists, request.cut(), Path::screened, answer);
    return found.open;
}

}  // namespace geodiff
