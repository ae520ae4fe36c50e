#include "refine.h"

#include <algorithm>
#include <cmath>

#include "../runtime/buffer.h"
#include "tiles.h"
#include "top.h"

namespace geodiff {
namespace {

constexpr int64_t kPairs = 32;    // distances a thread takes at a time
constexpr int64_t kQueries = 32;  // float64 sums of so many queries per thread at a time
constexpr int64_t kTile = 16;     // rows that stay in L1 while those queries look at them

constexpr double kCancelled = 1e-9;  // of |x - r|^2: a trace that is no more needs another look at the rows

// E_w |v - r|^2 = E_w |x - v|^2 - |x - r|^2, given E_w |x - v|^2 / (2 sigma^2); in float64 the difference is off by
// some 1e-16 |x - v|^2. Where little is left of it, by its definition, over `list` or all rows (null).
double trace_of(const Request& request, int64_t q, const double* mean, const Online& sums,
                const std::vector<int64_t>* list) {
    const int64_t d = request.rows.d, count = list ? int64_t(list->size()) : request.rows.n;
    const double moved = request.kernels.vectors.squared_distance(request.query(q), mean, d);
    const double trace = 2 * request.sigma[q] * request.sigma[q] * sums.sum_h / sums.sum - moved;
    if (trace > kCancelled * moved) return trace;
    double again = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t row = list ? (*list)[size_t(i)] : i;
        const double p = std::exp(request.logit(q, row) - sums.max) / sums.sum;
        if (p > 0) again += p * request.kernels.distance(mean, request.rows.row(row), request.rows.dtype, d);
    }
    return again;
}

// Answer of query q from its online sums, whose sum_h is of p |x - v|^2 / (2 sigma^2), over `list` or all rows (null);
// `mean` holds sum p v. Rows more than `cut` below the best were left out: n e^-cut of the weight at most.
void write(const Request& request, int64_t q, const Online& sums, Top& top, const std::vector<int64_t>* list,
           double cut, Path path, Answer& answer) {
    double* mean = answer.mean + q * request.rows.d;
    request.kernels.vectors.centre_f64(mean, request.rows.d, 1 / sums.sum, 0, mean);
    if (answer.trace) answer.trace[q] = trace_of(request, q, mean, sums, list);
    answer.log_sum[q] = sums.max + std::log(sums.sum);
    answer.entropy[q] = std::log(sums.sum) - sums.sum_l / sums.sum;
    answer.ess[q] = sums.sum * sums.sum / sums.sum_2;
    answer.path[q] = int8_t(path);
    answer.log_error[q] = double(request.rows.n) * std::exp(-cut);
    answer.mean_error[q] = answer.log_error[q] * 2 * request.stats.scale.radius;
    top.write(sums.max, sums.sum, answer.index + q * request.topk, answer.weight + q * request.topk);
}

// One query's running sums over rows that come one by one.
struct Running {
    Online sums;
    Top top;

    // Takes a row with logit l; sum [d] is scaled where a larger logit than all before comes.
    void take(const Request& request, int64_t q, int64_t row, double l, double cut, double* sum) {
        top.offer(l, row);
        if (l < sums.max - cut) return;
        if (l > sums.max) {
            const double step = sums.max - l, scale = sums.sum > 0 ? std::exp(step) : 0;
            sums.sum_l = sums.sum > 0 ? (sums.sum_l + step * sums.sum) * scale : 0;
            sums.sum *= scale;
            sums.sum_2 *= scale * scale;
            sums.sum_h *= scale;
            for (int64_t k = 0; k < request.rows.d; ++k) sum[k] *= scale;
            sums.max = l;
        }
        const double p = std::exp(l - sums.max);
        sums.sum += p;
        sums.sum_l += p * (l - sums.max);
        sums.sum_2 += p * p;
        sums.sum_h += p * (request.prior_at(q, row) - l);
        request.add_row(p, row, sum);
    }
};

}  // namespace

void refine(const Request& request, const std::vector<int64_t>& which, const std::vector<std::vector<int64_t>>& lists,
            double cut, Path path, Answer& answer) {
    // Distances are shared out pair by pair, since one query may hold nearly all of them; the sums query by query.
    std::vector<int64_t> start(which.size() + 1, 0);
    for (size_t i = 0; i < which.size(); ++i) start[i + 1] = start[i] + int64_t(lists[i].size());
    const int64_t total = start.back();
    request.read(total);
    Buffer<double> logits(total);
    const int threads = threads_for(total * request.rows.d, request.threads);
    one_by_one((total + kPairs - 1) / kPairs, threads, [&](int64_t piece) {
        const int64_t a = piece * kPairs;
        size_t i = size_t(std::upper_bound(start.begin(), start.end(), a) - start.begin()) - 1;
        for (int64_t j = a; j < std::min(a + kPairs, total); ++j) {
            while (j >= start[i + 1]) ++i;
            logits[j] = request.logit(which[i], lists[i][size_t(j - start[i])]);
        }
    });
    one_by_one(int64_t(which.size()), threads, [&](int64_t i) {
        weigh(request, which[size_t(i)], lists[size_t(i)], logits.data() + start[size_t(i)], cut, path, answer);
    });
}

void weigh(const Request& request, int64_t q, const std::vector<int64_t>& list, const double* l, double cut, Path path,
           Answer& answer) {
    double* mean = answer.mean + q * request.rows.d;
    std::fill(mean, mean + request.rows.d, 0.0);
    Running running{{}, Top(request.topk)};
    running.sums.max = *std::max_element(l, l + list.size());  // nothing is ever scaled
    for (size_t j = 0; j < list.size(); ++j) running.take(request, q, list[j], l[j], cut, mean);
    write(request, q, running.sums, running.top, &list, cut, path, answer);
}

void exact(const Request& request, const std::vector<int64_t>& which, double cut, Answer& answer) {
    const Rows& rows = request.rows;
    const int threads = threads_for(int64_t(which.size()) * rows.n * rows.d, request.threads);
    struct Share {
        std::vector<Running> running;
        Buffer<double> sums;  // [queries, d]
    };
    for (size_t base = 0; base < which.size(); base += kQueries) {
        const int64_t count = std::min<int64_t>(kQueries, int64_t(which.size() - base));
        const auto nothing = [&] {
            return Share{std::vector<Running>(size_t(count), Running{{}, Top(request.topk)}),
                         Buffer<double>(count * rows.d, true)};
        };
        const auto visit = [&](int, Share& share, const Tile& t) {
            for (int64_t i = 0; i < count; ++i)
                for (int64_t row = t.first; row < t.first + t.R; ++row) {
                    const int64_t q = which[base + size_t(i)];
                    share.running[size_t(i)].take(request, q, row, request.logit(q, row), cut,
                                                  share.sums.data() + i * rows.d);
                }
        };
        const Pieces pieces(rows.n, 1, threads, false);
        const auto shares = over_tiles(rows, pieces, kTile, [] { return 0; }, nothing, visit);
        request.read(rows.n);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t q = which[base + size_t(i)];
            double* mean = answer.mean + q * rows.d;
            std::fill(mean, mean + rows.d, 0.0);
            Top top(request.topk);
            for (const Share& s : shares) top.merge(s.running[size_t(i)].top);
            const Online all = join(
                shares, [&](const Share& s) -> const Online& { return s.running[size_t(i)].sums; },
                [&](const Share& s, double scale) {
                    const double* sum = s.sums.data() + i * rows.d;
                    for (int64_t k = 0; k < rows.d; ++k) mean[k] += scale * sum[k];
                });
            write(request, q, all, top, nullptr, cut, Path::exact, answer);
        }
    }
}

}  // namespace geodiff
