#include "steps.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../products/bounds.h"
#include "../products/weighted_sum.h"
#include "plan.h"
#include "tiles.h"

namespace geodiff {
namespace {

// The mean of one query in float64, for weights that integers cannot hold to the contract.
void plain_mean(const Request& request, const double* l, double top, double* mean) {
    const Rows& rows = request.rows;
    double sum = 0;
    std::fill(mean, mean + rows.d, 0.0);
    for (int64_t i = 0; i < rows.n; ++i) {
        if (i % 1024 == 0) interruption_point();
        if (l[i] < top - request.cut()) continue;
        const double p = std::exp(l[i] - top);
        sum += p;
        request.add_row(p, i, mean);
    }
    for (int64_t k = 0; k < rows.d; ++k) mean[k] /= sum;
}

// The same for queries [base, base + count), tile by tile.
void weighted_mean(const Request& request, const double* l, int64_t base, int64_t count, double* mean) {
    const Rows& rows = request.rows;
    const int64_t n = rows.n, d = rows.d, tile = tile_rows(request, request.batch);
    const double cut = request.cut();
    struct Share {
        std::vector<Online> states;
        WeightedSum sum;
    };
    const auto worker = [&] { return Buffer<double>(tile); };
    const auto nothing = [&] {
        return Share{std::vector<Online>(size_t(count)), WeightedSum(request, count, tile, {24})};
    };
    const auto visit = [&](Buffer<double>& p, Share& mine, const Tile& t) {
        mine.sum.begin(t.first, t.R, t.seed);
        for (int64_t q = 0; q < count; ++q) {
            double rescale = 1;
            Online& state = mine.states[size_t(q)];
            const double* logits = l + (base + q) * n + t.first;
            if (request.kernels.softmax(logits, request.stats.half_norm + t.first, t.R, cut, &state, p.data(),
                                        &rescale))
                mine.sum.set(q, p.data(), rescale, state);
        }
        mine.sum.add(nullptr);
    };
    const Pieces pieces(n, tile, request.threads, false);
    const auto shares = over_tiles(rows, pieces, tile, worker, nothing, visit);
    one_by_one(count, request.threads, [&](int64_t q) {
        double* out = mean + (base + q) * d;
        Pooled pooled;
        const Online all = join(
            shares, [&](const Share& s) -> const Online& { return s.states[size_t(q)]; },
            [&](const Share& s, double scale) { pooled.add(s.sum, q, scale); });
        pooled.join(request.kernels, d, 1 / all.sum_q, 0, out);
        // |v - r| <= 2 radius for every row: the crudest spread there is.
        const double error = kDeviations * std::sqrt(all.noise) / all.sum_q * 2 * request.stats.scale.radius;
        if (error > request.stats.scale.allowed(0, request.tol)) plain_mean(request, l + (base + q) * n, all.max, out);
    });
}

}  // namespace

void inner_products(const Request& asked, double* out) {
    const Request request = planned(asked);
    const int64_t n = request.rows.n, tile = tile_rows(request, request.batch);
    for (int64_t base = 0; base < request.batch; base += kBatch) {
        const std::vector<int64_t> which = numbers_from(base, std::min(kBatch, request.batch - base));
        const Logits logits(request, which.data(), int64_t(which.size()), Precision::fine);
        const auto visit = [&](Logits::Work& work, int, const Tile& t) {
            for (int64_t b = 0; b < logits.blocks(); ++b) {
                logits.multiply(work, t.first, t.R, b, tile);
                for (int64_t i = b * logits.block(); i < b * logits.block() + logits.block_size(b); ++i)
                    std::copy_n(logits.products(work, t.first, t.R, i, tile), t.R, out + (base + i) * n + t.first);
            }
        };
        over_tiles(
            request.rows, Pieces(n, tile, request.threads, false), tile, [&] { return logits.work(tile); },
            [] { return 0; }, visit);
    }
}

void weighted_mean(const Request& asked, const double* l, double* mean) {
    const Request request = planned(asked);
    for (int64_t base = 0; base < request.batch; base += kBatch)
        weighted_mean(request, l, base, std::min(kBatch, request.batch - base), mean);
}

void squared_distances(const Request& request, const int64_t* candidates, int64_t width, double* out) {
    constexpr int64_t kPairs = 32;  // that a thread takes at a time
    const int64_t pairs = request.batch * width;
    const int threads = threads_for(pairs * request.rows.d, request.threads);
    one_by_one((pairs + kPairs - 1) / kPairs, threads, [&](int64_t piece) {
        for (int64_t i = piece * kPairs; i < std::min((piece + 1) * kPairs, pairs); ++i)
            out[i] = candidates[i] < 0 ? std::numeric_limits<double>::infinity()
                                       : request.distance(i / width, candidates[i]);
    });
}

}  // namespace geodiff
