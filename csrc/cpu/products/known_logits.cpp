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
            const double factor = entry.factor(x);
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
    for (int64_t b = 0; b < blocks(); ++b) tails_.emplace_back(*integers_, block_size(b), shaping_.count(), parts_);
    offset_.assign(size_t(count_), 0.0);
    lost_ = Buffer<float>(count_ * dp, true);
    in_shares((count_ + together - 1) / together, 2 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t first = begin * together; first < std::min(end * together, count_); first += together) {
            const int64_t count = std::min(together, count_ - first);
            for (int64_t i = first; i < first + count; ++i) {
                kernels_.vectors.narrow(rest_.data() + i * d, d, lost_.data() + i * dp);
                row_error_[size_t(i)] = inv_sigma2_[size_t(i)] * std::sqrt(sizes[size_t(i)].square);
                base_error_[size_t(i)] = inv_sigma2_[size_t(i)] * 1e-14 * length_[size_t(i)] * stats_.max_norm;
            }
            pack_coordinates(first, count);
        }
    });
}

// The unit of the digits of query i, which lies so far along each direction, where they say coordinates alone.
double Logits::unit_of_coordinates(int64_t i, const double* along) {
    double top = 1e-300, square = 0;
    for (int64_t j = 0; j < shaping_.count(); ++j) {
        const double size = std::fabs(along[j] * shaping_.step[j]);
        top = std::max(top, size);
        square += size * size;
    }
    logit_noise_[size_t(i)] = inv_sigma2_[size_t(i)] * std::sqrt(square / 12);  // rows' bytes are rounded
    return top / (largest_balanced(integers_->layout.digit_bits, parts_) - 1);
}

}  // namespace geodiff
