#include "draw.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <vector>

#include "parallel.h"
#include "passes.h"
#include "spread.h"

namespace geodiff {
namespace {

// Rows this far below the best are never drawn: all n of them together have probability 1e-12, less than the grid of
// the uniform numbers resolves in a lifetime of draws.
double draw_cut(int64_t n) { return std::log(double(n) * 1e12); }

// The first entry at which the running sum of p[0..n) exceeds `target`; the last that is not 0 if rounding ends short.
int64_t invert(const double* p, int64_t n, double target) {
    double sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (p[i] == 0) continue;
        sum += p[i];
        last = i;
        if (sum > target) break;
    }
    return last;
}

// p[i] = exp(logit - largest) of the listed rows; returns their sum.
double weigh(const Kernels& kernels, const Rows& rows, const Request& request, int64_t q, const int64_t* list,
             int64_t first, int64_t n, double* p) {
    double top = -1e308, sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        p[i] = logit(kernels, rows, request, q, list ? list[i] : first + i);
        top = std::max(top, p[i]);
    }
    for (int64_t i = 0; i < n; ++i) sum += p[i] = std::exp(p[i] - top);
    return sum;
}

// Draws of one query from a list of rows (null: all of them).
void from_list(const Kernels& kernels, const Rows& rows, const Request& request, int64_t q, const int64_t* list,
               int64_t n, int64_t count, const double* uniform, int64_t* index) {
    std::vector<double> p(static_cast<size_t>(n));
    const double sum = weigh(kernels, rows, request, q, list, 0, n, p.data());
    for (int64_t j = 0; j < count; ++j) {
        const int64_t i = invert(p.data(), n, uniform[q * count + j] * sum);
        index[q * count + j] = list ? list[i] : i;
    }
}

// Two levels: how much every tile weighs, from one pass, and then the rows of the tiles that were hit, in float64.
void from_tiles(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                const std::vector<int64_t>& which, int64_t count, const double* uniform, int64_t* index) {
    const int64_t queries = int64_t(which.size()), tile = tile_rows(rows, kernels, queries);
    if (queries == 0) return;
    const int64_t tiles = (rows.n + tile - 1) / tile;
    const Logits logits(kernels, rows, stats, request, which.data(), queries, Precision::fine);
    std::vector<double> top(size_t(queries * tiles)), sum(size_t(queries * tiles));
    parallel(request.threads, [&](int t) {
        Logits::Work work = logits.work(tile);
        const Range mine = share(rows.n, tile, t, request.threads);
        for (int64_t first = mine.begin; first < mine.end; first += tile) {
            const int R = int(std::min(tile, mine.end - first));
            logits.load(work, first, R);
            for (int64_t b = 0; b < logits.blocks(); ++b) {
                logits.block(work, first, R, b, tile);
                for (int64_t q = 0; q < logits.block_size(b); ++q) {
                    const double* l = work.logits.data() + q * tile;
                    const size_t slot = size_t((b * kQueryBlock + q) * tiles + first / tile);
                    double m = -1e308, s = 0;
                    for (int r = 0; r < R; ++r) m = std::max(m, l[r]);
                    for (int r = 0; r < R; ++r) s += std::exp(l[r] - m);
                    top[slot] = m;
                    sum[slot] = s;
                }
            }
        }
    });
    std::atomic<int64_t> next{0};
    parallel(request.threads, [&](int) {
        std::vector<int64_t> order(static_cast<size_t>(count));
        std::vector<double> p(static_cast<size_t>(tile));
        for (int64_t i = next++; i < queries; i = next++) {
            const int64_t q = which[size_t(i)];
            const double* u = uniform + q * count;
            double *m = top.data() + i * tiles, *s = sum.data() + i * tiles;
            const double best = *std::max_element(m, m + tiles);
            for (int64_t k = 0; k < tiles; ++k) s[k] *= std::exp(m[k] - best);
            const double total = std::accumulate(s, s + tiles, 0.0);
            std::iota(order.begin(), order.end(), 0);
            std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return u[a] < u[b]; });
            // In rising order, so that every tile is looked at once.
            double before = 0, within = 0;
            int64_t current = -1;
            for (int64_t k = 0, j = 0; j < count; ++j) {
                const double target = u[order[size_t(j)]] * total;
                while (k + 1 < tiles && before + s[k] <= target) before += s[k++];
                const int64_t first = k * tile, R = std::min(tile, rows.n - first);
                if (k != current) within = weigh(kernels, rows, request, q, nullptr, first, R, p.data());
                current = k;
                const double part = s[k] > 0 ? (target - before) / s[k] : 0;
                index[q * count + order[size_t(j)]] = first + invert(p.data(), R, part * within);
            }
        }
    });
}

}  // namespace

void draw(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, int64_t count,
          const double* uniform, int64_t* index) {
    Request plan = request;
    plan.threads = int(std::clamp<int64_t>(request.batch * rows.n * rows.d >> 18, 1, request.threads));
    plan.topk = 0;
    const int64_t batch = queries_per_pass(rows, plan.threads);
    for (int64_t base = 0; base < request.batch; base += batch) {
        const int64_t queries = std::min(batch, request.batch - base);
        if (small(rows)) {
            for (int64_t q = base; q < base + queries; ++q)
                from_list(kernels, rows, plan, q, nullptr, rows.n, count, uniform, index);
            continue;
        }
        const std::vector<Spread> spread = guess_spread(kernels, rows, stats, plan, base, queries);
        std::vector<int64_t> few, many;
        for (int64_t q = base; q < base + queries; ++q)
            (spread[size_t(q - base)] == Spread::few ? few : many).push_back(q);
        few = over_lists(
            kernels, rows, stats, plan, few, draw_cut(rows.n), [&](int64_t q, const std::vector<int64_t>& list) {
                from_list(kernels, rows, plan, q, list.data(), int64_t(list.size()), count, uniform, index);
            });
        many.insert(many.end(), few.begin(), few.end());
        from_tiles(kernels, rows, stats, plan, many, count, uniform, index);
    }
}

}  // namespace geodiff
