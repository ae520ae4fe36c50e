#include "operations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "bounds.h"
#include "logits.h"
#include "parallel.h"
#include "weighted_sum.h"

namespace geodiff {
namespace {

constexpr int64_t kBatch = 256;  // queries per pass over the data

int useful_threads(int64_t work, int threads) { return int(std::clamp<int64_t>(work >> 18, 1, threads)); }

// The mean of one query in float64, for weights that integers cannot hold to the contract.
void plain_mean(const Kernels& kernels, const Rows& rows, const double* l, double top, double cut, double* mean) {
    double sum = 0;
    std::fill(mean, mean + rows.d, 0.0);
    for (int64_t i = 0; i < rows.n; ++i) {
        if (l[i] < top - cut) continue;
        const double p = std::exp(l[i] - top);
        sum += p;
        kernels.axpy(p, rows.row(i), rows.dtype, rows.d, mean);
    }
    for (int64_t k = 0; k < rows.d; ++k) mean[k] /= sum;
}

}  // namespace

void inner_products(const Kernels& kernels, const Rows& rows, const Stats& stats, const double* x, int64_t batch,
                    int threads, double* out) {
    const int64_t tile = tile_rows(rows, kernels, batch);
    threads = useful_threads(batch * rows.n * rows.d, threads);
    const std::vector<double> one(size_t(batch), 1.0);
    const Request request{batch, x, one.data(), nullptr, 0, 0, threads};
    for (int64_t base = 0; base < batch; base += kBatch) {
        std::vector<int64_t> which(size_t(std::min(kBatch, batch - base)));
        std::iota(which.begin(), which.end(), base);
        const Logits logits(kernels, rows, stats, request, which.data(), int64_t(which.size()), Precision::fine);
        parallel(threads, [&](int t) {
            Logits::Work work = logits.work(tile);
            const Range range = share(rows.n, tile, t, threads);
            for (int64_t first = range.begin; first < range.end; first += tile) {
                const int R = int(std::min(tile, range.end - first));
                logits.load(work, first, R);
                for (int64_t b = 0; b < logits.blocks(); ++b) {
                    logits.products(work, first, R, b, tile);
                    for (int64_t q = 0; q < logits.block_size(b); ++q)
                        std::copy_n(work.logits.data() + q * tile, R,
                                    out + (base + b * kQueryBlock + q) * rows.n + first);
                }
            }
        });
    }
}

void weighted_mean(const Kernels& kernels, const Rows& rows, const Stats& stats, const double* l, int64_t batch,
                   double tol, int threads, double* mean) {
    const int64_t tile = tile_rows(rows, kernels, batch), n = rows.n;
    const double cut = cutoff(stats, n, tol);
    threads = useful_threads(batch * n * rows.d, threads);
    for (int64_t base = 0; base < batch; base += kBatch) {
        const int64_t count = std::min(kBatch, batch - base);
        std::vector<WeightedSum> sums;
        std::vector<std::vector<Online>> states(size_t(threads),
                                                std::vector<Online>(size_t(count), Online{-1e308, 0, 0, 0, 0, 0, 0}));
        for (int t = 0; t < threads; ++t) sums.emplace_back(kernels, rows, count, tile, 3);
        const bool integer = kernels.int8 && rows.dtype == DType::u8;
        const int64_t dp = padded(rows.d);
        parallel(threads, [&](int t) {
            Buffer<double> p(tile);
            Buffer<float> widened(integer ? 0 : tile * dp);
            const Range range = share(n, tile, t, threads);
            for (int64_t first = range.begin; first < range.end; first += tile) {
                const int R = int(std::min(tile, range.end - first));
                WeightedSum& mine = sums[size_t(t)];
                mine.begin(R, uint64_t(first / tile));
                bool any = false;
                for (int64_t q = 0; q < count; ++q) {
                    Online& state = states[size_t(t)][size_t(q)];
                    double rescale = 1;
                    if (!kernels.softmax(l + (base + q) * n + first, stats.half_norm + first, R, cut, &state, p.data(),
                                         &rescale))
                        continue;
                    mine.set(q, p.data(), rescale, state);
                    any = true;
                }
                if (any && !integer)
                    for (int r = 0; r < R; ++r)
                        kernels.widen(rows.row(first + r), rows.dtype, rows.d, dp, widened.data() + r * dp);
                mine.add(first, widened.data(), dp, nullptr);
            }
        });
        parallel(int(std::min<int64_t>(threads, count)), [&](int t) {
            const Range mine = share(count, 1, t, int(std::min<int64_t>(threads, count)));
            for (int64_t q = mine.begin; q < mine.end; ++q) {
                double top = -1e308, total = 0, noise = 0;
                double* out = mean + (base + q) * rows.d;
                for (const auto& s : states) top = std::max(top, s[size_t(q)].max);
                std::fill(out, out + rows.d, 0.0);
                for (int s = 0; s < threads; ++s) {
                    const Online& o = states[size_t(s)][size_t(q)];
                    if (!(o.sum > 0)) continue;
                    const double scale = std::exp(o.max - top);
                    total += o.sum_q * scale;
                    noise += o.noise * scale * scale;
                    sums[size_t(s)].merge_into(q, scale, out);
                }
                for (int64_t k = 0; k < rows.d; ++k) out[k] /= total;
                // |v - r| <= 2 radius for every row: the crudest spread there is.
                if (kDeviations * std::sqrt(noise) / total * 2 * stats.radius > tol * least_scale(stats))
                    plain_mean(kernels, rows, l + (base + q) * n, top, cut, out);
            }
        });
    }
}

void squared_distances(const Kernels& kernels, const Rows& rows, const double* x, const int64_t* candidates,
                       int64_t batch, int64_t width, int threads, double* out) {
    threads = useful_threads(batch * width * rows.d, threads);
    parallel(threads, [&](int t) {
        const Range mine = share(batch * width, 1, t, threads);
        for (int64_t i = mine.begin; i < mine.end; ++i)
            out[i] = candidates[i] < 0
                         ? std::numeric_limits<double>::infinity()
                         : kernels.distance(x + i / width * rows.d, rows.row(candidates[i]), rows.dtype, rows.d);
    });
}

}  // namespace geodiff
