#include "weighted_sum.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "digits.h"

namespace geodiff {
namespace {

constexpr int kMostWeightRows = 8;  // of any IntegerLayout::weight_rows

int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Null where weights in float32 are faster.
const IntegerProducts* integers_for(const Request& request, int64_t count, int bits) {
    const IntegerProducts* integers = request.dense_integers();
    if (!integers) return nullptr;
    const IntegerLayout& layout = integers->layout;
    return layout.digits(bits) <= layout.worth || count <= layout.sum_to ? integers : nullptr;
}

}  // namespace

WeightedSum::WeightedSum(const Request& request, int64_t count, int64_t tile, int bits, Weights weights)
    : kernels_(request.kernels),
      rows_(request.rows),
      integers_(integers_for(request, count, bits)),
      count_(count),
      tile_(rounded_up(tile, kMostWeightRows)),
      dp_(padded(rows_.d)),
      balanced_(weights == Weights::either_sign) {
    int64_t most = kernels_.floats.sum_group;
    if (integers_) {
        const IntegerLayout& layout = integers_->layout;
        parts_ = layout.digits(bits);
        most = layout.sum_group / parts_;
        balanced_ |= layout.bias != 0 && parts_ > 1;  // 31 bits are as many as will be wanted, and need no bias
        const double held =
            balanced_ ? largest_balanced(layout.digit_bits, parts_) : largest_unsigned(layout.digit_bits, parts_);
        units_ = std::min(held, double(INT32_MAX));
    }
    groups_ = (count + most - 1) / most;
    group_ = integers_ && count > 0 ? (count + groups_ - 1) / groups_ : most;
    const int64_t slots = groups_ * group_;
    sums_ = Buffer<float>(slots * dp_, true);
    active_.assign(size_t(groups_), 0);
    set_.assign(size_t(slots), 0);
    rescale_.assign(size_t(slots), 1.0f);
    if (integers_) {
        digits_ = Buffer<char>(slots * parts_ * tile_ * integers_->layout.digit_bits / 8);
        total_.assign(size_t(slots * parts_), 0);
        quantum_.assign(size_t(slots), 0.0f);
    } else {
        weights_ = Buffer<float>(slots * tile_);
    }
}

int64_t WeightedSum::group_bytes() const {
    const IntegerLayout& layout = integers_->layout;
    return group_ * parts_ * rounded_up(R_, layout.weight_rows) * layout.digit_bits / 8;
}

void WeightedSum::begin(int R, uint64_t seed) {
    R_ = R;
    seed_ = seed;
    any_ = false;
    std::fill(active_.begin(), active_.end(), uint8_t(0));
    std::fill(set_.begin(), set_.end(), uint8_t(0));
}

void WeightedSum::clear(int64_t slot) {
    rescale_[size_t(slot)] = 1;
    if (!integers_) {
        std::fill_n(weights_.data() + slot * tile_, R_, 0.0f);
        return;
    }
    const IntegerLayout& layout = integers_->layout;
    const int64_t digits = parts_ * layout.weight_rows, steps = rounded_up(R_, layout.weight_rows) / layout.weight_rows;
    char* at = digits_.data() + slot / group_ * group_bytes() + slot % group_ * digits * layout.digit_bits / 8;
    for (int64_t i = 0; i < steps; ++i, at += group_ * digits * layout.digit_bits / 8) {
        if (layout.digit_bits == 8)
            std::memset(at, 0, size_t(digits));
        else
            std::fill_n(reinterpret_cast<int16_t*>(at), digits, balanced_ ? int16_t(0) : int16_t(-layout.bias));
    }
    std::fill_n(total_.begin() + slot * parts_, parts_, 0);
}

void WeightedSum::open(int64_t q, double rescale) {
    any_ = true;
    active_[size_t(q / group_)] = 1;
    set_[size_t(q)] = 1;
    rescale_[size_t(q)] = float(rescale);
}

void WeightedSum::set(int64_t q, const double* p, double rescale, Online& state) {
    open(q, rescale);
    if (integers_)
        set_digits(q, p, state);
    else
        state.sum_q += kernels_.to_floats(p, R_, weights_.data() + q * tile_);
}

void WeightedSum::set(int64_t q, const float* w, double rescale) {
    open(q, rescale);
    std::copy_n(w, R_, weights_.data() + q * tile_);
}

void WeightedSum::set_digits(int64_t q, const double* p, Online& state) {
    const IntegerLayout& layout = integers_->layout;
    const int64_t rows = layout.weight_rows, slot = (q % group_ * parts_) * rows;
    WeightPlace to{};
    to.units = units_;
    // The same table for every query and tile, read from another place each time: unbiased, independent, repeatable.
    to.up = dithers() + (seed_ * 0x9e3779b97f4a7c15ull + uint64_t(q) * 2654435761ull) % kDithers;
    to.parts = parts_;
    to.bias = layout.bias;
    to.step = group_ * parts_ * rows;
    to.digits = digits_.data() + q / group_ * group_bytes() + slot * layout.digit_bits / 8;
    to.total = total_.data() + q * parts_;
    const RoundedWeights found = integers_->round(p, R_, balanced_, to);
    const double quantum = double(quantum_[size_t(q)] = found.quantum);
    state.sum_q += quantum * found.total;
    state.noise += quantum * quantum * found.variance;
}

void WeightedSum::add(int64_t first, const void* next) {
    if (!any_) return;
    for (int64_t slot = 0; slot < groups_ * group_; ++slot)  // the others of a group take nothing
        if (!set_[size_t(slot)] && active_[size_t(slot / group_)]) clear(slot);
    if (integers_) {
        WeightDigits w{};
        w.balanced = balanced_;
        w.groups = int(groups_);
        w.group = int(group_);
        w.parts = parts_;
        w.digits = digits_.data();
        w.active = active_.data();
        w.total = total_.data();
        w.rescale = rescale_.data();
        w.quantum = quantum_.data();
        integers_->sum(static_cast<const uint8_t*>(rows_.row(first)), rows_.d, R_, rows_.d, w, sums_.data(), dp_,
                       static_cast<const uint8_t*>(next));
        return;
    }
    if (count_ <= kernels_.floats.few) {
        kernels_.sum_few(rows_.row(first), rows_.dtype, rows_.d, R_, weights_.data(), tile_, rescale_.data(),
                         int(count_), sums_.data(), dp_, next);
        return;
    }
    for (int64_t g = 0; g < groups_;) {  // runs of groups, so that a block of columns in L1 serves them all
        int64_t end = g;
        while (end < groups_ && active_[size_t(end)]) ++end;
        if (end > g)
            kernels_.sum_f32(rows_.row(first), rows_.dtype, rows_.d, R_, weights_.data() + g * group_ * tile_, tile_,
                             rescale_.data() + g * group_, int(std::min(end * group_, count_) - g * group_),
                             sums_.data() + g * group_ * dp_, dp_, next);
        g = end + 1;
    }
}

}  // namespace geodiff
