#include "weighted_sum.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "digits.h"

namespace geodiff {
WeightedSum::WeightedSum(const Kernels& kernels, const Rows& rows, int64_t count, int64_t tile, int parts,
                         Weights weights)
    : kernels_(kernels),
      rows_(rows),
      count_(count),
      tile_((tile + 3) / 4 * 4),
      dp_(padded(rows.d)),
      parts_(parts),
      integer_(kernels.int8 && rows.dtype == DType::u8),
      either_sign_(weights == Weights::either_sign) {
    const int64_t most = integer_ ? kSumSlots / parts : kernels.sum_block;
    groups_ = (count + most - 1) / most;
    group_ = integer_ && count > 0 ? (count + groups_ - 1) / groups_ : most;
    const int64_t slots = groups_ * group_;
    sums_ = Buffer<float>(slots * dp_, true);
    active_.assign(size_t(groups_), 0);
    rescale_.assign(size_t(slots), 1.0f);
    if (integer_) {
        digits_ = Buffer<int8_t>(slots * parts_ * tile_, true);
        offset_.assign(size_t(slots * parts_), 0);
        quantum_.assign(size_t(slots), 0.0f);
    } else {
        weights_ = Buffer<float>(slots * tile_, true);
    }
}

void WeightedSum::begin(int R, uint64_t seed) {
    R_ = R;
    seed_ = seed;
    any_ = false;
    std::fill(active_.begin(), active_.end(), uint8_t(0));
}

void WeightedSum::activate(int64_t g) {
    active_[size_t(g)] = 1;
    any_ = true;
    std::fill_n(rescale_.begin() + g * group_, group_, 1.0f);
    if (integer_) {
        std::fill_n(digits_.data() + g * group_bytes(), group_bytes(), int8_t(0));
        std::fill_n(offset_.begin() + g * group_ * parts_, group_ * parts_, 0);
    } else {
        std::fill_n(weights_.data() + g * group_ * tile_, group_ * tile_, 0.0f);
    }
}

template <bool kEitherSign>
void WeightedSum::write_digits(int64_t q, int32_t* value) {
    const int64_t g = q / group_, member = q % group_;
    int8_t* out = digits_.data() + g * group_bytes();
    int32_t* offset = offset_.data() + q * parts_;
    const int64_t step = group_ * parts_ * 4;
    int8_t digit[kMaxTileRows];
    for (int r = R_; r < (R_ + 3) / 4 * 4; ++r) digit[r] = 0;
    for (int part = parts_ - 1; part >= 0; --part) {
        int32_t sum = 0;
        const bool first = part == 0;
#pragma omp simd reduction(+ : sum)
        for (int r = 0; r < R_; ++r) {
            const int32_t rest = kEitherSign ? ((value[r] + 128) & 255) - 128 : value[r] & 255;
            const int32_t low = first ? value[r] : rest;
            digit[r] = int8_t(low);
            sum += low;
            value[r] = (value[r] - low) >> 8;
        }
        if (kEitherSign) offset[part] = -128 * sum;
        int8_t* o = out + (member * parts_ + part) * 4;
        for (int r = 0; r < R_; r += 4, o += step) std::memcpy(o, digit + r, 4);
    }
}

void WeightedSum::set(int64_t q, const double* p, double rescale, Online& state) {
    const int64_t g = q / group_;
    if (!active_[size_t(g)]) activate(g);  // the others of the group take nothing unless they are set as well
    rescale_[size_t(q)] = float(rescale);
    if (integer_) return either_sign_ ? set_digits<true>(q, p, state) : set_digits<false>(q, p, state);
    float* w = weights_.data() + q * tile_;
    for (int r = 0; r < R_; ++r) w[r] = float(p[r]);
    double total = 0;
    for (int r = 0; r < R_; ++r) total += double(w[r]);
    state.sum_q += total;
}

template <bool kEitherSign>
void WeightedSum::set_digits(int64_t q, const double* p, Online& state) {
    double top = 0;
#pragma omp simd reduction(max : top)
    for (int r = 0; r < R_; ++r) top = std::max(top, kEitherSign ? std::fabs(p[r]) : p[r]);
    const double units =
        kEitherSign ? (parts_ == 2 ? kTwoBalanced : kThreeBalanced) : (parts_ == 2 ? kTwoUnsigned : kThreeUnsigned);
    quantum_[size_t(q)] = float(std::max(top / units, 0x1p-120));
    const double quantum = double(quantum_[size_t(q)]), inverse = 1 / quantum;
    // The same table for every query and tile, read from another place each time: unbiased, independent, repeatable.
    const float* u = dithers() + (seed_ * 0x9e3779b97f4a7c15ull + uint64_t(q) * 2654435761ull) % kDithers;
    int32_t value[kMaxTileRows];
    std::conditional_t<kEitherSign, int32_t, uint32_t> total = 0;  // at most kMaxTileRows * units: just so
    float variance = 0;
#pragma omp simd reduction(+ : total, variance)
    for (int r = 0; r < R_; ++r) {
        const double exact = std::min(kEitherSign ? std::max(p[r] * inverse, -units) : p[r] * inverse, units);
        int32_t whole = int32_t(exact);
        if (kEitherSign) whole -= exact < double(whole);  // down, where the conversion goes towards 0
        const float rest = float(exact - double(whole));
        variance += rest * (1 - rest);
        value[r] = whole + (rest > u[r]);
        total += decltype(total)(value[r]);
    }
    state.sum_q += quantum * double(total);
    state.noise += quantum * quantum * double(variance);
    write_digits<kEitherSign>(q, value);
}

void WeightedSum::add(int64_t first, const float* tile, int64_t ld, const void* next) {
    if (!any_) return;
    if (integer_) {
        const WeightDigits w{either_sign_,   int(groups_),   int(group_),     parts_,         digits_.data(),
                             active_.data(), offset_.data(), rescale_.data(), quantum_.data()};
        kernels_.sum_u8(static_cast<const uint8_t*>(rows_.row(first)), rows_.d, R_, rows_.d, w, sums_.data(), dp_,
                        static_cast<const uint8_t*>(next));
        return;
    }
    if (!tile) {
        kernels_.sum_few(rows_.row(first), rows_.dtype, rows_.d, R_, weights_.data(), tile_, rescale_.data(),
                         int(count_), sums_.data(), dp_, next);
        return;
    }
    for (int64_t g = 0; g < groups_;) {  // runs of groups, so that a block of columns in L1 serves them all
        int64_t end = g;
        while (end < groups_ && active_[size_t(end)]) ++end;
        if (end > g)
            kernels_.sum_f32(tile, ld, R_, weights_.data() + g * group_ * tile_, tile_, rescale_.data() + g * group_,
                             int(std::min(end * group_, count_) - g * group_), dp_, sums_.data() + g * group_ * dp_,
                             dp_);
        g = end + 1;
    }
}

void WeightedSum::merge_into(int64_t q, double factor, double* out) const {
    const float* sums = sums_.data() + q * dp_;
    if (!integer_) {
        for (int64_t k = 0; k < rows_.d; ++k) out[k] += factor * double(sums[k]);
        return;
    }
    for (int64_t s = 0; s < dp_; s += 4) {  // four slots in a row are four columns in a row
        const int64_t c = column_of_slot(s), end = std::min<int64_t>(4, rows_.d - c);
        if (end == 4)
            for (int64_t i = 0; i < 4; ++i) out[c + i] += factor * double(sums[s + i]);
        else
            for (int64_t i = 0; i < end; ++i) out[c + i] += factor * double(sums[s + i]);
    }
}

}  // namespace geodiff
