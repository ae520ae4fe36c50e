#include "parallel.h"
#include "passes.h"

namespace geodiff {

Found find(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
           const std::vector<int64_t>& which, double cut, Precision precision) {
    const int64_t count = int64_t(which.size()), tile = tile_rows(rows, kernels, count);
    Found out;
    if (count == 0) return out;
    const Logits logits(kernels, rows, stats, request, which.data(), count, precision);
    std::vector<Candidates> found;
    for (int t = 0; t < request.threads; ++t)
        for (int64_t i = 0; i < count; ++i)
            found.emplace_back(cut, logits.row_error(i), logits.base_error(i), std::min(request.topk, rows.n));
    parallel(request.threads, [&](int t) {
        Logits::Work work = logits.work(tile);
        Candidates* mine = found.data() + t * count;
        const Range range = share(rows.n, tile, t, request.threads);
        for (int64_t first = range.begin; first < range.end; first += tile) {
            const int R = int(std::min(tile, range.end - first));
            logits.load(work, first, R);
            for (int64_t b = 0; b < logits.blocks(); ++b) {
                logits.block(work, first, R, b, tile);
                for (int64_t q = 0; q < logits.block_size(b); ++q)
                    mine[b * kQueryBlock + q].offer(work.logits.data() + q * tile, stats.away + first, first, R);
            }
        }
    });
    for (int64_t i = 0; i < count; ++i) {
        bool overflowed = false;
        for (int t = 0; t < request.threads; ++t) overflowed |= found[size_t(t * count + i)].overflowed();
        if (overflowed) {
            const bool blurred = logits.gap_error(i) > 0.1 * cut;
            (blurred ? out.open.blurred : out.open.crowded).push_back(which[size_t(i)]);
            continue;
        }
        const double least = Candidates::least(found.data() + i, request.threads, count);
        std::vector<int64_t> list;
        for (int t = 0; t < request.threads; ++t) found[size_t(t * count + i)].collect(least, list);
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
