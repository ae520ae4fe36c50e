#include "covariance.h"

#include <algorithm>
#include <cmath>

#include "../products/bounds.h"
#include "../products/weighted_sum.h"
#include "plan.h"
#include "screen.h"
#include "spread.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr double kLeast = 0.01;  // smallest length of J v over |v| that the error is measured against

// Rows this far below the best may be dropped: csrc/cpu/README.md, "Covariances".
double covariance_cut(const Request& request, const Direction& direction, int64_t q) {
    const double R = request.stats.scale.radius, sigma = request.sigma[q], x_norm = request.length(q);
    const double span = direction.slope[q] == 0 ? 0 : 4 * R * (x_norm + request.stats.max_norm + R);
    return request.cut() + std::log1p((4 * R * R + span) / (sigma * sigma));
}

// One query over a list of rows (null: all n), in float64 and difference form.
void from_list(const Request& request, const Direction& direction, int64_t q, const std::vector<int64_t>* list,
               double cut, Covariance& out) {
    const Rows& rows = request.rows;
    const int64_t d = rows.d, n = list ? int64_t(list->size()) : rows.n;
    const auto row_at = [&](int64_t i) { return list ? (*list)[size_t(i)] : i; };
    const double sigma = request.sigma[q], *mean = direction.mean + q * d;
    Buffer<double> p(n), far(n);
    double top = -1e308, sum = 0, sum_far = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (i % 1024 == 0) interruption_point();
        p[i] = request.logit(q, row_at(i));
        top = std::max(top, p[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
        const double t = p[i] - top;
        far[i] = t < -cut ? 0 : 2 * sigma * sigma * (request.prior_at(q, row_at(i)) - p[i]);
        p[i] = t < -cut ? 0 : std::exp(t);
        sum += p[i];
        sum_far += p[i] * far[i];
    }
    sum_far /= sum;
    const double level = request.kernels.vectors.dot(mean, direction.v + q * d, d);
    double* with_rows = out.with_rows + q * d;
    std::fill(with_rows, with_rows + d, 0.0);
    double total = 0, cross = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (i % 1024 == 0) interruption_point();
        if (p[i] == 0) continue;
        const double along = request.kernels.inner(direction.v + q * d, rows.row(row_at(i)), rows.dtype, d);
        const double c = along - level + direction.slope[q] * (far[i] - sum_far);
        total += p[i] * c;
        cross += p[i] * c * (far[i] - sum_far);
        request.add_row(p[i] * c, row_at(i), with_rows);
    }
    for (int64_t k = 0; k < d; ++k) with_rows[k] = (with_rows[k] - total * mean[k]) / sum;
    out.with_distance[q] = cross / sum;
}

// The sums of one query beside its online softmax; `far` = |x - v|^2 - |x - r|^2.
struct Moments {
    double c = 0, c_2 = 0, far = 0, c_far = 0;
    double away_2 = 0, away_4 = 0;  // of |v - mean of the data|
    double rounded = 0, noise = 0;  // of p c, as the second product sees it

    // this = this keep + s other
    void blend(double keep, double s, const Moments& other) {
        const auto mix = [&](double& mine, double theirs) { mine = mine * keep + theirs * s; };
        mix(c, other.c);
        mix(c_2, other.c_2);
        mix(far, other.far);
        mix(c_far, other.c_far);
        mix(away_2, other.away_2);
        mix(away_4, other.away_4);
        mix(rounded, other.rounded);
        noise = noise * keep * keep + other.noise * s * s;
    }
};

struct Share {  // what one piece of the rows adds
    std::vector<Online> weights;
    std::vector<Moments> moments;
    WeightedSum sum;
};

class DenseCovariance {
  public:
    DenseCovariance(const Request& request, const Direction& direction, const std::vector<int64_t>& which,
                    Precision precision)
        : request_(request),
          direction_(direction),
          which_(which),
          count_(int64_t(which.size())),
          tile_(tile_rows(request, count_)),
          ones_(size_t(request.batch), 1.0),
          bits_(precision == Precision::normal ? 16 : 24),
          logits_(request, which.data(), count_, precision),
          along_(towards(), which.data(), count_, precision),
          level_(size_t(count_)),
          origin_(size_t(count_)),
          cut_(size_t(count_)) {
        const int64_t d = request.rows.d;
        const auto dot = request.kernels.vectors.dot;
        for (int64_t i = 0; i < count_; ++i) {
            const int64_t q = which[size_t(i)];
            const double* mean = direction.mean + q * d;
            level_[size_t(i)] = dot(mean, direction.v + q * d, d);
            origin_[size_t(i)] = dot(mean, mean, d) - 2 * dot(request.query(q), mean, d);
            cut_[size_t(i)] = covariance_cut(request, direction, q) + logits_.gap_error(i);
        }
    }

    void pass() {
        struct Worker {
            Logits::Work work, along;
            Buffer<double> p;
        };
        const auto worker = [&] { return Worker{logits_.work(tile_), along_.work(tile_), Buffer<double>(tile_)}; };
        const auto nothing = [&] {
            return Share{std::vector<Online>(size_t(count_)), std::vector<Moments>(size_t(count_)),
                         WeightedSum(request_, count_, tile_, {bits_, true})};
        };
        const auto visit = [&](Worker& w, Share& mine, const Tile& t) {
            mine.sum.begin(t.first, t.R, t.seed);
            const auto before = [&](int64_t b) { along_.multiply(w.along, t.first, t.R, b, tile_); };
            logits_.over(w.work, t.first, t.R, tile_, before, [&](int64_t i, const double* l) {
                weigh(i, l, along_.logits(w.along, t.first, t.R, i, tile_), t, w.p.data(), mine);
            });
            mine.sum.add(t.ahead);
        };
        shares_ = over_tiles(request_.rows, pieces_with_sums(request_, count_, tile_), tile_, worker, nothing, visit);
    }

    // Joins what the pieces add to query i; false if the error bound exceeds what covariance.h promises.
    bool finish(int64_t i, Covariance& out) const;

  private:
    // <v_i, v> comes from the same product as the logits: logits at sigma = 1, less their norms.
    Request towards() const {
        Request other = request_;
        other.x = direction_.v;
        other.sigma = ones_.data();
        other.log_prior = nullptr;
        other.exclude = nullptr;
        return other;
    }
    // What float32 loses of sum p c v, numbers c and rows of such lengths.
    double rounded(double c, double v) const {
        const double tiles = std::ceil(double(request_.rows.n) / double(tile_));
        const double rows = shares_.front().sum.integer() ? 0 : double(std::min(tile_, request_.rows.n));
        return sum_error(additions_of(tiles, double(shares_.size()), rows), c * v);
    }
    void weigh(int64_t i, const double* l, const double* along, const Tile& t, double* p, Share& mine) const;

    const Request& request_;
    const Direction& direction_;
    const std::vector<int64_t>& which_;
    const int64_t count_, tile_;
    const std::vector<double> ones_;
    const int bits_;
    const Logits logits_, along_;
    std::vector<double> level_, origin_, cut_;
    std::vector<Share> shares_;
};

// The weights of one query for a tile, its sums, and p c for the second product.
void DenseCovariance::weigh(int64_t i, const double* l, const double* along, const Tile& t, double* p,
                            Share& mine) const {
    const int64_t q = which_[size_t(i)];
    const double* h = request_.stats.half_norm + t.first;
    double rescale = 1;
    if (!request_.kernels.softmax(l, h, t.R, cut_[size_t(i)], &mine.weights[size_t(i)], p, &rescale)) return;
    const double sigma2 = request_.sigma[q] * request_.sigma[q];
    const double slope = direction_.slope[q], base = level_[size_t(i)], from = origin_[size_t(i)];
    const double* prior = request_.log_prior ? request_.prior_of(q) + t.first : nullptr;
    const float* away = request_.stats.away + t.first;
    double c_1 = 0, c_2 = 0, far_1 = 0, c_far = 0, away_2 = 0, away_4 = 0;
#pragma omp simd reduction(+ : c_1, c_2, far_1, c_far, away_2, away_4)
    for (int r = 0; r < t.R; ++r) {
        const double w = p[r], lifted = prior ? prior[r] : 0;
        const double far = w > 0 ? 2 * sigma2 * (lifted - l[r]) - from : 0;
        const double c = along[r] + h[r] - base + slope * far;
        c_1 += w * c;
        c_2 += w * c * c;
        far_1 += w * far;
        c_far += w * c * far;
        const double square = double(away[r]) * double(away[r]);
        away_2 += w * square;
        away_4 += w * square * square;
        p[r] = w * c;
    }
    Online signed_part;
    mine.sum.set(i, p, rescale, signed_part);
    Moments& m = mine.moments[size_t(i)];
    m.blend(rescale, 1, {c_1, c_2, far_1, c_far, away_2, away_4, signed_part.sum_q, signed_part.noise});
}

bool DenseCovariance::finish(int64_t i, Covariance& out) const {
    const int64_t d = request_.rows.d, q = which_[size_t(i)];
    const Stats& stats = request_.stats;
    Moments all;
    double* with_rows = out.with_rows + q * d;
    Pooled pooled;
    const Online weights = join(
        shares_, [&](const Share& s) -> const Online& { return s.weights[size_t(i)]; },
        [&](const Share& s, double scale) {
            all.blend(1, scale, s.moments[size_t(i)]);
            pooled.add(s.sum, i, scale);
        });
    const double sum = weights.sum, sigma = request_.sigma[q];
    const double* mean = direction_.mean + q * d;
    pooled.join(request_.kernels, d, 1 / sum, 0, with_rows);
    for (int64_t k = 0; k < d; ++k) with_rows[k] -= all.rounded / sum * mean[k];
    out.with_distance[q] = all.c_far / sum - all.c / sum * (all.far / sum);

    const VectorLoops& vectors = request_.kernels.vectors;
    const double length = vectors.length(mean, d), away = length + stats.mean_norm, radius = stats.scale.radius;
    // About the mean of the data. r may be off by what contract 1 allows, and float32 by a few units: what is left of
    // the difference may be that alone.
    const double off = std::sqrt(vectors.squared_distance(mean, stats.mean, d));
    const double least_trace = std::max(0.0, all.away_2 / sum - off * off);
    const double model = std::sqrt(vectors.shifted_square(mean, stats.shift, d));
    const double moved = stats.scale.allowed(model, request_.tol);
    const double trace = least_trace + moved * (2 * off + moved) + 8 * kUnitRoundoff * (all.away_2 / sum);
    const double variance = std::max(0.0, all.c_2 / sum - all.c / sum * (all.c / sum));
    const double bound = std::sqrt(variance * least_trace);
    const double spread = std::sqrt(stats.mean_square + std::min(away * away, radius * radius));
    // sqrt(E |v - r|^4) from the distances to the mean of the data, which r is `off` from.
    const double minkowski = std::pow(all.away_4 / sum, 0.25) + off;
    const double fourth = std::min(minkowski * minkowski, (radius + off) * std::sqrt(trace));
    const double steep = 2 * std::fabs(direction_.slope[q]), sigma2 = sigma * sigma;
    const double few = std::sqrt(trace * stats.with_copies(weights.sum_2 / (sum * sum)));
    const double noise[] = {
        // The roundings of query and direction, which are one where they are parallel.
        logits_.query_step(i) * (std::sqrt(variance) * fourth / sigma2 + steep * trace) + along_.query_step(i) * trace,
        logits_.logit_noise(i) * (std::sqrt(variance) + steep * sigma2) * few,
        along_.logit_noise(i) * few,
        std::sqrt(all.noise) / sum * spread,                                                  // the weights'
        rounded(std::sqrt(all.c_2 / sum), std::sqrt(length * length + trace)) / kDeviations,  // that of sums
    };
    // The least length of with_rows that its error is measured against.
    const double least = sigma2 * std::max(kLeast * vectors.length(direction_.v + q * d, d),
                                           std::fabs(direction_.slope[q]) * stats.scale.least());
    return kDeviations * vectors.length(noise, 5) <= request_.tol * std::max(bound, least);
}

std::vector<int64_t> dense_covariance(const Request& request, const Direction& direction,
                                      const std::vector<int64_t>& which, Precision precision, Covariance& out) {
    if (which.empty()) return {};
    DenseCovariance pass(request, direction, which, precision);
    pass.pass();
    std::vector<int64_t> open;
    for (size_t i = 0; i < which.size(); ++i)
        if (!pass.finish(int64_t(i), out)) open.push_back(which[i]);
    return open;
}

}  // namespace

void covariance(const Request& asked, const Direction& direction, Covariance& out) {
    Request request = planned(asked);
    request.topk = 0;
    const auto exactly = [&](const std::vector<int64_t>& which) {
        one_by_one(int64_t(which.size()), request.threads,
                   [&](int64_t i) { from_list(request, direction, which[size_t(i)], nullptr, kUnderflow, out); });
    };
    if (small(request.rows)) return exactly(numbers_from(0, request.batch));
    const int64_t batch = queries_per_pass(request);
    for (int64_t base = 0; base < request.batch; base += batch) {
        const auto [few, even] = by_spread(request, numbers_from(base, std::min(batch, request.batch - base)));
        auto [some, many, most] = by_units(even);
        append(many, most);  // weights of either sign have half as many steps
        double cut = 0;
        for (const int64_t q : few) cut = std::max(cut, covariance_cut(request, direction, q));
        append(some, over_lists(request, few, cut, [&](int64_t q, const std::vector<int64_t>& list) {
                   from_list(request, direction, q, &list, cut, out);
               }));
        if (request.tol < kFloat64) {
            exactly(some);
            exactly(many);
            continue;
        }
        if (!request.weight_integers()) {  // float32 weights need no further digits
            append(many, some);
            some.clear();
        }
        append(some, dense_covariance(request, direction, many, Precision::normal, out));
        // Where one digit more is needed, all are: a pass costs more than digits.
        exactly(dense_covariance(request, direction, some, Precision::fine, out));
    }
}

}  // namespace geodiff
