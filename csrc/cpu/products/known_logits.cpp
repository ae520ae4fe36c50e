// Queries whose products with the rows are known but for what is new of them, and those of which coordinates alone say
// what is new: docs/trajectories.md.
#include <algorithm>
#include <cmath>

#include "../runtime/parallel.h"
#include "digits.h"
#include "logits.h"

namespace geodiff {
namespace {

constexpr double kCaution = 2;    // a query of which coordinates say too little takes another pass
constexpr int kPendingBits = 16;  // of its coordinates
constexpr double kNarrow = 4e-4;  // of a vector: what sums in float32 are off by, at most
constexpr double kByte = 129;     // steps: a coordinate of a row is no more

}  // namespace

// What is left of the queries beside vectors whose products are known.
void Logits::recollect(const Request& request, const int64_t* which) {
    const int64_t d = rows_.d;
    known_.resize(size_t(count_));
    rest_ = Buffer<double>(count_ * d);
    in_shares(count_, 6 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const double* x = request.query(which[i]);
            double* rest = rest_.data() + i * d;
            Known::Entry& entry = request.known->entry(which[i]);
            const double factor = entry.factor(kernels_.vectors, x);
            known_[size_t(i)] = {&entry, factor};
            for (int64_t k = 0; k < d; ++k) rest[k] = factor == 0 ? x[k] : x[k] - factor * entry.y[size_t(k)];
        }
    });
}

// The pass will leave the products of x less what query i has lost.
void Logits::renew(int64_t i, const double* x) {
    Known::Entry& entry = *known_[size_t(i)].entry;
    const float* lost = lost_.data() + i * padded(rows_.d);
    if (!entry.products) entry.products.reset(new double[size_t(rows_.n)]);
    entry.rows = rows_.n;
    entry.whole = false;
    entry.y.resize(size_t(rows_.d));
    for (int64_t k = 0; k < rows_.d; ++k) entry.y[size_t(k)] = x[k] - double(lost[k]);
}

// Products with what is known of the queries and the digits of the rest, which are then known.
void Logits::renew_products(const Work& w, int64_t first, int R, int64_t b, int64_t tile) const {
    for (int64_t q = b * kQueryBlock; q < b * kQueryBlock + block_size(b); ++q) {
        const Rest& rest = known_[size_t(q)];
        double* known = rest.entry->products.get() + first;
        kernels_.join_digits(sums(w, q, tile), rest.factor == 0 ? nullptr : known, rest.factor, 0, R, known);
    }
}

void Logits::commit() const {
    if (pending_) return;
    for (const Rest& rest : known_) {
        rest.entry->whole = true;
        rest.entry->digits = parts_;
        ++rest.entry->passes;
    }
}

// Whether coordinates alone can say what is new of the queries, whose products are known but for it.
bool Logits::coordinates_do(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes) const {
    if (known_.empty()) return false;
    for (int64_t i = 0; i < count_; ++i) {
        const Rest& rest = known_[size_t(i)];
        const double length = std::sqrt(sizes[size_t(i)].square), sigma = request.sigma[which[i]];
        const double error = kCaution * request.shaping.expected_error_of_bytes(length, sigma, rest.entry->ess);
        if (rest.factor == 0 || !(error <= request.expected_allowance(which[i]))) return false;
    }
    return true;
}

// No digits but those of the coordinates; the products that are known stay as they are.
void Logits::pack_pending(const Request& request, const std::vector<VectorSize>& sizes) {
    const int64_t d = rows_.d, dp = padded(d), together = kernels_.floats.few;
    pending_ = true;
    shaping_ = request.shaping;
    parts_ = integers_->layout.digits(kPendingBits);
    for (int64_t b = 0; b < blocks(); ++b)
        tails_.emplace_back(*kernels_.integers, block_size(b), shaping_.count(), parts_);
    offset_.assign(size_t(count_), 0.0);
    for (std::vector<double>* lengths : {&outside_, &along_, &aside_}) lengths->assign(size_t(count_), 0.0);
    lost_ = Buffer<float>(count_ * dp, true);
    const double rounded = *std::max_element(shaping_.rounded, shaping_.rounded + rows_.n);
    in_shares((count_ + together - 1) / together, 2 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t first = begin * together; first < std::min(end * together, count_); first += together) {
            const int64_t count = std::min(together, count_ - first);
            for (int64_t i = first; i < first + count; ++i)
                kernels_.vectors.narrow(rest_.data() + i * d, d, lost_.data() + i * dp);
            pack_coordinates(first, count);
            for (int64_t i = first; i < first + count; ++i)
                bound_pending(i, std::sqrt(sizes[size_t(i)].square), rounded);
        }
    });
}

// The unit of the digits of query i, which lies so far along each direction, where they say coordinates alone.
double Logits::unit_of_coordinates(int64_t i, const double* along) {
    double top = 1e-300, square = 0, of_steps = 0;
    for (int64_t j = 0; j < shaping_.count(); ++j) {
        const double size = std::fabs(along[j] * shaping_.step[j]);
        top = std::max(top, size);
        square += size * size;
        of_steps += shaping_.step[j] * along[j] * along[j];
    }
    along_[size_t(i)] = std::sqrt(of_steps);
    logit_noise_[size_t(i)] = inv_sigma2_[size_t(i)] * std::sqrt(square / 12);  // rows' bytes are rounded
    return top / (largest_balanced(integers_->layout.digit_bits, parts_) - 1);
}

// What is new of query i is sum_j g_j u_j + R': the coordinates of a row v say what the sum adds to <x, v>, but for
// their bytes' rounding, and R' adds no more than |R'| times the length of v that lies along no direction, and what it
// has along directions itself, which are not quite orthonormal, from the rounding of g and of float32.
void Logits::bound_pending(int64_t i, double length, double rounded) {
    const int64_t d = rows_.d, k = shaping_.count();
    const float* lost = lost_.data() + i * padded(d);
    double left = 0, finest = 0;
    for (int64_t j = 0; j < d; ++j) left += double(lost[j]) * double(lost[j]);
    for (int64_t j = 0; j < k; ++j) finest += 1 / (shaping_.step[j] * shaping_.step[j]);
    const double narrow = kNarrow * length, radius = stats_.scale.radius;
    const double digits = scale_[size_t(i)] / 2 * std::min(kByte * double(k), std::sqrt(finest) * radius);
    outside_[size_t(i)] = std::sqrt(left) + narrow;
    aside_[size_t(i)] =
        digits + (2 * shaping_.skew * length + narrow) * radius + 1e-14 * length_[size_t(i)] * stats_.max_norm;
    row_error_[size_t(i)] = inv_sigma2_[size_t(i)] * outside_[size_t(i)];
    base_error_[size_t(i)] = inv_sigma2_[size_t(i)] * (along_[size_t(i)] * rounded + aside_[size_t(i)]);
}

void Logits::errors_of_known(int64_t i, int64_t first, int R, float* error) const {
    const auto of = [&](double size) { return float(inv_sigma2_[size_t(i)] * size * (1 + 1e-6)); };
    const float outside = of(outside_[size_t(i)]), along = of(along_[size_t(i)]), aside = of(aside_[size_t(i)]);
    const float *of_outside = shaping_.outside + first, *of_along = shaping_.rounded + first;
    for (int r = 0; r < R; ++r) error[r] = outside * of_outside[r] + along * of_along[r] + aside;
}

}  // namespace geodiff
