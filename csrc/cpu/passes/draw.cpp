#include "draw.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../../common/draw.h"
#include "plan.h"
#include "screen.h"
#include "spread.h"
#include "tiles.h"

namespace geodiff {
namespace {

// Rows this far below the best are never drawn: all n of them together have probability 1e-12, less than the grid of
// the uniform numbers resolves in a lifetime of draws.
double draw_cut(int64_t n) { return std::log(double(n) * 1e12); }

// p[i] = exp(logit - largest) of rows row_at(0..n); returns their sum.
template <class RowAt>
double weigh(const Request& request, int64_t q, int64_t n, RowAt&& row_at, double* p) {
    double top = -1e308, sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (i % 1024 == 0) interruption_point();
        p[i] = request.logit(q, row_at(i));
        top = std::max(top, p[i]);
    }
    for (int64_t i = 0; i < n; ++i) sum += p[i] = std::exp(p[i] - top);
    return sum;
}

// Draws of query q from rows row_at(0..n).
template <class RowAt>
void from_rows(const Request& request, const Draws& draws, int64_t q, int64_t n, RowAt&& row_at) {
    std::vector<double> p(static_cast<size_t>(n));
    const double sum = weigh(request, q, n, row_at, p.data());
    for (int64_t j = q * draws.count; j < (q + 1) * draws.count; ++j)
        draws.index[j] = row_at(first_beyond(p.data(), n, draws.uniform[j] * sum));
}

// Two levels: how much every tile weighs, from one pass, and then the rows of the tiles that were hit, in float64.
void from_tiles(const Request& request, const Draws& draws, const std::vector<int64_t>& which) {
    const int64_t queries = int64_t(which.size()), n = request.rows.n, tile = tile_rows(request, queries);
    if (queries == 0) return;
    const int64_t tiles = (n + tile - 1) / tile, count = draws.count;
    const Logits logits(request, which.data(), queries, Precision::fine);
    std::vector<double> top(size_t(queries * tiles)), sum(size_t(queries * tiles));
    const auto visit = [&](Logits::Work& work, int, const Tile& t) {
        logits.over(work, t.first, t.R, tile, [&](int64_t i, const double* l) {
            const size_t slot = size_t(i * tiles + t.first / tile);
            double m = -1e308, s = 0;
            for (int r = 0; r < t.R; ++r) m = std::max(m, l[r]);
            for (int r = 0; r < t.R; ++r) s += std::exp(l[r] - m);
            top[slot] = m;
            sum[slot] = s;
        });
    };
    over_tiles(
        request.rows, Pieces(n, tile, request.threads, false), tile, [&] { return logits.work(tile); },
        [] { return 0; }, visit);
    one_by_one(queries, request.threads, [&](int64_t i) {
        std::vector<int64_t> order = numbers_from(0, count);
        std::vector<double> p(static_cast<size_t>(tile));
        const int64_t q = which[size_t(i)];
        const double* u = draws.uniform + q * count;
        double *m = top.data() + i * tiles, *s = sum.data() + i * tiles;
        const double best = *std::max_element(m, m + tiles);
        for (int64_t k = 0; k < tiles; ++k) s[k] *= std::exp(m[k] - best);
        const double total = std::accumulate(s, s + tiles, 0.0);
        // In rising order, so that every tile is looked at once.
        std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return u[a] < u[b]; });
        double before = 0, within = 0;
        int64_t current = -1;
        for (int64_t k = 0, j = 0; j < count; ++j) {
            const double target = u[order[size_t(j)]] * total;
            while (k + 1 < tiles && before + s[k] <= target) before += s[k++];
            const int64_t first = k * tile, R = std::min(tile, n - first);
            if (k != current) within = weigh(request, q, R, [&](int64_t r) { return first + r; }, p.data());
            current = k;
            const double part = s[k] > 0 ? (target - before) / s[k] : 0;
            draws.index[q * count + order[size_t(j)]] = first + first_beyond(p.data(), R, part * within);
        }
    });
}

}  // namespace

void draw(const Request& asked, const Draws& draws) {
    Request request = planned(asked);
    request.topk = 0;
    const int64_t batch = queries_per_pass(request);
    for (int64_t base = 0; base < request.batch; base += batch) {
        const int64_t count = std::min(batch, request.batch - base);
        if (small(request.rows)) {
            for (int64_t q = base; q < base + count; ++q)
                from_rows(request, draws, q, request.rows.n, [](int64_t row) { return row; });
            continue;
        }
        BySpread by = by_spread(request, numbers_from(base, count));
        std::vector<int64_t> many;
        for (const DenseQuery& e : by.even) many.push_back(e.query);
        append(many,
               over_lists(request, by.few, draw_cut(request.rows.n), [&](int64_t q, const std::vector<int64_t>& list) {
                   from_rows(request, draws, q, int64_t(list.size()), [&](int64_t i) { return list[size_t(i)]; });
               }));
        from_tiles(request, draws, many);
    }
}

}  // namespace geodiff
