#include "weighted_sum.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "digits.h"

namespace geodiff {
namespace {

constexpr int kMostWeightRows = 64;  // of any IntegerLayout::weight_rows

int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Sums grow slowly, but at first.
bool looked_at(int64_t tile) { return tile % 16 == 0 || (tile < 16 && (tile & (tile - 1)) == 0); }

// Null where weights in float32 are faster.
const IntegerProducts* integers_for(const Request& request, int64_t count, const WeightKind& kind) {
    if (!request.weight_integers()) return nullptr;
    const IntegerProducts* integers = request.integers_for(count + kind.beside);
    const IntegerLayout& layout = integers->layout;
    return layout.digits(kind.bits) <= layout.worth || count <= layout.sum_to ? integers : nullptr;
}

}  // namespace

WeightedSum::WeightedSum(const Request& request, int64_t count, int64_t tile, const WeightKind& kind)
    : kernels_(request.kernels),
      rows_(request.rows),
      integers_(integers_for(request, count, kind)),
      count_(count),
      tile_(rounded_up(tile, kMostWeightRows)),
      dp_(padded(rows_.d)) {
    int64_t most = kernels_.floats.sum_group;
    const int parts = integers_ ? integers_->layout.digits(kind.bits) : 1;
    if (integers_) most = integers_->layout.sum_group / parts;
    groups_ = (count + most - 1) / most;
    group_ = integers_ && count > 0 ? (count + groups_ - 1) / groups_ : most;
    const int64_t slots = groups_ * group_;
    sums_ = Buffer<float>(slots * dp_, true);
    active_.assign(size_t(groups_), 0);
    set_.assign(size_t(slots), 0);
    rescale_.assign(size_t(slots), 1.0f);
    longest_.assign(size_t(slots), 0.0);
    before_.assign(size_t(slots), 1.0f);
    if (!integers_) {
        weights_ = Buffer<float>(slots * tile_);
        in_tiles_ = request.float_tiles(count);
        if (in_tiles_) room_ = Buffer<char>(in_tiles_->room_bytes(count));
        return;
    }
    // With a bias 31 bits are as many as will be wanted, and need none.
    digits_ = make_digits(parts, kind.either_sign || (integers_->layout.bias != 0 && parts > 1));
    const OneQuerySum& alone = integers_->one_query;
    if (count == 1 && alone.bits > 0 && kind.bits == alone.bits) {
        alone_ = &alone;
        digits_.units = alone.most_of_two;
    }
    if (!kind.carried) return;
    carried_ = kind.carried;
    rests_ = make_digits(1, true);
    along_ = Buffer<float>(slots * carried_.count(), true);
    rest_.resize(size_t(slots));
}

TileDigits WeightedSum::make_digits(int parts, bool balanced) const {
    const int bits = integers_->layout.digit_bits;
    const int64_t slots = groups_ * group_;
    TileDigits d;
    d.parts = parts;
    d.balanced = balanced;
    d.units = std::min(balanced ? largest_balanced(bits, parts) : largest_unsigned(bits, parts), double(INT32_MAX));
    d.digits = Buffer<char>(slots * parts * tile_ * bits / 8);
    d.total.assign(size_t(slots * parts), 0);
    d.quantum.assign(size_t(slots), 0.0f);
    return d;
}

char* WeightedSum::place(TileDigits& d, int64_t slot) const {
    const IntegerLayout& layout = integers_->layout;
    const int64_t of_group = digits_of_step(d) * (rounded_up(R_, layout.weight_rows) / layout.weight_rows);
    const int64_t at = slot / group_ * of_group + slot % group_ * d.parts * layout.weight_rows;
    return d.digits.data() + at * layout.digit_bits / 8;
}

void WeightedSum::clear(TileDigits& d, int64_t slot) const {
    const IntegerLayout& layout = integers_->layout;
    const int64_t digits = d.parts * layout.weight_rows, bytes = layout.digit_bits / 8;
    char* at = place(d, slot);
    for (int64_t r = 0; r < R_; r += layout.weight_rows, at += digits_of_step(d) * bytes) {
        if (layout.digit_bits == 8)
            std::memset(at, 0, size_t(digits));
        else
            std::fill_n(reinterpret_cast<int16_t*>(at), digits, d.balanced ? int16_t(0) : int16_t(-layout.bias));
    }
    std::fill_n(d.total.begin() + slot * d.parts, d.parts, 0);
}

WeightDigits WeightedSum::view(const TileDigits& d) const {
    WeightDigits w{};
    w.balanced = d.balanced;
    w.groups = int(groups_);
    w.group = int(group_);
    w.parts = d.parts;
    w.digits = d.digits.data();
    w.active = active_.data();
    w.total = d.total.data();
    w.rescale = rescale_.data();
    w.quantum = d.quantum.data();
    return w;
}

void WeightedSum::begin(int64_t first, int R, uint64_t seed) {
    first_ = first;
    R_ = R;
    seed_ = seed;
    any_ = false;
    std::fill(active_.begin(), active_.end(), uint8_t(0));
    std::fill(set_.begin(), set_.end(), uint8_t(0));
}

void WeightedSum::open(int64_t q, double rescale) {
    any_ = true;
    active_[size_t(q / group_)] = 1;
    set_[size_t(q)] = 1;
    rescale_[size_t(q)] = float(rescale);
    longest_[size_t(q)] *= rescale;
    before_[size_t(q)] *= float(rescale);
}

double WeightedSum::length(int64_t q) const {
    return std::sqrt(double(kernels_.vectors.square_f32(sum(q), sum_before(q), before(q), dp_, step())));
}

void WeightedSum::fold(int64_t q) {
    kernels_.vectors.fold_f32(sums_.data() + at(q), before(q), sums_before_.data() + at(q), dp_, step());
    before_[size_t(q)] = 1;
}

void WeightedSum::set(int64_t q, const double* p, double rescale, Online& state) {
    open(q, rescale);
    if (!integers_) {
        state.sum_q += kernels_.to_floats(p, R_, weights(q));
        return;
    }
    if (carried_) {
        Rest& rest = rest_[size_t(q)];
        rest.sum *= rescale;
        rest.unsaid *= rescale * rescale;
        rest.rounding *= rescale * rescale;
    }
    set_digits(q, p, state);
}

void WeightedSum::set_digits(int64_t q, const double* p, Online& state) {
    // The same table for every query and tile, read from another place each time: unbiased, independent, repeatable.
    const uint64_t number = seed_ * 0x9e3779b97f4a7c15ull + uint64_t(q) * 2654435761ull;
    WeightPlace to{};
    to.units = digits_.units;
    to.up = dithers() + number % kDithers;
    to.parts = digits_.parts;
    to.bias = integers_->layout.bias;
    to.step = digits_of_step(digits_);
    to.digits = place(digits_, q);
    to.total = digits_.total.data() + q * digits_.parts;
    if (carried_) {
        to.rest = place(rests_, q);
        to.rest_step = digits_of_step(rests_);
        to.rest_total = rests_.total.data() + q;
        to.rest_units = rests_.units;
        to.rest_up = dithers() + (number + kDithers / 2) % kDithers;
        to.size = carried_.unsaid + first_;
    }
    const RoundedWeights found = alone_ ? alone_->round(p, R_, to) : integers_->round(p, R_, digits_.balanced, to);
    const double quantum = double(digits_.quantum[size_t(q)] = found.quantum);
    state.sum_q += quantum * found.total;
    state.noise += quantum * quantum * found.variance;
    if (!carried_) return;
    const float unit = rests_.quantum[size_t(q)] = float(quantum / rests_.units);
    const double sum = double(unit) * rests_.total[size_t(q)];
    state.sum_q += sum;
    Rest& rest = rest_[size_t(q)];
    rest.sum += sum;
    rest.unsaid += quantum * quantum * found.sized;
    rest.rounding += quantum * quantum * found.rest_variance;
}

// The rests of a tile's weights with what coordinates say of its rows. `ahead`: another tile of as many rows follows.
void WeightedSum::add_rests(bool ahead) {
    const RowTail of_rows = carried_.of_rows(first_), next = carried_.of_rows(first_ + R_);
    for (int h = 0; h < 2 && of_rows.half[h]; ++h)
        integers_->sum(of_rows.half[h], kDirections, R_, kDirections, view(rests_),
                       along_.data() + h * (kDirections / kPad) * step(), in_blocks() ? step() : carried_.count(),
                       ahead ? next.half[h] : nullptr);
}

void WeightedSum::add(const void* next) {
    if (!any_) return;
    if (integers_ && count_ < integers_->layout.sum_asks_from) next = nullptr;
    clear_others();
    multiply(next);
    if (carried_) add_rests(next != nullptr);
    count_tile();
}

void WeightedSum::add_both(WeightedSum& coarser, WeightedSum& finer, const void* next) {
    const IntegerProducts* integers = coarser.integers_;
    const bool at_once = coarser.any_ && finer.any_ && integers && integers == finer.integers_ && integers->sum_both &&
                         !coarser.digits_.balanced && !finer.digits_.balanced;
    if (!at_once) {
        coarser.add(next);
        finer.add(coarser.count_ > 0 ? nullptr : next);
        return;
    }
    const Rows& rows = coarser.rows_;
    coarser.clear_others();
    finer.clear_others();
    integers->sum_both(static_cast<const uint8_t*>(rows.row(coarser.first_)), rows.d, coarser.R_, rows.d,
                       {coarser.view(coarser.digits_), coarser.sums_.data(), coarser.lda()},
                       {finer.view(finer.digits_), finer.sums_.data(), finer.lda()});
    for (WeightedSum* sum : {&coarser, &finer}) {
        if (sum->carried_) sum->add_rests(false);
        sum->count_tile();
    }
}

// The tile has been added.
void WeightedSum::count_tile() {
    ++tiles_;
    if (looked_at(tiles_))
        for (int64_t q = 0; q < count_; ++q)
            if (set_[size_t(q)]) longest_[size_t(q)] = std::max(longest_[size_t(q)], length(q));
    if (tiles_ % kTogether > 0) return;
    if (!sums_before_.data()) sums_before_ = Buffer<float>(groups_ * group_ * dp_, true);
    for (int64_t q = 0; q < count_; ++q) fold(q);
}

// The digits and weights of those that take nothing from this tile, in a group of which others do.
void WeightedSum::clear_others() {
    for (int64_t slot = 0; slot < groups_ * group_; ++slot) {
        if (set_[size_t(slot)] || !active_[size_t(slot / group_)]) continue;
        rescale_[size_t(slot)] = 1;
        if (!integers_) std::fill_n(weights_.data() + slot * tile_, R_, 0.0f);
        if (integers_) clear(digits_, slot);
        if (carried_) clear(rests_, slot);
    }
}

void WeightedSum::multiply(const void* next) {
    if (alone_) {
        alone_->sum(static_cast<const uint8_t*>(rows_.row(first_)), rows_.d, R_, rows_.d, view(digits_), sums_.data(),
                    static_cast<const uint8_t*>(next));
        return;
    }
    if (integers_) {
        integers_->sum(static_cast<const uint8_t*>(rows_.row(first_)), rows_.d, R_, rows_.d, view(digits_),
                       sums_.data(), lda(), static_cast<const uint8_t*>(next));
        return;
    }
    if (count_ <= kernels_.floats.few) {
        kernels_.sum_few(rows_.row(first_), rows_.dtype, rows_.d, R_, weights_.data(), tile_, rescale_.data(),
                         int(count_), sums_.data(), dp_, next);
        return;
    }
    for (int64_t g = 0; g < groups_;) {  // runs of groups, so that a block of columns in L1 serves them all
        int64_t end = g;
        while (end < groups_ && active_[size_t(end)]) ++end;
        const int64_t first = g * group_;
        const int some = int(std::min(end * group_, count_) - first);
        const void* rows = rows_.row(first_);
        const float *weights = weights_.data() + first * tile_, *rescale = rescale_.data() + first;
        float* sums = sums_.data() + first * dp_;
        if (in_tiles_ && some >= in_tiles_->from(rows_.dtype))
            in_tiles_->sum(rows, rows_.dtype, rows_.d, R_, weights, tile_, rescale, some, sums, dp_, next,
                           room_.data());
        else if (end > g)
            kernels_.sum_f32(rows, rows_.dtype, rows_.d, R_, weights, tile_, rescale, some, sums, dp_, next);
        g = end + 1;
    }
}

}  // namespace geodiff
