#include "covariance.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>

#include "parallel.h"
#include "passes.h"
#include "spread.h"
#include "weighted_sum.h"

namespace geodiff {
namespace {

constexpr double kLeast = 0.01;  // smallest length of J v over |v| that the error is measured against

double dot(const double* a, const double* b, int64_t d) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < d; ++k) total += a[k] * b[k];
    return total;
}

// The least length of with_rows that its error is measured against.
double least_length(const Stats& stats, double sigma, double v_norm, double slope) {
    return sigma * sigma * std::max(kLeast * v_norm, std::fabs(slope) * least_scale(stats));
}

// Rows this far below the best may be dropped: README.md, "Covariances".
double covariance_cut(const Stats& stats, int64_t n, double tol, double sigma, double x_norm, double slope) {
    const double R = stats.radius, span = slope == 0 ? 0 : 4 * R * (x_norm + stats.max_norm + R);
    return cutoff(stats, n, tol) + std::log1p((4 * R * R + span) / (sigma * sigma));
}

// One query over a list of rows (null: all n), in float64 and difference form.
void from_list(const Kernels& kernels, const Rows& rows, const Request& request, const Direction& direction, int64_t q,
               const int64_t* list, int64_t n, double cut, Covariance& out) {
    const int64_t d = rows.d, dp = padded(d);
    const auto row_at = [&](int64_t i) { return list ? list[i] : i; };
    const double sigma = request.sigma[q], *mean = direction.mean + q * d;
    Buffer<double> p(n), far(n), v(dp, true);
    Buffer<float> wide(dp);
    double top = -1e308, sum = 0, sum_far = 0;
    for (int64_t i = 0; i < n; ++i) {
        p[i] = logit(kernels, rows, request, q, row_at(i));
        top = std::max(top, p[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
        const double t = p[i] - top;
        far[i] = t < -cut ? 0 : 2 * sigma * sigma * (request.bias_at(q, row_at(i)) - p[i]);
        p[i] = t < -cut ? 0 : std::exp(t);
        sum += p[i];
        sum_far += p[i] * far[i];
    }
    sum_far /= sum;
    std::copy(direction.v + q * d, direction.v + (q + 1) * d, v.data());
    const double level = dot(mean, v.data(), d);
    double* with_rows = out.with_rows + q * d;
    std::fill(with_rows, with_rows + d, 0.0);
    double total = 0, cross = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (p[i] == 0) continue;
        double along = 0;
        kernels.widen(rows.row(row_at(i)), rows.dtype, d, dp, wide.data());
        kernels.dot_f64(wide.data(), dp, 1, v.data(), dp, 1, dp, &along, 1);
        const double c = along - level + direction.slope[q] * (far[i] - sum_far);
        total += p[i] * c;
        cross += p[i] * c * (far[i] - sum_far);
        kernels.axpy(p[i] * c, rows.row(row_at(i)), rows.dtype, d, with_rows);
    }
    for (int64_t k = 0; k < d; ++k) with_rows[k] = (with_rows[k] - total * mean[k]) / sum;
    out.with_distance[q] = cross / sum;
}

// The sums of one query beside its online softmax; `far` = |x - v|^2 - |x - r|^2.
struct Moments {
    Online weights{-1e308, 0, 0, 0, 0, 0, 0};
    double c = 0, c_2 = 0, far = 0, c_far = 0;
    double away_2 = 0, away_4 = 0;  // of |v - mean of the data|
    double rounded = 0, noise = 0;  // of p c, as the second product sees it

    void scale(double s) {
        c *= s;
        c_2 *= s;
        far *= s;
        c_far *= s;
        away_2 *= s;
        away_4 *= s;
        rounded *= s;
        noise *= s * s;
    }
};

struct Share {  // what one piece of the rows adds
    std::vector<Moments> moments;
    WeightedSum sum;
};

// Joins what the pieces add to query i; false if the error bound exceeds what covariance.h promises.
bool finish(const Stats& stats, const Request& request, const Direction& direction, const Rows& rows,
            const Logits& logits, const Logits& along, const std::vector<std::optional<Share>>& shares, int64_t i,
            int64_t query, Covariance& out) {
    const int64_t d = rows.d;
    Moments all;
    double top = -1e308;
    for (const auto& s : shares) top = std::max(top, s->moments[size_t(i)].weights.max);
    double* with_rows = out.with_rows + query * d;
    std::fill(with_rows, with_rows + d, 0.0);
    for (const auto& s : shares) {
        Moments m = s->moments[size_t(i)];
        if (!(m.weights.sum > 0)) continue;
        const double scale = std::exp(m.weights.max - top);
        m.scale(scale);
        all.weights.sum += m.weights.sum * scale;
        all.weights.sum_2 += m.weights.sum_2 * scale * scale;
        all.weights.sum_h += m.weights.sum_h * scale;
        all.c += m.c;
        all.c_2 += m.c_2;
        all.far += m.far;
        all.c_far += m.c_far;
        all.away_2 += m.away_2;
        all.away_4 += m.away_4;
        all.rounded += m.rounded;
        all.noise += m.noise;
        s->sum.merge_into(i, scale, with_rows);
    }
    const double sum = all.weights.sum, sigma = request.sigma[query];
    const double* mean = direction.mean + query * d;
    for (int64_t k = 0; k < d; ++k) with_rows[k] = (with_rows[k] - all.rounded * mean[k]) / sum;
    out.with_distance[query] = all.c_far / sum - all.c / sum * (all.far / sum);

    const double length = norm(mean, d), away = length + stats.mean_norm;
    const double trace = std::max(0.0, 2 * all.weights.sum_h / sum - length * length);
    const double variance = std::max(0.0, all.c_2 / sum - all.c / sum * (all.c / sum));
    const double bound = std::sqrt(variance * trace);
    const double spread = std::sqrt(stats.mean_square + std::min(away * away, stats.radius * stats.radius));
    // sqrt(E |v - r|^4) from the distances to the mean of the data, which r is `off` from.
    const double off = std::sqrt(std::max(0.0, all.away_2 / sum - trace));
    const double minkowski = std::pow(all.away_4 / sum, 0.25) + off;
    const double fourth = std::min(minkowski * minkowski, (stats.radius + off) * std::sqrt(trace));
    const double steep = 2 * std::fabs(direction.slope[query]), sigma2 = sigma * sigma;
    const double few = std::sqrt(trace * all.weights.sum_2) / sum;
    const double noise[] = {
        logits.query_step(i) * (std::sqrt(variance) * fourth / sigma2 + steep * trace),  // the query's rounding
        logits.logit_noise(i) * (std::sqrt(variance) + steep * sigma2) * few,
        along.query_step(i) * trace,  // the direction's
        along.logit_noise(i) * few,
        std::sqrt(all.noise) / sum * spread,  // the weights'
    };
    double total = 0;
    for (double e : noise) total += e * e;
    const double least = least_length(stats, sigma, norm(direction.v + query * d, d), direction.slope[query]);
    return kDeviations * std::sqrt(total) <= request.tol * std::max(bound, least);
}

std::vector<int64_t> dense_covariance(const Kernels& kernels, const Rows& rows, const Stats& stats,
                                      const Request& request, const Direction& direction,
                                      const std::vector<int64_t>& which, Precision precision, Covariance& out) {
    const int64_t count = int64_t(which.size()), d = rows.d, tile = tile_rows(rows, kernels, count);
    if (count == 0) return {};
    // <v_i, v> comes from the same product as the logits: logits at sigma = 1, less their norms.
    const size_t entries = size_t(count);
    std::vector<double> ones(size_t(request.batch), 1.0), level(entries), origin(entries), cut(entries);
    Request towards = request;
    towards.x = direction.v;
    towards.sigma = ones.data();
    towards.bias = nullptr;
    const Logits logits(kernels, rows, stats, request, which.data(), count, precision);
    const Logits along(kernels, rows, stats, towards, which.data(), count, precision);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t q = which[size_t(i)];
        level[size_t(i)] = dot(direction.mean + q * d, direction.v + q * d, d);
        const double* mean = direction.mean + q * d;
        origin[size_t(i)] = dot(mean, mean, d) - 2 * dot(request.x + q * d, mean, d);
        cut[size_t(i)] = covariance_cut(stats, rows.n, request.tol, request.sigma[q], norm(request.x + q * d, d),
                                        direction.slope[q]) +
                         logits.gap_error(i);
    }
    const Pieces pieces = pieces_with_sums(rows, count, tile, request.threads);
    std::vector<std::optional<Share>> shares(size_t(pieces.count()));
    pieces.each([&](auto&& next) {
        Logits::Work work = logits.work(tile), work_v = along.work(tile);
        Buffer<double> p(tile);
        for (int piece = next(); piece >= 0; piece = next()) {
            const Range range = pieces[piece];
            Share& mine = shares[size_t(piece)].emplace(
                Share{std::vector<Moments>(size_t(count)),
                      WeightedSum(kernels, rows, count, tile, precision == Precision::normal ? 2 : 3,
                                  WeightedSum::Weights::either_sign)});
            for (int64_t first = range.begin; first < range.end; first += tile) {
                const int R = int(std::min(tile, range.end - first));
                logits.load(work, first, R);
                work_v.rows = work.rows;
                work_v.ld = work.ld;
                mine.sum.begin(R, uint64_t(first / tile));
                const double* h = stats.half_norm + first;
                for (int64_t b = 0; b < logits.blocks(); ++b) {
                    logits.block(work, first, R, b, tile);
                    along.block(work_v, first, R, b, tile);
                    for (int64_t q = 0; q < logits.block_size(b); ++q) {
                        const int64_t i = b * kQueryBlock + q, query = which[size_t(i)];
                        const double* l = work.logits.data() + q * tile;
                        const double* a = work_v.logits.data() + q * tile;
                        Moments& m = mine.moments[size_t(i)];
                        double rescale = 1;
                        if (!kernels.softmax(l, h, R, cut[size_t(i)], &m.weights, p.data(), &rescale)) continue;
                        m.scale(rescale);
                        const double sigma2 = request.sigma[query] * request.sigma[query];
                        const double slope = direction.slope[query], base = level[size_t(i)], from = origin[size_t(i)];
                        const double* bias = request.bias ? request.bias_of(query) + first : nullptr;
                        const float* away = stats.away + first;
                        double c_1 = 0, c_2 = 0, far_1 = 0, c_far = 0, away_2 = 0, away_4 = 0;
#pragma omp simd reduction(+ : c_1, c_2, far_1, c_far, away_2, away_4)
                        for (int r = 0; r < R; ++r) {
                            const double w = p[r], lifted = bias ? bias[r] : 0;
                            const double far = w > 0 ? 2 * sigma2 * (lifted - l[r]) - from : 0;
                            const double c = a[r] + h[r] - base + slope * far;
                            c_1 += w * c;
                            c_2 += w * c * c;
                            far_1 += w * far;
                            c_far += w * c * far;
                            const double square = double(away[r]) * double(away[r]);
                            away_2 += w * square;
                            away_4 += w * square * square;
                            p[r] = w * c;
                        }
                        m.c += c_1;
                        m.c_2 += c_2;
                        m.far += far_1;
                        m.c_far += c_far;
                        m.away_2 += away_2;
                        m.away_4 += away_4;
                        Online signed_part{};
                        mine.sum.set(i, p.data(), rescale, signed_part);
                        m.rounded += signed_part.sum_q;
                        m.noise += signed_part.noise;
                    }
                }
                const int64_t following = first + tile;
                mine.sum.add(first, work.rows, work.ld, following + R <= range.end ? rows.row(following) : nullptr);
            }
        }
    });
    std::vector<int64_t> open;
    for (int64_t i = 0; i < count; ++i)
        if (!finish(stats, request, direction, rows, logits, along, shares, i, which[size_t(i)], out))
            open.push_back(which[size_t(i)]);
    return open;
}

}  // namespace

void covariance(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                const Direction& direction, Covariance& out) {
    Request plan = request;
    plan.threads = int(std::clamp<int64_t>(request.batch * rows.n * rows.d >> 18, 1, request.threads));
    plan.topk = 0;
    const auto exactly = [&](const std::vector<int64_t>& which) {
        std::atomic<size_t> next{0};
        parallel(plan.threads, [&](int) {
            for (size_t i = next++; i < which.size(); i = next++)
                from_list(kernels, rows, plan, direction, which[i], nullptr, rows.n, kUnderflow, out);
        });
    };
    std::vector<int64_t> all(size_t(request.batch));
    std::iota(all.begin(), all.end(), 0);
    if (small(rows)) return exactly(all);
    const int64_t batch = queries_per_pass(rows, plan.threads);
    for (int64_t base = 0; base < request.batch; base += batch) {
        const int64_t count = std::min(batch, request.batch - base);
        std::vector<int64_t> few, some, many;
        double cut = 0;
        const std::vector<Spread> spread = guess_spread(kernels, rows, stats, plan, base, count);
        for (int64_t q = base; q < base + count; ++q) {
            const Spread s = spread[size_t(q - base)];
            (s == Spread::few ? few : s == Spread::some ? some : many).push_back(q);
            if (s == Spread::few)
                cut = std::max(cut, covariance_cut(stats, rows.n, plan.tol, plan.sigma[q],
                                                   norm(plan.x + q * rows.d, rows.d), direction.slope[q]));
        }
        const auto each = [&](int64_t q, const std::vector<int64_t>& list) {
            from_list(kernels, rows, plan, direction, q, list.data(), int64_t(list.size()), cut, out);
        };
        few = over_lists(kernels, rows, stats, plan, few, cut, each);
        some.insert(some.end(), few.begin(), few.end());
        if (plan.tol < kFloat64) {
            exactly(some);
            exactly(many);
            continue;
        }
        const auto pass = [&](const std::vector<int64_t>& which, Precision precision) {
            return dense_covariance(kernels, rows, stats, plan, direction, which, precision, out);
        };
        const bool integer = kernels.int8 && rows.dtype == DType::u8;
        if (!integer) {  // float32 weights need no further digits
            many.insert(many.end(), some.begin(), some.end());
            some.clear();
        }
        many = pass(many, Precision::normal);
        some.insert(some.end(), many.begin(), many.end());
        exactly(pass(some, Precision::fine));  // where one digit more is needed, all are: a pass costs more than digits
    }
}

}  // namespace geodiff
