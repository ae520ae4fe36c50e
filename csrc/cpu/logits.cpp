#include "logits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bounds.h"
#include "digits.h"
#include "parallel.h"

namespace geodiff {
namespace {

// Rows of a full tile are a multiple of every register block's: 3 or 6 in the first integer product, 4 in the second, 8
// in the softmax.
constexpr int64_t kTileUnit = 24;
constexpr int64_t kMemoryBound = 16;  // bound by memory; beyond, by arithmetic

// Floats from one widened row to the next: a cache line more than the row, since rows a multiple of 4 KiB apart share
// the same few lines of L1, which the second product reads down the columns.
int64_t tile_stride(int64_t d) { return padded(d) + 16; }

}  // namespace

int64_t tile_rows(const Rows& rows, const Kernels& kernels, int64_t count) {
    const bool integer = kernels.int8 && rows.dtype == DType::u8;
    const bool as_stored = integer || count <= kFewVectors;
    const int64_t budget = (count <= kMemoryBound ? 128 : integer ? 384 : 768) << 10;
    const int64_t bytes = padded(rows.d) * (as_stored ? item_size(rows.dtype) : 4);
    const int64_t unit = integer ? kTileUnit : 16, most = integer ? kMaxTileRows / kTileUnit * kTileUnit : 128;
    return std::clamp((budget + bytes * unit / 2) / bytes / unit * unit, unit, most);
}

Logits::Logits(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
               const int64_t* which, int64_t count, Precision precision)
    : kernels_(kernels),
      rows_(rows),
      stats_(stats),
      count_(count),
      integer_(kernels.int8 && rows.dtype == DType::u8),
      wide_(!integer_ && (precision == Precision::fine || precision == Precision::sharp)),
      bias_(size_t(count)),
      inv_sigma2_(size_t(count)),
      row_error_(size_t(count)),
      base_error_(size_t(count)),
      query_step_(size_t(count)),
      logit_noise_(size_t(count)),
      scale_(size_t(count)) {
    for (int64_t i = 0; i < count; ++i) {
        const double sigma = request.sigma[which[i]];
        inv_sigma2_[size_t(i)] = 1 / (sigma * sigma);
        bias_[size_t(i)] = request.bias_of(which[i]);
    }
    if (integer_)
        pack_integers(request, which, precision);
    else
        pack_floats(request, which);
}

namespace {

// value[k] = x[k] scale, rounded to the nearest integer, or up with the probability of its fraction where `up` is given
// (uniform numbers in [0, 1)). Returns the sum of the squared roundings. Adding 1.5 2^52 rounds: std::floor would be a
// function call on a baseline x86-64.
template <class Int>
double round_scaled(const double* x, double scale, const float* up, int64_t n, Int* value) {
    constexpr double kMagic = 0x1.8p52;
    double residual = 0;
#pragma omp simd reduction(+ : residual)
    for (int64_t k = 0; k < n; ++k) {
        const double exact = x[k] * scale;
        const double shifted = exact + (up ? double(up[k]) - 0.5 : 0.0) + kMagic;
        const double rounded = shifted - kMagic;
        residual += (exact - rounded) * (exact - rounded);
        value[k] = Int(rounded);
    }
    return residual;
}

// x in units of `step`, as digits; returns the length of what was rounded away.
template <class Int>
double to_digits(const double* x, double step, const float* up, int64_t d, int parts, int8_t* digits) {
    std::vector<Int> value(static_cast<size_t>(d));
    double residual = 0;
    for (int64_t base = 0; base < d; base += kDithers)
        residual += round_scaled(x + base, 1 / step, up, std::min(kDithers, d - base), value.data() + base);
    split_digits(value.data(), d, parts, digits);
    return std::sqrt(residual) * step;
}

}  // namespace

void Logits::pack_integers(const Request& request, const int64_t* which, Precision precision) {
    const int64_t d = rows_.d;
    const int threads = int(std::min<int64_t>(request.threads, std::max<int64_t>(1, count_ * d >> 16)));
    std::vector<double> top(size_t(count_), 0.0);
    parallel(threads, [&](int t) {
        const Range mine = share(count_, 1, t, threads);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const double* x = request.x + which[i] * d;
            double m = 0;
#pragma omp simd reduction(max : m)
            for (int64_t k = 0; k < d; ++k) m = std::max(m, std::fabs(x[k]));
            top[size_t(i)] = m;
        }
    });
    const bool screening = precision == Precision::coarse || precision == Precision::sharp;
    if (screening) {
        // A digit less is worth while as long as squared distances stay apart: the rounding can move their differences
        // by 4 |delta| |v - mean|.
        const double blur = precision == Precision::coarse ? 0.25 : 0.003;
        const double worst = *std::max_element(top.begin(), top.end());
        for (parts_ = 1; parts_ < 3; ++parts_) {
            const double residual = 0.29 * worst / (127 * std::pow(256.0, parts_ - 1)) * std::sqrt(double(d));
            if (4 * residual <= blur * std::sqrt(stats_.mean_square)) break;
        }
    } else {
        parts_ = precision == Precision::fine ? 4 : 3;
    }
    // Screening wants the smallest residual, which is known; the dense pass wants an unbiased one.
    const bool stochastic = !screening;
    const double units = 127 * std::pow(256.0, parts_ - 1);
    const int64_t pieces = (d + kIntDims - 1) / kIntDims;
    for (int64_t b = 0; b < blocks(); ++b) {
        Block block;
        const int64_t vectors = block_size(b) * parts_;
        block.groups = (vectors + kMaxDotGroup - 1) / kMaxDotGroup;
        block.group = (vectors + block.groups - 1) / block.groups;
        const int64_t slots = block.groups * block.group;
        int64_t bytes = 0;
        for (int64_t p = 0; p < pieces; ++p) bytes += slots * padded(std::min(kIntDims, d - p * kIntDims));
        block.digits = Buffer<int8_t>(bytes, true);
        block.offset.assign(size_t(pieces * slots), 0);
        blocks_.push_back(std::move(block));
    }
    parallel(threads, [&](int t) {
        std::vector<int8_t> digits(size_t(d * parts_));
        const Range mine = share(count_, 1, t, threads);
        for (int64_t i = mine.begin; i < mine.end; ++i) {
            const double* x = request.x + which[i] * d;
            // In units of `step` every coordinate is an integer of `parts_` digits plus a rounding error.
            // A hair more than the largest, which must not round up beyond the digits.
            const double step = std::max(top[size_t(i)], 1e-300) / (units - 1);
            const float* up = stochastic ? dithers() : nullptr;
            const double residual = parts_ < 4 ? to_digits<int32_t>(x, step, up, d, parts_, digits.data())
                                               : to_digits<int64_t>(x, step, up, d, parts_, digits.data());
            scale_[size_t(i)] = step;
            query_step_[size_t(i)] = step * std::sqrt(1.0 / 6);
            row_error_[size_t(i)] = inv_sigma2_[size_t(i)] * residual;
            base_error_[size_t(i)] = inv_sigma2_[size_t(i)] * 1e-14 * norm(x, d) * stats_.max_norm;
            place_digits(digits.data(), i);
        }
    });
}

// Copies the digits of query i to where dot_u8 reads them: [groups][d/64][group][64], piece after piece of kIntDims.
void Logits::place_digits(const int8_t* digits, int64_t i) {
    Block& block = blocks_[size_t(i / kQueryBlock)];
    const int64_t slots = block.groups * block.group;
    int8_t* piece = block.digits.data();
    for (int64_t p = 0; p * kIntDims < rows_.d; ++p) {
        const int64_t len = std::min(kIntDims, rows_.d - p * kIntDims), dq = padded(len);
        for (int part = 0; part < parts_; ++part) {
            const int64_t v = i % kQueryBlock * parts_ + part;
            const int8_t* source = digits + part * rows_.d + p * kIntDims;
            int8_t* target = piece + v / block.group * block.group * dq + v % block.group * 64;
            int32_t sum = 0;
            for (int64_t k = 0; k < len; ++k) sum += source[k];
            for (int64_t k = 0; k < len; k += 64, target += 64 * block.group)
                std::memcpy(target, source + k, size_t(std::min<int64_t>(64, len - k)));
            block.offset[size_t(p * slots + v)] = -128 * sum;
        }
        piece += slots * dq;
    }
}

void Logits::pack_floats(const Request& request, const int64_t* which) {
    const int64_t d = rows_.d, dp = padded(d);
    if (wide_)
        queries64_ = Buffer<double>(count_ * dp, true);
    else
        queries32_ = Buffer<float>(count_ * dp, true);
    // Certain: n rounded additions are off by n u |x||v| (Cauchy-Schwarz on sum |x_k v_k|). As independent errors, each
    // addition of lane j errs by at most u |x_j||v_j|, with x_j and v_j what the lane sees of them, so that the
    // variance is at most n u^2 max_j |x_j|^2 |v|^2.
    const int lanes = kernels_.dot_lanes;
    const double terms = kernels_.dot_terms, unit = wide_ ? 0x1p-53 * 2 : kUnitRoundoff;
    for (int64_t i = 0; i < count_; ++i) {
        const double* x = request.x + which[i] * d;
        double lane_max = 0, top = 0;
        for (int64_t base = 0; base < d; base += kFold) {
            double lane[kPad] = {};
            for (int64_t k = base; k < std::min(base + kFold, d); ++k) {
                lane[k % lanes] += x[k] * x[k];
                top = std::max(top, std::fabs(x[k]));
            }
            lane_max = std::max(lane_max, *std::max_element(lane, lane + lanes));
        }
        for (int64_t k = 0; k < d; ++k)
            if (wide_)
                queries64_[i * dp + k] = x[k];
            else
                queries32_[i * dp + k] = float(x[k]);
        const double size = unit * stats_.max_norm * inv_sigma2_[size_t(i)];
        row_error_[size_t(i)] = 0;
        base_error_[size_t(i)] = (terms + 2) * size * norm(x, d);
        query_step_[size_t(i)] = unit * top;
        logit_noise_[size_t(i)] = std::sqrt(terms * lane_max) * size;
    }
}

Logits::Work Logits::work(int64_t tile) const {
    Work w;
    const int64_t block = std::min(kQueryBlock, count_);
    w.logits = Buffer<double>(block * tile);
    if (integer_)
        w.sums = Buffer<int32_t>((block * parts_ + kMaxDotGroup) * tile);
    else if (!direct())
        w.tile = Buffer<float>(tile * tile_stride(rows_.d));
    return w;
}

void Logits::load(Work& w, int64_t first, int R) const {
    if (integer_ || direct()) return;
    const int64_t dp = padded(rows_.d), ld = tile_stride(rows_.d);
    if (rows_.dtype == DType::f32 && rows_.d == dp && count_ <= kMemoryBound) {  // as stored is as needed
        w.rows = static_cast<const float*>(rows_.row(first));
        w.ld = rows_.d;
        return;
    }
    for (int r = 0; r < R; ++r) kernels_.widen(rows_.row(first + r), rows_.dtype, rows_.d, dp, w.tile.data() + r * ld);
    w.rows = w.tile.data();
    w.ld = ld;
}

void Logits::products(Work& w, int64_t first, int R, int64_t b, int64_t tile) const {
    const int64_t size = block_size(b), start = b * kQueryBlock;
    double* l = w.logits.data();
    for (int64_t q = 0; q < size; ++q) std::fill(l + q * tile, l + q * tile + R, 0.0);
    if (integer_) {
        const Block& block = blocks_[size_t(b)];
        const int64_t slots = block.groups * block.group;
        const int8_t* digits = block.digits.data();
        for (int64_t p = 0; p * kIntDims < rows_.d; ++p) {
            const int64_t len = std::min(kIntDims, rows_.d - p * kIntDims), dq = padded(len);
            kernels_.dot_u8(static_cast<const uint8_t*>(rows_.row(first)) + p * kIntDims, rows_.d, R, digits, dq,
                            int(block.groups), int(block.group), len, w.sums.data(), tile);
            digits += slots * dq;
            for (int64_t q = 0; q < size; ++q) {
                double weight = scale_[size_t(start + q)];
                for (int part = parts_ - 1; part >= 0; --part, weight *= 256) {
                    const int32_t* s = w.sums.data() + (q * parts_ + part) * tile;
                    const int32_t offset = block.offset[size_t(p * slots + q * parts_ + part)];
                    double* out = l + q * tile;
                    for (int r = 0; r < R; ++r) out[r] += weight * double(s[r] + offset);
                }
            }
        }
    } else if (wide_) {
        const int64_t dp = padded(rows_.d);
        kernels_.dot_f64(w.rows, w.ld, R, queries64_.data() + start * dp, dp, int(size), dp, l, tile);
    } else if (direct()) {
        kernels_.dot_few(rows_.row(first), rows_.dtype, rows_.d, R, queries32_.data(), padded(rows_.d), int(size), l,
                         tile);
    } else {
        const int64_t dp = padded(rows_.d);
        kernels_.dot_f32(w.rows, w.ld, R, queries32_.data() + start * dp, dp, int(size), dp, l, tile);
    }
}

void Logits::block(Work& w, int64_t first, int R, int64_t b, int64_t tile) const {
    products(w, first, R, b, tile);
    const int64_t size = block_size(b), start = b * kQueryBlock;
    double* l = w.logits.data();
    const double* h = stats_.half_norm + first;
    for (int64_t q = 0; q < size; ++q) {
        double* out = l + q * tile;
        const double inverse = inv_sigma2_[size_t(start + q)];
        if (const double* bias = bias_[size_t(start + q)])
            for (int r = 0; r < R; ++r) out[r] = (out[r] - h[r]) * inverse + bias[first + r];
        else
            for (int r = 0; r < R; ++r) out[r] = (out[r] - h[r]) * inverse;
    }
}

}  // namespace geodiff
