#include "dense.h"

#include <algorithm>
#include <cmath>

#include "../products/bounds.h"
#include "../products/weighted_sum.h"
#include "drawn.h"
#include "plan.h"
#include "settle.h"
#include "tiles.h"
#include "top.h"

namespace geodiff {
namespace {

constexpr int64_t kSpareTop = 16;  // rows kept beyond topk, so that the exact order can be settled in float64
constexpr int64_t kHeavy = 64;     // rows kept with float32 logits, for `settle`

struct Share {  // what one piece of the rows adds to every answer
    std::vector<Online> states;
    std::vector<Top> tops, drawn;
    WeightedSum coarser, finer;  // of the first queries and of the others, by the bits of their weights
    int64_t with_coarser;

    void set(int64_t i, const double* p, double rescale) {
        if (i < with_coarser)
            coarser.set(i, p, rescale, states[size_t(i)]);
        else
            finer.set(i - with_coarser, p, rescale, states[size_t(i)]);
    }
    void set(int64_t i, const float* w, double rescale) {
        i < with_coarser ? coarser.set(i, w, rescale) : finer.set(i - with_coarser, w, rescale);
    }
    bool integer(int64_t i) const { return i < with_coarser ? coarser.integer() : finer.integer(); }
    void add_to(Pooled& pooled, int64_t i, double factor) const {
        i < with_coarser ? pooled.add(coarser, i, factor) : pooled.add(finer, i - with_coarser, factor);
    }
};

class Dense {
  public:
    // `which`: those of `by_bits`, one after the other.
    Dense(const Request& request, const std::vector<int64_t>& which, const ByBits& by_bits, Precision precision)
        : request_(request),
          which_(which),
          with_coarser_(int64_t(by_bits.coarser.size())),
          coarser_bits_(by_bits.coarser_bits),
          finer_bits_(by_bits.finer_bits),
          count_(int64_t(which.size())),
          precision_(precision),
          tile_(tile_rows(request, count_)),
          logits_(request, which.data(), count_, precision),
          settles_(by_bits.heaviest && !logits_.integer()),
          tops_(std::max(request.topk > 0 ? request.topk + kSpareTop : 0, settles_ ? kHeavy : 0)) {}

    void pass() {
        const auto worker = [&] {
            return Worker{logits_.work(tile_), Buffer<double>(tile_), Buffer<double>(tile_), Buffer<float>(tile_)};
        };
        const auto nothing = [&] {
            return Share{std::vector<Online>(size_t(count_)),
                         std::vector<Top>(size_t(count_), Top(tops_)),
                         std::vector<Top>(size_t(count_), Top(logits_.shaped() ? kDrawn + 1 : 0)),
                         WeightedSum(request_, with_coarser_, tile_, coarser_bits_),
                         WeightedSum(request_, count_ - with_coarser_, tile_, finer_bits_),
                         with_coarser_};
        };
        shares_ = over_tiles(request_.rows, pieces_with_sums(request_, count_, tile_), tile_, worker, nothing,
                             [&](Worker& w, Share& s, const Tile& t) { visit(w, s, t); });
        logits_.commit();
    }

    bool shaped() const { return logits_.shaped(); }
    // Joins what the pieces add to query i; false if the error bound exceeds the contract.
    bool finish(int64_t i, Pooled& pooled, Answer& answer) const;

  private:
    struct Worker {
        Logits::Work work;
        Buffer<double> p, chances;
        Buffer<float> w;
    };

    void visit(Worker& worker, Share& mine, const Tile& t) const {
        double *p = worker.p.data(), *chances = worker.chances.data();
        float* w = worker.w.data();
        const double cut = request_.cut(), *h = request_.stats.half_norm + t.first;
        mine.coarser.begin(t.R, t.seed);
        mine.finer.begin(t.R, t.seed);
        logits_.over(worker.work, t.first, t.R, tile_, [&](int64_t i, const double* l) {
            mine.tops[size_t(i)].offer(l, t.first, t.R);
            if (logits_.shaped()) {
                const float* chance = request_.shaping.chance + t.first;
                for (int r = 0; r < t.R; ++r) chances[r] = l[r] + double(chance[r]);
                mine.drawn[size_t(i)].offer(chances, t.first, t.R);
            }
            double rescale = 1;
            // A tile may be skipped only if it cannot matter even with the logits' error.
            Online& state = mine.states[size_t(i)];
            const double down_to = cut + logits_.gap_error(i);
            if (mine.integer(i) && request_.kernels.softmax(l, h, t.R, down_to, &state, p, &rescale))
                mine.set(i, p, rescale);
            else if (!mine.integer(i) && request_.kernels.softmax_f32(l, h, t.R, down_to, &state, w, &rescale))
                mine.set(i, w, rescale);
        });
        mine.coarser.add(t.first, t.ahead);
        mine.finer.add(t.first, with_coarser_ > 0 ? nullptr : t.ahead);
    }

    const Request& request_;
    const std::vector<int64_t>& which_;
    const int64_t with_coarser_;
    const int coarser_bits_, finer_bits_;
    const int64_t count_;
    const Precision precision_;
    const int64_t tile_;
    const Logits logits_;
    const bool settles_;
    const int64_t tops_;
    std::vector<Share> shares_;
};

bool Dense::finish(int64_t i, Pooled& pooled, Answer& answer) const {
    const int64_t q = which_[size_t(i)], d = request_.rows.d;
    const Stats& stats = request_.stats;
    double* mean = answer.mean + q * d;
    pooled.clear();
    Online all = join(
        shares_, [&](const Share& s) -> const Online& { return s.states[size_t(i)]; },
        [&](const Share& s, double scale) { s.add_to(pooled, i, scale); });
    const Joined found = pooled.join(request_.kernels, d, 1 / all.sum_q, stats.shift, mean);
    double square = found.square;

    const double sigma = request_.sigma[q];
    const double allowed = stats.scale.allowed(std::sqrt(found.model_square), request_.tol);
    const double length = std::sqrt(square), away = length + stats.mean_norm;  // >= |r - mean of the data|
    DenseErrors e{};
    e.query_step = logits_.query_step(i);
    e.logit_noise = logits_.logit_noise(i);
    e.weight_noise = all.noise / (all.sum_q * all.sum_q);
    if (logits_.shaped()) {
        Top drawn(kDrawn + 1);
        for (const Share& s : shares_) drawn.merge(s.drawn[size_t(i)]);
        e.measured = error_of_logits(request_, q, drawn, all, mean);
        double missing = 0;  // in every logit, on average: it is known
        for (int64_t k = 0; k < d; ++k) missing += double(logits_.lost(i)[k]) * mean[k];
        all.max += missing / (sigma * sigma);
    }
    e.weight = 1;
    e.trace = std::max(0.0, 2 * all.sum_h / all.sum - length * length);
    e.concentration = all.sum_2 / (all.sum * all.sum);
    e.length = logits_.shaped() ? 0 : length;
    e.spread = std::sqrt(stats.mean_square + std::min(away * away, stats.scale.radius * stats.scale.radius));
    const auto good = [&] { return dense_error(e, sigma) <= allowed && dense_log_error(e, sigma) <= request_.log_tol; };
    Top nearest(tops_);
    for (const Share& s : shares_) nearest.merge(s.tops[size_t(i)]);
    if (!good()) {
        Rest rest;
        if (!settles_ || !settle(request_, q, nearest, all, mean, rest)) return false;
        e.weight = rest.weight;
        e.trace = rest.trace;
        e.concentration = rest.largest;
        square = request_.kernels.vectors.dot(mean, mean, d);
        if (!good()) return false;
    }

    // log_sum is wanted for the full -|x - v|^2 / (2 sigma^2): put the common term back.
    const double x2 = logits_.length(i);
    answer.log_sum[q] = all.max + std::log(all.sum) - 0.5 * x2 * x2 / (sigma * sigma);
    answer.entropy[q] = std::log(all.sum) - all.sum_l / all.sum;
    answer.ess[q] = all.sum * all.sum / all.sum_2;
    if (answer.trace) answer.trace[q] = std::max(0.0, 2 * all.sum_h / all.sum - square);
    answer.path[q] = int8_t(precision_ == Precision::fine ? Path::dense_fine : Path::dense);
    answer.mean_error[q] = dense_error(e, sigma);
    answer.log_error[q] = dense_log_error(e, sigma);
    if (request_.topk > 0) {
        Top settled(request_.topk);
        for (const Top::Entry& entry : nearest.entries()) settled.offer(request_.logit(q, entry.row), entry.row);
        settled.write(answer.log_sum[q], answer.index + q * request_.topk, answer.weight + q * request_.topk);
    }
    return true;
}

}  // namespace

Open dense(const Request& request, const ByBits& by_bits, Precision precision, Answer& answer) {
    std::vector<int64_t> which = by_bits.coarser;
    append(which, by_bits.finer);
    const int64_t count = int64_t(which.size()), with_coarser = int64_t(by_bits.coarser.size());
    if (count == 0) return {};
    Dense pass(request, which, by_bits, precision);
    pass.pass();
    request.read(request.rows.n);
    std::vector<uint8_t> done(size_t(count), 0);
    const int threads = int(std::min<int64_t>(request.threads, count));
    parallel(threads, [&](int t) {
        const Range mine = share(count, 1, t, threads);
        Pooled pooled;
        for (int64_t i = mine.begin; i < mine.end; ++i) done[size_t(i)] = pass.finish(i, pooled, answer);
    });
    Open open;
    open.shaped = pass.shaped();
    for (int64_t i = 0; i < count; ++i)
        if (!done[size_t(i)]) (i < with_coarser ? open.coarser : open.finer).push_back(which[size_t(i)]);
    return open;
}

}  // namespace geodiff
