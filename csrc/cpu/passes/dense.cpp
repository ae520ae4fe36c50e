#include "dense.h"

#include <algorithm>
#include <cmath>

#include "../products/bounds.h"
#include "../products/weighted_sum.h"
#include "drawn.h"
#include "heavy.h"
#include "plan.h"
#include "settle.h"
#include "tiles.h"
#include "top.h"

namespace geodiff {
namespace {

constexpr int64_t kSpareTop = 16;   // rows kept beyond topk, so that the exact order can be settled in float64
constexpr int64_t kHeavy = 64;      // rows kept with float32 logits, for `settle`
constexpr int kFineBits = 24;       // of weights, beside which none is heavy
constexpr int64_t kTogether = 16;   // queries that directions serve at a time
constexpr int kLooked = 32;         // rows of which the largest is looked for at a time
constexpr double kLeastLeft = 0.1;  // of what is allowed, for the rounding of weights

struct Share {  // what one piece of the rows adds to every answer
    std::vector<Online> states;
    std::vector<Top> tops, drawn;
    std::vector<HeavyRows> heavy;
    WeightedSum coarser, finer;  // of the first queries and of the others, by the bits of their weights
    int64_t with_coarser;

    void set(int64_t i, const double* p, double rescale) {
        if (i < with_coarser)
            coarser.set(i, p, rescale, states[size_t(i)]);
        else
            finer.set(i - with_coarser, p, rescale, states[size_t(i)]);
    }
    float* weights(int64_t i) { return i < with_coarser ? coarser.weights(i) : finer.weights(i - with_coarser); }
    void take(int64_t i, double rescale) {
        i < with_coarser ? coarser.take(i, rescale) : finer.take(i - with_coarser, rescale);
    }
    WeightedSum::Rest rest(int64_t i) const {
        return i < with_coarser ? coarser.rest(i) : finer.rest(i - with_coarser);
    }
    double longest(int64_t i) const { return i < with_coarser ? coarser.longest(i) : finer.longest(i - with_coarser); }
    bool carries(int64_t i) const { return i < with_coarser ? coarser.carries() : finer.carries(); }
    bool integer(int64_t i) const { return i < with_coarser ? coarser.integer() : finer.integer(); }
    double units(int64_t i) const { return i < with_coarser ? coarser.units() : finer.units(); }
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
          logits_(request, which.data(), count_, precision, by_bits.exact),
          settles_(by_bits.heaviest && !logits_.integer()),
          tops_(std::max(request.topk > 0 ? request.topk + kSpareTop : 0, settles_ ? kHeavy : 0)),
          carried_(by_bits.carried) {}

    void pass() {
        const auto worker = [&] {
            return Worker{logits_.work(tile_), Buffer<double>(tile_), Buffer<float>(tile_),
                          std::vector<Top::Entry>(size_t(count_), Top::kNothing)};
        };
        const auto nothing = [&] {
            return Share{std::vector<Online>(size_t(count_)),
                         std::vector<Top>(size_t(count_), Top(tops_)),
                         std::vector<Top>(size_t(count_), Top(logits_.shaped() ? kDrawn + 1 : 0)),
                         std::vector<HeavyRows>(size_t(count_)),
                         weighted_sum(with_coarser_, coarser_bits_),
                         weighted_sum(count_ - with_coarser_, finer_bits_),
                         with_coarser_};
        };
        shares_ = over_tiles(request_.rows, pieces_with_sums(request_, count_, tile_), tile_, worker, nothing,
                             [&](Worker& w, Share& s, const Tile& t) { visit(w, s, t); });
        logits_.commit();
    }

    bool shaped() const { return logits_.shaped(); }
    // What the digits of weights have lost of queries [begin, end) and coordinates say: [end - begin, padded(d)], in
    // the order of sums.
    Buffer<float> carried(int64_t begin, int64_t end) const;
    bool carries() const { return bool(carried_); }
    bool carries(int64_t i) const { return carries() && shares_.front().carries(i); }
    // Joins what the pieces add to query i, and what is `carried` of it, if anything; false if the error bound exceeds
    // the contract.
    bool finish(int64_t i, const float* carried, Pooled& pooled, Answer& answer) const;

  private:
    struct Worker {
        Logits::Work work;
        Buffer<double> p;
        Buffer<float> away;             // |v - mean|^2 / 2 of the rows of a tile
        std::vector<Top::Entry> least;  // of the rows drawn so far, whichever piece they are of
    };

    WeightedSum weighted_sum(int64_t count, int bits) const {
        return {request_, count, tile_, {bits, false, carried_, count_ - count}};
    }
    const Online& state(const Share& s, int64_t i) const { return s.states[size_t(i)]; }
    Joined add(const Pooled& heavy, double factor, double* mean) const;
    // What float32 loses of the sums of query i, whose r has such a `square`, and which were no longer on the way.
    double error_of_sums(int64_t i, double square, double longest, const DenseErrors& e) const;
    // Of the rows of a tile those of the largest l + chance. `least`: what this thread knows of it, of all its pieces.
    // Which these were changes what is kept of a piece, but not which are the largest of all.
    void draw(const double* l, const Tile& t, Top& drawn, Top::Entry& least) const {
        const float* chance = request_.shaping.chance + t.first;
        drawn.rise(least);
        for (int r = 0; r < t.R; r += kLooked) {
            const int R = std::min(kLooked, t.R - r);
            if (request_.kernels.reach(l + r, chance + r, 1, 0, R).upper < drawn.least().logit) continue;
            for (int i = r; i < r + R; ++i) drawn.offer(l[i] + double(chance[i]), t.first + i);
        }
        least = drawn.least();
    }
    int bits(int64_t i) const { return i < with_coarser_ ? coarser_bits_ : finer_bits_; }
    // Weights in 24 bits are rarely less than a unit, and where they are, fewer bits lose less than those say.
    bool tells_rounding(int64_t i) const { return shares_.front().integer(i) && bits(i) < kFineBits && !carries(); }
    // What rounding the weights of query i has taken, of what other errors leave it, beside what was guessed.
    void tell_rounding(DenseErrors e, int64_t i, double allowed) const {
        Known::Entry& entry = request_.known->entry(which_[size_t(i)]);
        const double taken = weights_error(e) * shares_.front().units(i);
        e.weight_noise = 0;
        const double others = dense_error(e, request_.sigma[which_[size_t(i)]]) / allowed;
        const double left = std::sqrt(std::max(kLeastLeft, 1 - others * others));
        if (entry.rounding_guess > 0) entry.rounding_ratio = taken / (left * entry.rounding_guess);
    }
    void visit(Worker& worker, Share& mine, const Tile& t) const {
        double* p = worker.p.data();
        const double cut = request_.cut(), *h = request_.stats.half_away + t.first;
        float* away = worker.away.data();
        for (int r = 0; r < t.R; ++r) away[r] = float(h[r]);
        mine.coarser.begin(t.first, t.R, t.seed);
        mine.finer.begin(t.first, t.R, t.seed);
        logits_.over(worker.work, t.first, t.R, tile_, [&](int64_t i, const double* l) {
            mine.tops[size_t(i)].offer(request_.kernels.vectors, l, t.first, t.R);
            if (logits_.shaped()) draw(l, t, mine.drawn[size_t(i)], worker.least[size_t(i)]);
            double rescale = 1;
            // A tile may be skipped only if it cannot matter even with the logits' error.
            Online& state = mine.states[size_t(i)];
            const double down_to = cut + logits_.gap_error(i);
            if (!mine.integer(i)) {
                float* w = mine.weights(i);
                if (request_.kernels.softmax_f32(l, away, t.R, down_to, &state, w, &rescale)) mine.take(i, rescale);
                return;
            }
            HeavyRows& heavy = mine.heavy[size_t(i)];
            if (!request_.kernels.softmax(l, h, t.R, down_to, &state, p, &rescale)) {
                heavy.pass_over(t.R);
                return;
            }
            if (bits(i) < kFineBits) heavy.take(request_, p, t.first, t.R, state, rescale);
            mine.set(i, p, rescale);
        });
        WeightedSum::add_both(mine.coarser, mine.finer, t.ahead);
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
    const Shaping carried_;
    std::vector<Share> shares_;
};

// sum eta_i (mean + sum_j step_j (b_ij - 128) u_j) of the rows of all pieces.
Buffer<float> Dense::carried(int64_t begin, int64_t end) const {
    const int64_t d = request_.rows.d, dp = padded(d), k = carried_.count(), count = end - begin;
    const uint8_t* order = request_.integers()->layout.column_of_slot;
    Buffer<float> along(count * k, true), keep(count), sums(count * dp, true), ordered(count * dp);
    std::vector<double> total(size_t(count), 0.0);
    for (int64_t i = 0; i < count; ++i) {
        keep[i] = 1;
        if (!carries(begin + i)) continue;
        join(
            shares_, [&](const Share& s) -> const Online& { return state(s, begin + i); },
            [&](const Share& s, double scale) {
                const WeightedSum::Rest rest = s.rest(begin + i);
                total[size_t(i)] += scale * rest.sum;
                for (int64_t j = 0; j < k; ++j) {
                    const int64_t to = j / kPad * kPad + order[j % kPad];
                    along[i * k + to] += float(scale * double(rest.at(j)) * carried_.step[to]);
                }
            });
    }
    request_.kernels.sum_f32(carried_.directions, DType::f32, d, int(k), along.data(), k, keep.data(), int(count),
                             sums.data(), dp, nullptr);
    for (int64_t i = 0; i < count; ++i)
        for (int64_t at = 0; at < dp; ++at) {
            const int64_t column = at / kPad * kPad + order[at % kPad];
            const double mean = column < d ? carried_.mean[column] : 0;
            ordered[i * dp + at] = sums[i * dp + column] + float(total[size_t(i)] * mean);
        }
    return ordered;
}

// mean += factor times the sums of heavy rows
Joined Dense::add(const Pooled& heavy, double factor, double* mean) const {
    const VectorLoops& vectors = request_.kernels.vectors;
    const int64_t d = request_.rows.d;
    std::vector<double> more(static_cast<size_t>(d));
    heavy.join(request_.kernels, d, factor, 0, more.data());
    for (int64_t k = 0; k < d; ++k) mean[k] += more[size_t(k)];
    return {vectors.dot(mean, mean, d), vectors.shifted_square(mean, request_.stats.shift, d)};
}

double Dense::error_of_sums(int64_t i, double square, double longest, const DenseErrors& e) const {
    const double tiles = std::ceil(double(request_.rows.n) / double(tile_)), pieces = double(shares_.size());
    const double rows = shares_.front().integer(i) ? 0 : double(std::min(tile_, request_.rows.n));
    const double usual = std::sqrt(square) + std::sqrt(e.trace * e.concentration);
    // Of one tile nothing is seen on the way; no part of a sum is longer than rows are, root mean square.
    const double length = std::max(usual, tiles > 1 ? longest : std::sqrt(square + e.trace));
    Additions additions = additions_of(tiles, pieces, rows);
    additions.copies = request_.stats.alike;
    additions.repeated = additions.copies > 1 ? e.concentration : 0;
    return sum_error(additions, length);
}

bool Dense::finish(int64_t i, const float* carried, Pooled& pooled, Answer& answer) const {
    const int64_t q = which_[size_t(i)], d = request_.rows.d;
    const Stats& stats = request_.stats;
    double* mean = answer.mean + q * d;
    pooled.clear();
    double unsaid = 0, rounding = 0;  // the variances that carried weights leave
    double longest = 0;               // of the sums of pieces, together
    Pooled heavy;
    Online all = join(
        shares_, [&](const Share& s) -> const Online& { return state(s, i); },
        [&](const Share& s, double scale) {
            s.add_to(pooled, i, scale);
            longest += scale * s.longest(i);
            const HeavyRows& apart = s.heavy[size_t(i)];
            if (apart) heavy.add(apart.sum(), nullptr, scale * apart.factor());
            if (!carried) return;
            unsaid += scale * scale * s.rest(i).unsaid;
            rounding += scale * scale * s.rest(i).rounding;
        });
    if (carried) pooled.add(carried, request_.integers()->layout.column_of_slot, 1);
    for (const Share& s : shares_) all.sum_q += s.heavy[size_t(i)].weight() * std::exp(state(s, i).max - all.max);
    Joined found = pooled.join(request_.kernels, d, 1 / all.sum_q, stats.shift, mean);
    if (!heavy.empty()) found = add(heavy, 1 / all.sum_q, mean);

    const double sigma = request_.sigma[q];
    const double allowed = stats.scale.allowed(std::sqrt(found.model_square), request_.tol);
    const double length = std::sqrt(found.square), away = length + stats.mean_norm;  // >= |r - mean of the data|
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
    // About the mean of the data, which r is nearer to than to 0. What is left of a difference may be its error alone.
    const double far = std::sqrt(request_.kernels.vectors.squared_distance(mean, stats.mean, d));
    e.trace = std::max(0.0, 2 * all.sum_h / all.sum - far * far);
    e.concentration = stats.with_copies(all.sum_2 / (all.sum * all.sum));
    e.length = logits_.shaped() ? 0 : length;
    e.spread = std::sqrt(stats.mean_square + std::min(away * away, stats.scale.radius * stats.scale.radius));
    if (carried) {  // what is left of a row, and all of it for what the digit of the rest is rounded by
        e.weight_noise = (unsaid + rounding * e.spread * e.spread) / (all.sum_q * all.sum_q);
        e.spread = 1;
    }
    e.sums = error_of_sums(i, found.square, longest / all.sum_q, e);
    if (request_.known && tells_rounding(i)) tell_rounding(e, i, allowed);
    double trace = e.trace;
    const double off = trace_error(e, far);
    e.trace += off;
    const auto good = [&] {
        return dense_error(e, sigma) <= allowed && dense_log_error(e, sigma) <= request_.log_tol &&
               (!answer.trace || off <= allowed_of_trace(trace, sigma, d, request_.tol));
    };
    Top nearest(tops_);
    for (const Share& s : shares_) nearest.merge(s.tops[size_t(i)]);
    if (!good()) {
        Rest rest;
        if (!settles_ || !settle(request_, q, nearest, all, mean, rest)) return false;
        e.weight = rest.weight;
        e.trace = rest.trace + off;
        e.concentration = stats.with_copies(rest.largest);
        const double square = request_.kernels.vectors.squared_distance(mean, stats.mean, d);
        trace = std::max(0.0, 2 * all.sum_h / all.sum - square);
        if (!good()) return false;
    }

    if (request_.known) {
        Known::Entry& entry = request_.known->entry(q);
        entry.length = std::sqrt(found.model_square);
        entry.ess = all.sum * all.sum / all.sum_2;
    }
    // log_sum is wanted for the full -|x - v|^2 / (2 sigma^2): put the common term back.
    const double x2 = logits_.length(i);
    answer.log_sum[q] = all.max + std::log(all.sum) - 0.5 * x2 * x2 / (sigma * sigma);
    answer.entropy[q] = std::log(all.sum) - all.sum_l / all.sum;
    answer.ess[q] = all.sum * all.sum / all.sum_2;
    if (answer.trace) answer.trace[q] = trace;
    answer.path[q] = int8_t(precision_ == Precision::fine ? Path::dense_fine : Path::dense);
    answer.mean_error[q] = dense_error(e, sigma);
    answer.log_error[q] = dense_log_error(e, sigma);
    if (request_.topk > 0) {
        Top settled(request_.topk);
        for (const Top::Entry& entry : nearest.entries()) settled.offer(request_.logit(q, entry.row), entry.row);
        settled.write(answer.log_sum[q], 1, answer.index + q * request_.topk, answer.weight + q * request_.topk);
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
    const int64_t dp = padded(request.rows.d);
    parallel(threads, [&](int t) {
        const Range mine = share(count, 1, t, threads);
        Pooled pooled;
        for (int64_t begin = mine.begin; begin < mine.end; begin += kTogether) {
            const int64_t end = std::min(begin + kTogether, mine.end);
            const Buffer<float> carried = pass.carries() ? pass.carried(begin, end) : Buffer<float>();
            for (int64_t i = begin; i < end; ++i) {
                const float* of_query = pass.carries(i) ? carried.data() + (i - begin) * dp : nullptr;
                done[size_t(i)] = pass.finish(i, of_query, pooled, answer);
            }
        }
    });
    Open open;
    open.shaped = pass.shaped();
    for (int64_t i = 0; i < count; ++i)
        if (!done[size_t(i)]) (i < with_coarser ? open.coarser : open.finer).push_back(which[size_t(i)]);
    return open;
}

}  // namespace geodiff
