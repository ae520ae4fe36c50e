#include "parallel.h"
#include "passes.h"

namespace geodiff {

Found find(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
           const std::vector<int64_t>& which, double cut, Precision precision) {
    const int64_t count = int64_t(which.size()), tile = tile_rows(rows, kernels, count);
    Found out;
    if (count == 0) return out;
    const Logits logits(kernels, rows, stats, request, which.data(), count, precision);
    const Pieces pieces(rows.n, tile, request.threads, true);
    std::vector<Candidates> found;
    for (int piece = 0; piece < pieces.count(); ++piece)
        for (int64_t i = 0; i < count; ++i)
            found.emplace_back(cut, logits.row_error(i), logits.base_error(i), std::min(request.topk, rows.n));
    pieces.each([&](auto&& next) {
        Logits::Work work = logits.work(tile);
        for (int piece = next(); piece >= 0; piece = next()) {
            const Range range = pieces[piece];
            Candidates* mine = found.data() + piece * count;
            for (int64_t first = range.begin; first < range.end; first += tile) {
                const int R = int(std::min(tile, range.end - first));
                logits.load(work, first, R);
                for (int64_t b = 0; b < logits.blocks(); ++b) {
                    logits.block(work, first, R, b, tile);
                    for (int64_t q = 0; q < logits.block_size(b); ++q)
                        mine[b * kQueryBlock + q].offer(work.logits.data() + q * tile, stats.away + first, first, R);
                }
            }
        }
    });
    for (int64_t i = 0; i < count; ++i) {
        bool overflowed = false;
        for (int p = 0; p < pieces.count(); ++p) overflowed |= found[size_t(p * count + i)].overflowed();
        if (overflowed) {
            const bool blurred = logits.gap_error(i) > 0.1 * cut;
            (blurred ? out.open.blurred : out.open.crowded).push_back(which[size_t(i)]);
            continue;
        }
        const double least = Candidates::least(found.data() + i, pieces.count(), count);
        std::vector<int64_t> list;
        for (int p = 0; p < pieces.count(); ++p) found[size_t(p * count + i)].collect(least, list);
        out.queries.push_back(which[size_t(i)]);
        out.lists.push_back(std::move(list));
    }
    return out;
}

Unanswered screen(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                  const std::vector<int64_t>& which, Precision precision, Answer& answer) {
    const double cut = cutoff(stats, rows.n, request.tol);
    const Found found = find(kernels, rows, stats, request, which, cut, precision);
    refine(kernels, rows, request, found.queries, found.lists, cut, Path::screened, answer);
    return found.open;
}

}  // namespace geodiff
