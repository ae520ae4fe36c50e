#include "data.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "covariance.h"
#include "draw.h"
#include "isa.h"
#include "operations.h"
#include "parallel.h"

namespace geodiff {

Data::Data(const void* rows, DType dtype, int64_t n, int64_t d, int threads)
    : rows_{rows, dtype, n, d}, half_norm_(n), mean_(d), away_(n) {
    // uint8: model = u / 127.5 - 1 = (v + 0.5) / 127.5 with v = u - 128.
    stats_.unit = dtype == DType::u8 ? 127.5 : 1;
    stats_.shift = dtype == DType::u8 ? 0.5 : 0;
    const Prepared p =
        prepare(kernels_for(""), rows_, stats_.shift, threads, half_norm_.data(), away_.data(), mean_.data());
    if (p.bad_row >= 0) throw std::domain_error(std::to_string(p.bad_row));
    stats_.half_norm = half_norm_.data();
    stats_.away = away_.data();
    stats_.radius = p.radius;
    stats_.mean_square = p.mean_square;
    stats_.max_norm = p.max_norm;
    stats_.mean_norm = p.mean_norm;
    stats_.max_model_norm = p.max_model_norm;
    for (int64_t k = 0; k < d; ++k) mean_[k] = (mean_[k] + stats_.shift) / stats_.unit;
}

namespace {

// Calls each(begin, end) for shares of [0, n), on as many threads as are worth it.
template <class Each>
void in_shares(int64_t n, int threads, Each&& each) {
    threads = int(std::clamp<int64_t>(n >> 15, 1, threads));
    parallel(threads, [&](int t) {
        const Range mine = share(n, 16, t, threads);
        each(mine.begin, mine.end);
    });
}

// to[i] = from[i] factor + term; false if a number is NaN or Inf.
template <class From>
bool rescale(const From* from, int64_t n, int threads, double factor, double term, double* to) {
    std::atomic<bool> finite{true};
    in_shares(n, threads, [&](int64_t begin, int64_t end) {
        double wrong = 0;
#pragma omp simd reduction(+ : wrong)
        for (int64_t i = begin; i < end; ++i) {
            to[i] = double(from[i]) * factor + term;
            wrong += double(from[i] - from[i]);  // NaN for NaN and Inf, else 0
        }
        if (wrong != 0) finite = false;
    });
    return finite;
}

// out = (gain mean + offset) + sum_k factors[k] terms[k], rounded once.
template <class Real>
void combine_as(const double* mean, double gain, double offset, const Combination& c, int64_t n, int threads) {
    constexpr int64_t kPiece = 512;  // the sum of one stays in L1 while the terms are added
    Real* const out = static_cast<Real*>(c.out);
    in_shares(n, threads, [&](int64_t begin, int64_t end) {
        double sum[kPiece];
        for (int64_t base = begin; base < end; base += kPiece) {
            const int64_t size = std::min(kPiece, end - base);
            for (int64_t i = 0; i < size; ++i) sum[i] = mean[base + i] * gain + offset;
            for (size_t k = 0; k < c.terms.size(); ++k) {
                const Real* const term = static_cast<const Real*>(c.terms[k]) + base;
                for (int64_t i = 0; i < size; ++i) sum[i] += c.factors[k] * double(term[i]);
            }
            for (int64_t i = 0; i < size; ++i) out[base + i] = Real(sum[i]);
        }
    });
}

}  // namespace

struct Data::Centred {
    Buffer<double> x, sigma;
    Rows rows;
    Stats stats;
    Request request;

    Centred(const Data& data, const Query& query, int64_t topk)
        : x(query.batch * data.rows_.d),
          sigma(query.batch),
          rows{data.rows_.row(query.begin), data.rows_.dtype, query.end - query.begin, data.rows_.d},
          stats(data.stats_),
          request{query.batch, x.data(), sigma.data(),  query.bias ? query.bias + query.begin : nullptr,
                  query.tol,   topk,     query.threads, query.bias_stride} {
        const auto centre = [&](const auto* from) {
            return rescale(from, query.batch * rows.d, query.threads, stats.unit, -stats.shift, x.data());
        };
        if (!(query.single ? centre(static_cast<const float*>(query.x)) : centre(static_cast<const double*>(query.x))))
            throw std::domain_error("x");
        for (int64_t q = 0; q < query.batch; ++q) sigma[q] = query.sigma[q] * stats.unit;
        stats.half_norm += query.begin;
        stats.away += query.begin;
    }
};

void Data::posterior(const Kernels& kernels, const Query& query, int64_t topk, Answer& answer) const {
    const Centred c(*this, query, topk);
    geodiff::posterior(kernels, c.rows, c.stats, c.request, answer);
    rescale(answer.mean, query.batch * rows_.d, query.threads, 1 / stats_.unit, stats_.shift / stats_.unit,
            answer.mean);
    for (int64_t q = 0; q < query.batch; ++q) answer.trace[q] /= stats_.unit * stats_.unit;
    for (int64_t i = 0; i < query.batch * topk; ++i)
        if (answer.index[i] >= 0) answer.index[i] += query.begin;
}

void Data::combine(const Kernels& kernels, const Query& query, const Combination& combination, int8_t* path) const {
    const Centred c(*this, query, 0);
    const int64_t size = query.batch * rows_.d;
    Buffer<double> mean(size), numbers(4 * query.batch);
    double* const n = numbers.data();
    Answer answer{mean.data(), n, n + query.batch, n + 2 * query.batch, n + 3 * query.batch, nullptr, nullptr, path};
    geodiff::posterior(kernels, c.rows, c.stats, c.request, answer);
    const double gain = combination.gain / stats_.unit, offset = gain * stats_.shift;
    if (query.single)
        combine_as<float>(mean.data(), gain, offset, combination, size, query.threads);
    else
        combine_as<double>(mean.data(), gain, offset, combination, size, query.threads);
}

void Data::covariance(const Kernels& kernels, const Query& query, const double* mean, const double* v,
                      const double* slope, double* with_rows, double* with_distance) const {
    const Centred c(*this, query, 0);
    const double unit = stats_.unit;
    Buffer<double> r(query.batch * rows_.d), s(query.batch);
    rescale(mean, query.batch * rows_.d, query.threads, unit, -stats_.shift, r.data());
    for (int64_t q = 0; q < query.batch; ++q) s[q] = slope[q] / unit;  // c then is `unit` times what it is in the model
    Covariance out{with_rows, with_distance};
    geodiff::covariance(kernels, c.rows, c.stats, c.request, {r.data(), v, s.data()}, out);
    for (int64_t i = 0; i < query.batch * rows_.d; ++i) with_rows[i] /= unit * unit;
    for (int64_t q = 0; q < query.batch; ++q) with_distance[q] /= unit * unit * unit;
}

void Data::draw(const Kernels& kernels, const Query& query, int64_t count, const double* uniform,
                int64_t* index) const {
    const Centred c(*this, query, 0);
    geodiff::draw(kernels, c.rows, c.stats, c.request, count, uniform, index);
    for (int64_t i = 0; i < query.batch * count; ++i) index[i] += query.begin;
}

void Data::inner_products(const Kernels& kernels, const double* x, int64_t batch, int threads, double* out) const {
    geodiff::inner_products(kernels, rows_, stats_, x, batch, threads, out);
    for (int64_t q = 0; q < batch; ++q) {  // <x, (v + shift) / unit>
        double sum = 0;
        for (int64_t k = 0; k < rows_.d; ++k) sum += x[q * rows_.d + k];
        for (int64_t i = 0; i < rows_.n; ++i)
            out[q * rows_.n + i] = (out[q * rows_.n + i] + stats_.shift * sum) / stats_.unit;
    }
}

void Data::weighted_mean(const Kernels& kernels, const double* logits, int64_t batch, double tol, int threads,
                         double* mean) const {
    geodiff::weighted_mean(kernels, rows_, stats_, logits, batch, tol, threads, mean);
    rescale(mean, batch * rows_.d, threads, 1 / stats_.unit, stats_.shift / stats_.unit, mean);
}

void Data::squared_distances(const Kernels& kernels, const double* x, const int64_t* candidates, int64_t batch,
                             int64_t width, int threads, double* out) const {
    Buffer<double> centred(batch * rows_.d);
    rescale(x, batch * rows_.d, threads, stats_.unit, -stats_.shift, centred.data());
    geodiff::squared_distances(kernels, rows_, centred.data(), candidates, batch, width, threads, out);
    for (int64_t i = 0; i < batch * width; ++i) out[i] /= stats_.unit * stats_.unit;
}

}  // namespace geodiff
