#include "data.h"

#include <stdexcept>

#include "isa.h"
#include "operations.h"

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

void Data::posterior(const Kernels& kernels, const double* x, const double* sigma, const double* bias, int64_t batch,
                     int64_t begin, int64_t end, double tol, int64_t topk, int threads, Answer& answer) const {
    const double unit = stats_.unit, shift = stats_.shift;
    const int64_t d = rows_.d;
    Buffer<double> centred(batch * d), scaled(batch);
    for (int64_t i = 0; i < batch * d; ++i) centred[i] = x[i] * unit - shift;
    for (int64_t q = 0; q < batch; ++q) scaled[q] = sigma[q] * unit;
    const Rows part{rows_.row(begin), rows_.dtype, end - begin, d};
    Stats stats = stats_;
    stats.half_norm += begin;
    stats.away += begin;
    const Request request{batch, centred.data(), scaled.data(), bias ? bias + begin : nullptr, tol, topk, threads};
    geodiff::posterior(kernels, part, stats, request, answer);
    for (int64_t i = 0; i < batch * d; ++i) answer.mean[i] = (answer.mean[i] + shift) / unit;
    for (int64_t i = 0; i < batch * topk; ++i)
        if (answer.index[i] >= 0) answer.index[i] += begin;
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
    for (int64_t i = 0; i < batch * rows_.d; ++i) mean[i] = (mean[i] + stats_.shift) / stats_.unit;
}

void Data::squared_distances(const Kernels& kernels, const double* x, const int64_t* candidates, int64_t batch,
                             int64_t width, int threads, double* out) const {
    Buffer<double> centred(batch * rows_.d);
    for (int64_t i = 0; i < batch * rows_.d; ++i) centred[i] = x[i] * stats_.unit - stats_.shift;
    geodiff::squared_distances(kernels, rows_, centred.data(), candidates, batch, width, threads, out);
    for (int64_t i = 0; i < batch * width; ++i) out[i] /= stats_.unit * stats_.unit;
}

}  // namespace geodiff
