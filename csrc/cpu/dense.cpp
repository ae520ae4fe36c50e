#include <optional>

#include "parallel.h"
#include "passes.h"
#include "settle.h"
#include "weighted_sum.h"

namespace geodiff {
namespace {

constexpr int64_t kSpareTop = 16;  // rows kept beyond topk, so that the exact order can be settled in float64
constexpr int64_t kHeavy = 64;     // rows kept with float32 logits, for `settle`

int64_t tops_wanted(const Request& request, bool integer) {
    return std::max(request.topk > 0 ? request.topk + kSpareTop : 0, integer ? 0 : kHeavy);
}

struct Share {  // what one piece of the rows adds to every answer
    std::vector<Online> states;
    std::vector<Top> tops;
    WeightedSum two, three;  // of the first queries and of the others, by the digits of their weights
    int64_t with_two;

    void set(int64_t i, const double* p, double rescale) {
        if (i < with_two)
            two.set(i, p, rescale, states[size_t(i)]);
        else
            three.set(i - with_two, p, rescale, states[size_t(i)]);
    }
    void merge_into(int64_t i, double scale, double* mean) const {
        i < with_two ? two.merge_into(i, scale, mean) : three.merge_into(i - with_two, scale, mean);
    }
};

// Joins what the pieces add to query i; false if the error bound exceeds the contract.
bool finish(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, const Logits& logits,
            const std::vector<std::optional<Share>>& shares, int64_t i, int64_t query, Precision precision,
            Answer& answer) {
    Online all{-1e308, 0, 0, 0, 0, 0, 0};
    for (const auto& s : shares) all.max = std::max(all.max, s->states[size_t(i)].max);
    double* mean = answer.mean + query * rows.d;
    std::fill(mean, mean + rows.d, 0.0);
    for (const auto& s : shares) {
        const Online& o = s->states[size_t(i)];
        if (!(o.sum > 0)) continue;
        const double scale = std::exp(o.max - all.max);
        all.sum += o.sum * scale;
        all.sum_l += (o.sum_l + (o.max - all.max) * o.sum) * scale;
        all.sum_2 += o.sum_2 * scale * scale;
        all.sum_h += o.sum_h * scale;
        all.sum_q += o.sum_q * scale;
        all.noise += o.noise * scale * scale;
        s->merge_into(i, scale, mean);
    }
    for (int64_t k = 0; k < rows.d; ++k) mean[k] /= all.sum_q;

    const double sigma = request.sigma[query];
    double model = 0;  // |r| in model units, times `unit`
    for (int64_t k = 0; k < rows.d; ++k) model += (mean[k] + stats.shift) * (mean[k] + stats.shift);
    const double allowed = request.tol * std::max(std::sqrt(model), least_scale(stats));
    const double length = norm(mean, rows.d), away = length + stats.mean_norm;  // >= |r - mean of the data|
    DenseErrors e{};
    e.query_step = logits.query_step(i);
    e.logit_noise = logits.logit_noise(i);
    e.weight_noise = all.noise / (all.sum_q * all.sum_q);
    e.weight = 1;
    e.trace = std::max(0.0, 2 * all.sum_h / all.sum - length * length);
    e.concentration = all.sum_2 / (all.sum * all.sum);
    e.length = length;
    e.spread = std::sqrt(stats.mean_square + std::min(away * away, stats.radius * stats.radius));
    const auto good = [&] { return dense_error(e, sigma) <= allowed && dense_log_error(e, sigma) <= kLogError; };
    Top nearest(tops_wanted(request, logits.integer()));
    for (const auto& s : shares) nearest.merge(s->tops[size_t(i)]);
    if (!good()) {
        Rest rest;
        const double cut = cutoff(stats, rows.n, request.tol);
        if (logits.integer() || !settle(kernels, rows, stats, request, query, nearest, cut, all, mean, rest))
            return false;
        e.weight = rest.weight;
        e.trace = rest.trace;
        e.concentration = rest.largest;
        if (!good()) return false;
    }

    // log_sum is wanted for the full -|x - v|^2 / (2 sigma^2): put the common term back.
    const double x2 = norm(request.x + query * rows.d, rows.d);
    answer.log_sum[query] = all.max + std::log(all.sum) - 0.5 * x2 * x2 / (sigma * sigma);
    answer.entropy[query] = std::log(all.sum) - all.sum_l / all.sum;
    answer.ess[query] = all.sum * all.sum / all.sum_2;
    answer.trace[query] = std::max(0.0, 2 * all.sum_h / all.sum - std::pow(norm(mean, rows.d), 2));
    answer.path[query] = int8_t(precision == Precision::fine ? Path::dense_fine : Path::dense);
    if (request.topk > 0) {
        Top settled(request.topk);
        std::vector<int64_t> list;
        nearest.rows(list);
        for (int64_t row : list)
            settled.offer(-0.5 * kernels.distance(request.x + query * rows.d, rows.row(row), rows.dtype, rows.d) /
                                  (sigma * sigma) +
                              request.bias_at(query, row),
                          row);
        settled.write(answer.log_sum[query], answer.index + query * request.topk, answer.weight + query * request.topk);
    }
    return true;
}

}  // namespace

ByDigits dense(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
               const ByDigits& by_digits, Precision precision, Answer& answer) {
    std::vector<int64_t> which = by_digits.two;
    which.insert(which.end(), by_digits.three.begin(), by_digits.three.end());
    const int64_t count = int64_t(which.size()), with_two = int64_t(by_digits.two.size());
    const int64_t tile = tile_rows(rows, kernels, count);
    if (count == 0) return {};
    const double cut = cutoff(stats, rows.n, request.tol);
    const Logits logits(kernels, rows, stats, request, which.data(), count, precision);
    const int64_t tops = tops_wanted(request, logits.integer());
    const Pieces pieces = pieces_with_sums(rows, count, tile, request.threads);
    std::vector<std::optional<Share>> shares(size_t(pieces.count()));
    pieces.each([&](auto&& next) {
        Logits::Work work = logits.work(tile);
        Buffer<double> p(tile);
        for (int piece = next(); piece >= 0; piece = next()) {
            const Range range = pieces[piece];
            Share& mine = shares[size_t(piece)].emplace(
                Share{std::vector<Online>(size_t(count), Online{-1e308, 0, 0, 0, 0, 0, 0}),
                      std::vector<Top>(size_t(count), Top(tops)), WeightedSum(kernels, rows, with_two, tile, 2),
                      WeightedSum(kernels, rows, count - with_two, tile, 3), with_two});
            for (int64_t first = range.begin; first < range.end; first += tile) {
                const int R = int(std::min(tile, range.end - first));
                logits.load(work, first, R);
                mine.two.begin(R, uint64_t(first / tile));
                mine.three.begin(R, uint64_t(first / tile));
                for (int64_t b = 0; b < logits.blocks(); ++b) {
                    logits.block(work, first, R, b, tile);
                    for (int64_t q = 0; q < logits.block_size(b); ++q) {
                        const int64_t i = b * kQueryBlock + q;
                        const double* l = work.logits.data() + q * tile;
                        Online& state = mine.states[size_t(i)];
                        mine.tops[size_t(i)].offer(l, first, R);
                        double rescale = 1;
                        // A tile may be skipped only if it cannot matter even with the logits' error.
                        if (kernels.softmax(l, stats.half_norm + first, R, cut + logits.gap_error(i), &state, p.data(),
                                            &rescale))
                            mine.set(i, p.data(), rescale);
                    }
                }
                const int64_t following = first + tile;
                const bool whole = following + R <= range.end;  // prefetch only addresses of this piece
                const void* ahead = whole ? rows.row(following) : nullptr;
                mine.two.add(first, work.rows, work.ld, ahead);
                mine.three.add(first, work.rows, work.ld, with_two > 0 ? nullptr : ahead);
            }
        }
    });
    std::vector<uint8_t> done(size_t(count), 0);
    parallel(int(std::min<int64_t>(request.threads, count)), [&](int t) {
        const Range mine = share(count, 1, t, int(std::min<int64_t>(request.threads, count)));
        for (int64_t i = mine.begin; i < mine.end; ++i)
            done[size_t(i)] =
                finish(kernels, rows, stats, request, logits, shares, i, which[size_t(i)], precision, answer);
    });
    ByDigits open;
    for (int64_t i = 0; i < count; ++i)
        if (!done[size_t(i)]) (i < with_two ? open.two : open.three).push_back(which[size_t(i)]);
    return open;
}

}  // namespace geodiff
