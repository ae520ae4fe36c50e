#include "candidates.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "buffer.h"
#include "parallel.h"
#include "top.h"

namespace geodiff {

void Candidates::offer(const double* logits, const float* away, int64_t first, int R) {
    if (overflowed_) return;
    double lower = -1e308, upper = -1e308;
#pragma omp simd reduction(max : lower, upper)
    for (int r = 0; r < R; ++r) {
        const double error = row_error_ * double(away[r]) + base_error_;
        lower = std::max(lower, logits[r] - error);
        upper = std::max(upper, logits[r] + error);
    }
    if (upper < threshold()) return;
    max_ = std::max(max_, lower);
    if (nearest_.wanted() > 0)
        for (int r = 0; r < R; ++r) nearest_.offer(logits[r] - row_error_ * double(away[r]) - base_error_, first + r);
    const double least = threshold();
    for (int r = 0; r < R; ++r) {
        const double most = logits[r] + row_error_ * double(away[r]) + base_error_;
        if (!(most >= least)) continue;
        if (int64_t(kept_.size()) == kMaxCandidates) {
            kept_.erase(std::remove_if(kept_.begin(), kept_.end(), [&](const Candidate& c) { return c.upper < least; }),
                        kept_.end());
            if (int64_t(kept_.size()) > kMaxCandidates * 3 / 4) {
                overflowed_ = true;
                std::vector<Candidate>().swap(kept_);
                return;
            }
        }
        kept_.push_back({first + r, most});
    }
}

double Candidates::threshold() const {
    // Until k rows are known, all of them may be among the k nearest.
    const double nearest = nearest_.wanted() == 0 ? max_ : nearest_.full() ? nearest_.last() : -1e308;
    return std::min(max_ - cut_, nearest);
}

void Candidates::collect(double least, std::vector<int64_t>& rows) const {
    for (const Candidate& c : kept_)
        if (c.upper >= least) rows.push_back(c.row);
}

double Candidates::least(const Candidates* parts, int64_t count, int64_t stride) {
    Candidates all(parts->cut_, 0, 0, parts->nearest_.wanted());
    for (int64_t t = 0; t < count; ++t) {
        all.max_ = std::max(all.max_, parts[t * stride].max_);
        all.nearest_.merge(parts[t * stride].nearest_);
    }
    return all.threshold();
}

double logit(const Kernels& kernels, const Rows& rows, const Request& request, int64_t q, int64_t row) {
    const double sigma = request.sigma[q];
    return -0.5 * kernels.distance(request.x + q * rows.d, rows.row(row), rows.dtype, rows.d) / (sigma * sigma) +
           request.bias_at(q, row);
}

namespace {

// E_w |v - r|^2 = E_w |x - v|^2 - |x - r|^2, given E_w |x - v|^2 / (2 sigma^2). In float64 the difference is off by
// 1e-16 |x - v|^2, which the divergence divides by sigma^2: far below one part in a million of a dimension.
double trace_of(const Request& request, int64_t d, int64_t q, const double* mean, double scaled_distance) {
    const double* x = request.x + q * d;
    double moved = 0;
    for (int64_t k = 0; k < d; ++k) moved += (x[k] - mean[k]) * (x[k] - mean[k]);
    return std::max(0.0, 2 * request.sigma[q] * request.sigma[q] * scaled_distance - moved);
}

// Answer of one query from its exact logits. Rows further than `cut` below the largest take nothing.
void answer_from(const Kernels& kernels, const Rows& rows, const Request& request, int64_t q,
                 const std::vector<int64_t>& list, const double* l, double cut, Path path, Answer& answer) {
    const size_t n = list.size();
    double m = l[0];
    for (size_t i = 1; i < n; ++i) m = std::max(m, l[i]);
    double sum = 0, sum_l = 0, sum_2 = 0, sum_d = 0;
    double* mean = answer.mean + q * rows.d;
    std::fill(mean, mean + rows.d, 0.0);
    Top top(request.topk);
    for (size_t i = 0; i < n; ++i) {
        const double t = l[i] - m;
        top.offer(l[i], list[i]);
        if (t < -cut) continue;
        const double p = std::exp(t);
        sum += p;
        sum_l += p * t;
        sum_2 += p * p;
        sum_d += p * (request.bias_at(q, list[i]) - l[i]);
        kernels.axpy(p, rows.row(list[i]), rows.dtype, rows.d, mean);
    }
    for (int64_t k = 0; k < rows.d; ++k) mean[k] /= sum;
    answer.trace[q] = trace_of(request, rows.d, q, mean, sum_d / sum);
    answer.log_sum[q] = m + std::log(sum);
    answer.entropy[q] = std::log(sum) - sum_l / sum;
    answer.ess[q] = sum * sum / sum_2;
    answer.path[q] = int8_t(path);
    top.write(answer.log_sum[q], answer.index + q * request.topk, answer.weight + q * request.topk);
}

}  // namespace

void refine(const Kernels& kernels, const Rows& rows, const Request& request, const std::vector<int64_t>& which,
            const std::vector<std::vector<int64_t>>& lists, double cut, Path path, Answer& answer) {
    // Distances are shared out pair by pair, since one query may hold nearly all of them; the sums query by query.
    std::vector<int64_t> start(which.size() + 1, 0);
    for (size_t i = 0; i < which.size(); ++i) start[i + 1] = start[i] + int64_t(lists[i].size());
    const int64_t total = start.back();
    Buffer<double> logits(total);
    const int threads = int(std::min<int64_t>(request.threads, std::max<int64_t>(1, total * rows.d >> 17)));
    constexpr int64_t kPairs = 32;
    std::atomic<int64_t> next_pair{0}, next_query{0};
    parallel(threads, [&](int) {
        for (int64_t a = next_pair.fetch_add(kPairs); a < total; a = next_pair.fetch_add(kPairs)) {
            size_t i = size_t(std::upper_bound(start.begin(), start.end(), a) - start.begin()) - 1;
            for (int64_t j = a; j < std::min(a + kPairs, total); ++j) {
                while (j >= start[i + 1]) ++i;
                logits[j] = logit(kernels, rows, request, which[i], lists[i][size_t(j - start[i])]);
            }
        }
    });
    parallel(threads, [&](int) {
        for (int64_t i = next_query++; i < int64_t(which.size()); i = next_query++)
            answer_from(kernels, rows, request, which[size_t(i)], lists[size_t(i)], logits.data() + start[size_t(i)],
                        cut, path, answer);
    });
}

void exact(const Kernels& kernels, const Rows& rows, const Request& request, const std::vector<int64_t>& which,
           double cut, Answer& answer) {
    // Online softmax in float64, each thread over its share of the rows; nothing of size n is kept.
    const int threads =
        int(std::min<int64_t>(request.threads, std::max<int64_t>(1, int64_t(which.size()) * rows.n * rows.d >> 17)));
    struct Part {
        Online state{-1e308, 0, 0, 0, 0, 0, 0};  // sum_h: of p |x - v|^2 / (2 sigma^2)
        Top top;
        Part() : top(0) {}
    };
    const int64_t d = rows.d;
    constexpr int64_t kQueries = 32;  // float64 sums of so many queries per thread at a time
    for (size_t base = 0; base < which.size(); base += kQueries) {
        const int64_t count = std::min<int64_t>(kQueries, int64_t(which.size() - base));
        std::vector<std::vector<Part>> parts(static_cast<size_t>(threads),
                                             std::vector<Part>(static_cast<size_t>(count)));
        std::vector<Buffer<double>> sums;
        for (int t = 0; t < threads; ++t) sums.emplace_back(count * d, true);
        parallel(threads, [&](int t) {
            const Range range = share(rows.n, 1, t, threads);
            for (int64_t q = 0; q < count; ++q) {
                const int64_t query = which[base + size_t(q)];
                Part& part = parts[size_t(t)][size_t(q)];
                part.top = Top(request.topk);
                Online& s = part.state;
                double* sum = sums[size_t(t)].data() + q * d;
                for (int64_t row = range.begin; row < range.end; ++row) {
                    const double l = logit(kernels, rows, request, query, row);
                    part.top.offer(l, row);
                    if (l < s.max - cut) continue;
                    if (l > s.max) {
                        const double step = s.max - l, scale = s.sum > 0 ? std::exp(step) : 0;
                        s.sum_l = s.sum > 0 ? (s.sum_l + step * s.sum) * scale : 0;
                        s.sum *= scale;
                        s.sum_2 *= scale * scale;
                        s.sum_h *= scale;
                        for (int64_t k = 0; k < d; ++k) sum[k] *= scale;
                        s.max = l;
                    }
                    const double p = std::exp(l - s.max);
                    s.sum += p;
                    s.sum_l += p * (l - s.max);
                    s.sum_2 += p * p;
                    s.sum_h += p * (request.bias_at(query, row) - l);
                    kernels.axpy(p, rows.row(row), rows.dtype, d, sum);
                }
            }
        });
        for (int64_t q = 0; q < count; ++q) {
            const int64_t query = which[base + size_t(q)];
            double m = -1e308;
            for (int t = 0; t < threads; ++t) m = std::max(m, parts[size_t(t)][size_t(q)].state.max);
            double sum = 0, sum_l = 0, sum_2 = 0, sum_d = 0;
            double* mean = answer.mean + query * d;
            std::fill(mean, mean + d, 0.0);
            Top top(request.topk);
            for (int t = 0; t < threads; ++t) {
                const Part& part = parts[size_t(t)][size_t(q)];
                const Online& s = part.state;
                top.merge(part.top);
                if (!(s.sum > 0)) continue;
                const double scale = std::exp(s.max - m);
                sum += s.sum * scale;
                sum_l += (s.sum_l + (s.max - m) * s.sum) * scale;
                sum_2 += s.sum_2 * scale * scale;
                sum_d += s.sum_h * scale;
                for (int64_t k = 0; k < d; ++k) mean[k] += scale * sums[size_t(t)][q * d + k];
            }
            for (int64_t k = 0; k < d; ++k) mean[k] /= sum;
            answer.trace[query] = trace_of(request, d, query, mean, sum_d / sum);
            answer.log_sum[query] = m + std::log(sum);
            answer.entropy[query] = std::log(sum) - sum_l / sum;
            answer.ess[query] = sum * sum / sum_2;
            answer.path[query] = int8_t(Path::exact);
            top.write(answer.log_sum[query], answer.index + query * request.topk, answer.weight + query * request.topk);
        }
    }
}

}  // namespace geodiff
