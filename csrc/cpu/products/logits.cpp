#include "logits.h"

#include <cmath>

#include "../runtime/parallel.h"
#include "bounds.h"
#include "digits.h"

namespace geodiff {
namespace {

constexpr int64_t kFloatUnit = 24;    // rows of a full tile of floats are a multiple of this
constexpr int64_t kMostFloats = 120;  // and at most so many
constexpr int64_t kFewRows = 64;      // in a tile, or fewer, that are not worth a way of their sums to L3 and back
constexpr int64_t kFewTiles = 8;
constexpr int64_t kMemoryBound = 8;     // queries; beyond, arithmetic sets the pace
constexpr int64_t kFewFloats = 48;      // queries over rows of floats that want small tiles
constexpr int64_t kSmall = 192 << 10;   // bytes of a tile
constexpr int64_t kLarge = 1536 << 10;  // the same of floats
constexpr int64_t kInPieces = 3 << 20;  // the same where they are cut into pieces, which takes longer than to read them
constexpr double kCaution = 1.5;        // a query that fails for one digit too few takes another pass

// Rows of so many bytes, about. `summed`: a second product follows.
int64_t rows_of(const Request& request, int64_t count, int64_t budget, bool summed) {
    const IntegerProducts* integers = request.integers_for(count);
    const Rows& rows = request.rows;
    const int64_t bytes = padded(rows.d) * item_size(rows.dtype);
    const FloatTiles* tiles = integers ? nullptr : request.float_tiles(count);
    const int64_t unit = integers ? integers->layout.row_unit : tiles ? tiles->step : kFloatUnit;
    const int64_t most = integers || tiles ? kMaxTileRows / unit * unit : kMostFloats;
    const int64_t fit = (budget + bytes * unit / 2) / bytes / unit * unit;
    // Sums of long rows lie beyond L2 whatever the tile: the more rows share their way there and back, the better.
    if (integers && summed && fit <= kFewRows) return most;
    // Few rows: tiles of one size, where the last would be short and cost nearly as much as the others.
    if (integers && fit >= most && rows.n <= kFewTiles * most) {
        const int64_t tiles = (rows.n + kMaxTileRows - 1) / kMaxTileRows, equal = (rows.n + tiles - 1) / tiles;
        return std::min((equal + 3) / 4 * 4, int64_t(kMaxTileRows));
    }
    return std::clamp(fit, unit, most);
}

// Whether the first product of a block of so many queries asks for rows to come.
bool asks(const IntegerLayout& layout, int64_t queries) { return queries >= layout.dot_asks_from; }

}  // namespace

int64_t tile_rows(const Request& request, int64_t count) {
    const IntegerProducts* integers = request.integers_for(count);
    const bool few = count <= (integers ? integers->layout.small_to : kFewFloats);
    if (few) return rows_of(request, count, kSmall, count > kMemoryBound);
    const int64_t of_floats = request.float_tiles(count) ? kInPieces : kLarge;
    const int64_t many = !integers              ? of_floats
                         : count <= kQueryBlock ? integers->layout.tile
                                                : integers->layout.crowded_tile;
    return rows_of(request, count, many, true);
}

int64_t screened_tile_rows(const Request& request, int64_t count) {
    const IntegerProducts* integers = request.integers_for(count);
    // Small tiles share the rows to come evenly among those at hand.
    const bool small = !integers || asks(integers->layout, (count - 1) % kQueryBlock + 1);
    return rows_of(request, count, small ? kSmall : integers->layout.tile, false);
}

Logits::Logits(const Request& request, const int64_t* which, int64_t count, Precision precision, bool exact, bool lists)
    : kernels_(request.kernels),
      rows_(request.rows),
      stats_(request.stats),
      integers_(precision == Precision::normal && in_floats(request, count, exact) ? nullptr
                                                                                   : request.integers_for(count)),
      count_(count),
      wide_(!integers_ && (precision == Precision::fine || precision == Precision::sharp)),
      alone_(precision == Precision::coarse || precision == Precision::sharp),
      prior_(size_t(count)),
      excluded_(size_t(count)),
      inv_sigma2_(size_t(count)),
      length_(size_t(count)),
      row_error_(size_t(count)),
      base_error_(size_t(count)),
      query_step_(size_t(count)),
      logit_noise_(size_t(count)),
      scale_(size_t(count)),
      lists_(lists && integers_ && integers_ != kernels_.integers) {
    for (int64_t i = 0; i < count; ++i) {
        const double sigma = request.sigma[which[i]];
        inv_sigma2_[size_t(i)] = 1 / (sigma * sigma);
        prior_[size_t(i)] = request.prior_of(which[i]);
        excluded_[size_t(i)] = request.excluded_of(which[i]);
    }
    if (!integers_) {
        pack_floats(request, which);
        return;
    }
    const bool dense = precision == Precision::normal || precision == Precision::fine;
    const bool in_lanes = dense && request.short_bytes();
    if (precision == Precision::known || (request.known && dense && !in_lanes)) recollect(request, which);
    const std::vector<VectorSize> sizes = measure(request, which);
    if (precision == Precision::known) {
        pack_pending(request, sizes);
        return;
    }
    const IntegerLayout& layout = integers_->layout;
    const bool shapes = precision == Precision::normal && request.shaping && count >= layout.shaped_from;
    if (shapes && coordinates_do(request, which, sizes)) {
        pack_pending(request, sizes);
        return;
    }
    parts_ = digits_for(request, which, sizes, precision, {});
    if (shapes) {
        const int fewer = digits_for(request, which, sizes, precision, request.shaping);
        if (fewer < parts_) {
            parts_ = fewer;
            shaping_ = request.shaping;
        }
    }
    const bool worth = exact || parts_ <= layout.worth || count_ <= layout.dot_to;
    if (precision == Precision::normal && !worth) {
        integers_ = nullptr;
        shaping_ = {};
        known_.clear();
        pack_floats(request, which);
    } else {
        if (in_lanes)
            for (int64_t b = 0; b < blocks(); ++b)
                lanes_.emplace_back(*kernels_.integers, block_size(b), rows_.d, parts_);
        pack_integers(request, which, sizes, precision);
    }
}

// How large what digits are to say of each query is; and how long the queries are.
std::vector<VectorSize> Logits::measure(const Request& request, const int64_t* which) {
    std::vector<VectorSize> sizes(static_cast<size_t>(count_));
    const int64_t d = rows_.d;
    in_shares(count_, 2 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const double* x = part(request, which, i);
            const VectorSize size = sizes[size_t(i)] = kernels_.vectors.size(x, d, d, false);
            length_[size_t(i)] = x == request.query(which[i]) ? std::sqrt(size.square) : request.length(which[i]);
        }
    });
    return sizes;
}

int Logits::digits_for(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes,
                       Precision precision, const Shaping& shaping) const {
    const bool brief = request.short_bytes();  // one more digit costs little, and log p can be as good as r
    const int bits = integers_->layout.digit_bits, usual = integers_->layout.digits(brief ? 32 : 24);
    const double log_error = brief ? std::min(kLogError, request.tol) : kLogError;
    if (precision == Precision::fine) return 32 / bits;
    const double root = std::sqrt(double(rows_.d)), spread = std::sqrt(stats_.mean_square);
    const auto enough = [&](int64_t i, int parts) {
        const double step = sizes[size_t(i)].largest / largest_balanced(bits, parts);
        if (precision == Precision::normal) {
            // What the dense pass will find (bounds.h), if the rows spread as all do and r is as long as their mean: as
            // a rule they spread less and r is longer.
            DenseErrors e{};
            e.query_step = step * std::sqrt(1.0 / 6);
            e.weight = 1;
            e.trace = stats_.mean_square;
            e.length = stats_.mean_norm + spread;
            const double sigma = request.sigma[which[i]];
            const double error =
                shaping ? kCaution * shaping.expected_error(step * std::sqrt(1.0 / 12), sigma) : dense_error(e, sigma);
            return error <= request.expected_allowance(which[i]) && (shaping || dense_log_error(e, sigma) <= log_error);
        }
        // A digit less is worth while as long as squared distances stay apart: the rounding can move their differences
        // by 4 |delta| |v - mean|.
        return 4 * 0.29 * step * root <= (precision == Precision::coarse ? 0.25 : 0.003) * spread;
    };
    int parts = 1;
    for (int64_t i = 0; i < count_; ++i)
        while (parts < usual && !enough(i, parts)) ++parts;
    return parts;
}

void Logits::pack_integers(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes,
                           Precision precision) {
    const int64_t d = rows_.d, dp = padded(d);
    const int bits = integers_->layout.digit_bits;
    // Screening and shaped queries want the smallest residual, which is known or measured; the dense pass an unbiased
    // one.
    const bool stochastic = !shaping_ && (precision == Precision::normal || precision == Precision::fine);
    const double units = largest_balanced(bits, parts_);
    columns_ = dp + (shaping_ && known_.empty() ? shaping_.count() : 0);
    if (lanes_.empty()) blocks_ = make_blocks(integers_->layout, columns_);
    if (lists_) of_lists_ = make_blocks(kernels_.integers->layout, dp);
    if (shaping_ && !known_.empty())
        for (int64_t b = 0; b < blocks(); ++b)
            tails_.emplace_back(*kernels_.integers, block_size(b), shaping_.count(), parts_);
    if (shaping_) offset_.assign(size_t(count_), 0.0);
    if (shaping_ || !known_.empty()) lost_ = Buffer<float>(count_ * dp, true);
    const int64_t together = shaping_ ? kernels_.floats.few : 1;  // queries
    in_shares((count_ + together - 1) / together, 2 * count_ * d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * together; i < std::min(end * together, count_); ++i) {
            const double* x = part(request, which, i);
            // In units of `step` every coordinate is an integer of `parts_` digits plus a rounding error.
            // A hair more than the largest, which must not round up beyond the digits; and nothing is left of a vector
            // that is known, whose step must have a reciprocal.
            const double step = std::max(sizes[size_t(i)].largest, 1e-280) / (units - 1);
            const float* up = stochastic ? dithers() : nullptr;
            float* lost = lost_.data() ? lost_.data() + i * dp : nullptr;
            const int64_t b = i / kQueryBlock, of_block = i % kQueryBlock;
            const double residual = lanes_.empty() ? integers_->place(x, d, {step, up, parts_, of_block * parts_, lost},
                                                                      place(blocks_[size_t(b)], columns_))
                                                   : lanes_[size_t(b)].place(of_block, x, step, up, lost);
            if (lists_)
                kernels_.integers->place(x, d, {step, up, parts_, of_block * parts_, nullptr},
                                         place(of_lists_[size_t(b)], dp));
            if (!known_.empty()) renew(i, request.query(which[i]));
            scale_[size_t(i)] = step;
            query_step_[size_t(i)] = step * std::sqrt(stochastic ? 1.0 / 6 : 1.0 / 12);
            row_error_[size_t(i)] = inv_sigma2_[size_t(i)] * residual;
            base_error_[size_t(i)] = inv_sigma2_[size_t(i)] * 1e-14 * length_[size_t(i)] * stats_.max_norm;
            if (shaping_ && (i % together == together - 1 || i == count_ - 1))
                pack_coordinates(i / together * together, i % together + 1);
        }
    });
}

std::vector<Logits::Block> Logits::make_blocks(const IntegerLayout& layout, int64_t columns) const {
    std::vector<Block> made;
    for (int64_t b = 0; b < blocks(); ++b) {
        Block block;
        const int64_t vectors = block_size(b) * parts_, most_in_group = layout.dot_group;
        block.groups = (vectors + most_in_group - 1) / most_in_group;
        block.group = (vectors + block.groups - 1) / block.groups;
        const int64_t slots = block.groups * block.group;
        // All columns of a vector of digits are written as it is placed; slots that no vector takes are zero.
        block.digits = Buffer<char>(slots * columns * layout.digit_bits / 8, slots > vectors);
        block.total.assign(size_t(slots), 0);
        made.push_back(std::move(block));
    }
    return made;
}

// What `count` queries from `first` on have lost along the principal directions, in the same digits, for the tails of
// the rows: rounding it costs far less than what is left.
void Logits::pack_coordinates(int64_t first, int64_t count) {
    const int64_t d = rows_.d, dp = padded(d), k = shaping_.count();
    const int bits = integers_->layout.digit_bits;
    const double most = largest_balanced(bits, parts_);
    float* lost = lost_.data() + first * dp;
    Buffer<double> along(count * k, true);
    kernels_.dot_few(shaping_.directions, DType::f32, d, int(k), lost, dp, int(count), along.data(), k);
    Buffer<float> carried(count * k), keep(count);
    for (int64_t i = first; i < first + count; ++i) {
        const int64_t at = (i - first) * k;
        if (pending_) scale_[size_t(i)] = unit_of_coordinates(i, along.data() + at);
        const double step = scale_[size_t(i)];
        for (int64_t j = 0; j < k; ++j) {
            const double digit = std::clamp(std::nearbyint(along[at + j] * shaping_.step[j] / step), -most, most);
            const double g = digit * step / shaping_.step[j];
            along[at + j] = digit;
            carried[at + j] = -float(g);
            offset_[size_t(i)] += g * shaping_.centre[j];
        }
        keep[i - first] = 1;
        const int64_t b = i / kQueryBlock, of_block = i % kQueryBlock;
        if (tails_.empty())
            integers_->place(along.data() + at, k, {1, nullptr, parts_, of_block * parts_, nullptr},
                             place(blocks_[size_t(b)], columns_, padded(d)));
        else
            tails_[size_t(b)].place(of_block, along.data() + at, 1);
    }
    kernels_.sum_few(shaping_.directions, DType::f32, d, int(k), carried.data(), k, keep.data(), int(count), lost, dp,
                     nullptr);
}

Logits::Work Logits::work(int64_t tile) const {
    Work w;
    const int64_t block = std::min(this->block(), count_);
    w.logits = Buffer<double>(block * tile);
    if (integer()) w.sums = Buffer<double>((block * parts_ + integers_->layout.dot_group) * tile);
    return w;
}

// The sums of query q, digit by digit.
DigitSums Logits::sums(const Work& w, int64_t q, int64_t tile) const {
    const double base = double(int64_t(1) << integers_->layout.digit_bits), step = scale_[size_t(q)];
    if (!lanes_.empty()) return lanes_[size_t(q / kQueryBlock)].sums(w.sums.data(), tile, q % kQueryBlock, step);
    return {w.sums.data() + q % kQueryBlock * parts_ * tile, tile, parts_, step, base};
}

void Logits::multiply(Work& w, int64_t first, int R, int64_t b, int64_t tile) const {
    if (!integer()) return multiply_floats(w, first, R, b, tile);
    const auto* rows = static_cast<const uint8_t*>(rows_.row(first));
    if (!lanes_.empty()) {
        const LaneDigits& lanes = lanes_[size_t(b)];
        return lanes.multiply({{rows, nullptr}, rows_.d, lanes.columns(), R}, w.sums.data(), tile);
    }
    if (!pending_) {
        const Block& block = blocks_[size_t(b)];
        const int64_t end = first + R;
        const bool last = b + 1 == blocks() && asks(integers_->layout, block_size(b));
        const uint8_t* next = end < rows_.n && last ? static_cast<const uint8_t*>(rows_.row(end)) : nullptr;
        const auto dot = [&](int begin, int count, const uint8_t* meanwhile) {
            const RowTail tail = shaping_ && known_.empty() ? shaping_.of_rows(first + begin) : RowTail{};
            integers_->dot(rows + begin * rows_.d, rows_.d, tail, count,
                           {int(block.groups), int(block.group), columns_, block.digits.data(), block.total.data()},
                           rows_.d, w.sums.data() + begin, tile, meanwhile);
        };
        // Few queries wait for memory, which would be idle now if only the second product, which asks for all of the
        // next tile, brought it. At the end of a thread's rows this brings some of another's.
        const int unit = integers_->layout.row_unit, about_half = (R / 2 + unit / 2) / unit * unit;
        const int early = !alone_ && next && count_ <= kMemoryBound ? std::min(about_half, R) : 0;
        if (early > 0) dot(0, early, next);
        if (early < R) dot(early, R - early, alone_ ? next : nullptr);
        if (!known_.empty()) renew_products(w, first, R, b, tile);
    }
    if (!tails_.empty()) tails_[size_t(b)].multiply(shaping_.of_rows(first).rows(R), w.sums.data(), tile);
}

double* Logits::products(Work& w, int64_t first, int R, int64_t i, int64_t tile) const {
    const int64_t q = i % block();
    double* l = w.logits.data() + q * tile;
    if (!integer()) return l;
    const double offset = shaping_ ? offset_[size_t(i)] : 0;
    if (known_.empty()) {
        kernels_.join_digits(sums(w, i, tile), nullptr, 0, offset, R, l);
        return l;
    }
    const Rest& rest = known_[size_t(i)];
    const double* known = rest.entry->products.get() + first;
    if (tails_.empty()) {
        std::copy_n(known, R, l);
        return l;
    }
    const LaneDigits& tail = tails_[size_t(i / kQueryBlock)];
    kernels_.join_digits(tail.sums(w.sums.data(), tile, q, scale_[size_t(i)]), known, pending_ ? rest.factor : 1,
                         offset, R, l);
    return l;
}

const double* Logits::logits(Work& w, int64_t first, int R, int64_t i, int64_t tile) const {
    double* l = products(w, first, R, i, tile);
    const double* prior = prior_[size_t(i)];
    kernels_.to_logits(stats_.half_norm + first, inv_sigma2_[size_t(i)], prior ? prior + first : nullptr, R, l);
    const int64_t excluded = excluded_[size_t(i)] - first;
    if (excluded >= 0 && excluded < R) l[excluded] = kUnseen;
    return l;
}

const double* Logits::listed(Work& w, int64_t first, const int32_t* list, int count, int64_t i, int64_t tile) const {
    const Block& block = (lists_ ? of_lists_ : blocks_)[size_t(i / kQueryBlock)];
    const int64_t digit = integers_->layout.digit_bits / 8, stride = block.group * kPad;
    const int64_t columns = lists_ ? padded(rows_.d) : columns_;
    const ListedRows rows{static_cast<const uint8_t*>(rows_.row(first)), rows_.d, list, count};
    for (int part = 0; part < parts_; ++part) {
        const int64_t slot = i % kQueryBlock * parts_ + part;
        const int64_t at = slot / block.group * block.group * columns + slot % block.group * kPad;
        kernels_.integers->dot_listed(rows, block.digits.data() + at * digit, stride, block.total[size_t(slot)],
                                      rows_.d, w.sums.data() + part * tile);
    }
    double* l = w.logits.data();
    const double base = double(int64_t(1) << integers_->layout.digit_bits);
    kernels_.join_digits({w.sums.data(), tile, parts_, scale_[size_t(i)], base}, nullptr, 0, 0, count, l);
    const double* prior = prior_[size_t(i)];
    double half_norm[kMaxTileRows], log_prior[kMaxTileRows];
    for (int r = 0; r < count; ++r) {
        half_norm[r] = stats_.half_norm[first + list[r]];
        if (prior) log_prior[r] = prior[first + list[r]];
    }
    kernels_.to_logits(half_norm, inv_sigma2_[size_t(i)], prior ? log_prior : nullptr, count, l);
    for (int r = 0; r < count; ++r)
        if (first + list[r] == excluded_[size_t(i)]) l[r] = kUnseen;
    return l;
}

}  // namespace geodiff
