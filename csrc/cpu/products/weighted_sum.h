// The second product: one thread's weighted sums of rows, tile by tile, for every query of a pass.
//
// A weight p is rounded to digits, p = t (digits) + eta. Where principal coordinates of the rows are at hand, what is
// lost of sum p v along their directions can be carried: one more digit says eta, and of a row v no more than its
// coordinates is multiplied with it. csrc/cpu/README.md, "Weights carried".
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "../request.h"
#include "../runtime/buffer.h"
#include "bounds.h"

namespace geodiff {

// Digits of one tile's weights, where the integer product reads them.
struct TileDigits {
    int parts = 1;
    bool balanced = true;
    double units = 0;     // as in WeightPlace
    Buffer<char> digits;  // [groups][steps][group][parts][weight_rows]
    std::vector<int32_t> total;
    std::vector<float> quantum;
};

// What the weights of some queries are like.
struct WeightKind {
    int bits;  // on the integer path, 8, 16 or 24, rounded up to whole digits, or those of OneQuerySum for one query
    bool either_sign = false;
    Shaping carried = {};  // the coordinates that carry what these bits lose, or none
    int64_t beside = 0;    // queries of another kind in the same pass
};

class WeightedSum {
  public:
    WeightedSum(const Request& request, int64_t count, int64_t tile, const WeightKind& kind);

    // Per tile: `begin`, then `set` or `take` for every query that takes something, then `add`.
    void begin(int64_t first, int R, uint64_t seed);  // of rows [first, first + R)
    // p[0..R): weights relative to the state's maximum. Rounds them on the integer path and books the rounding in
    // `state`.
    void set(int64_t q, const double* p, double rescale, Online& state);
    // Where `integer()` is false, weights in float32 whose sum is booked already can be put into `weights(q)` and
    // taken.
    bool integer() const { return integers_ != nullptr; }
    // There, the largest weight of a tile as an integer; 0 where that holds of the largest sum of two.
    double units() const { return alone_ ? 0 : digits_.units; }
    float* weights(int64_t q) { return weights_.data() + q * tile_; }
    void take(int64_t q, double rescale) { open(q, rescale); }
    // `next`: the next tile or null, prefetched meanwhile.
    void add(const void* next);
    // The same of two kinds of weights over the same rows.
    static void add_both(WeightedSum& coarser, WeightedSum& finer, const void* next);

    // The sum of query q, [padded(d)] in blocks of kPad, step() apart, whose place i is column order()[i] (null: i):
    // that of the latest tiles, and `before` times that of all before them, if there are any.
    const float* sum(int64_t q) const { return sums_.data() + at(q); }
    const float* sum_before(int64_t q) const { return sums_before_.data() ? sums_before_.data() + at(q) : nullptr; }
    int64_t step() const { return in_blocks() ? groups_ * group_ * kPad : kPad; }
    float before(int64_t q) const { return before_[size_t(q)]; }
    // Tiles that are added up one by one: rounding to one side grows with each.
    static constexpr int64_t kTogether = 32;
    // The length of the longest sum on the way to it, of the tiles that were looked at and the last: rounding follows
    // that.
    double longest(int64_t q) const { return std::max(longest_[size_t(q)], length(q)); }
    const uint8_t* order() const {
        return alone_ ? alone_->column_of_slot : integers_ ? integers_->layout.column_of_slot : nullptr;
    }

    // What the digits lose of the weights of query q: sum eta; the variance of what coordinates do not say of sum eta
    // v; that of sum eta, as its digit is rounded; and sum eta (b - 128), b the coordinates, in blocks and in the order
    // of `sum`.
    struct Rest {
        double sum = 0, unsaid = 0, rounding = 0;
        const float* along = nullptr;
        int64_t step = 0;

        float at(int64_t j) const { return along[j / kPad * step + j % kPad]; }
    };
    bool carries() const { return bool(carried_); }
    Rest rest(int64_t q) const {
        Rest rest = rest_[size_t(q)];
        rest.along = along_.data() + (in_blocks() ? q * kPad : q * carried_.count());
        rest.step = step();
        return rest;
    }

  private:
    bool in_blocks() const { return integers_ && integers_->layout.sums_in_blocks; }
    int64_t at(int64_t q) const { return q * (in_blocks() ? kPad : dp_); }
    int64_t lda() const { return in_blocks() ? step() : dp_; }  // as products of integers take it
    void open(int64_t q, double rescale);
    double length(int64_t q) const;
    void fold(int64_t q);
    void set_digits(int64_t q, const double* p, Online& state);
    TileDigits make_digits(int parts, bool balanced) const;
    int64_t digits_of_step(const TileDigits& d) const { return group_ * d.parts * integers_->layout.weight_rows; }
    char* place(TileDigits& d, int64_t slot) const;  // of its first digit
    void clear(TileDigits& d, int64_t slot) const;   // what it holds from an earlier tile
    WeightDigits view(const TileDigits& d) const;
    void clear_others();
    void multiply(const void* next);
    void count_tile();
    void add_rests(bool ahead);

    const Table& kernels_;
    const Rows& rows_;
    const IntegerProducts* integers_;       // null: weights in float32
    const OneQuerySum* alone_ = nullptr;    // if it is taken
    const FloatTiles* in_tiles_ = nullptr;  // of weights in float32, likewise
    int64_t count_, tile_, dp_, group_, groups_;
    int64_t first_ = 0;
    int R_ = 0;
    uint64_t seed_ = 0;
    bool any_ = false;
    Buffer<float> sums_;         // [groups*group, dp], or [dp/kPad, groups*group, kPad]
    Buffer<float> sums_before_;  // the same
    std::vector<float> before_;  // what older ones are to be multiplied with
    Buffer<float> weights_;      // float path: [groups*group, tile]
    Buffer<char> room_;          // of in_tiles_
    TileDigits digits_, rests_;
    std::vector<uint8_t> active_, set_;  // groups and slots that take something from this tile
    std::vector<float> rescale_;
    std::vector<double> longest_;  // at the tiles that were looked at, relative to the state's maximum
    int64_t tiles_ = 0;
    Shaping carried_;
    Buffer<float> along_;  // [groups*group, carried_.count()]
    std::vector<Rest> rest_;
};

// Of so many tiles in equal pieces, `rows` to a tile if these are added in float32, too.
inline Additions additions_of(double tiles, double pieces, double rows) {
    const double of_piece = std::ceil(tiles / pieces), together = std::min(of_piece, double(WeightedSum::kTogether));
    return {together, std::ceil(of_piece / together), tiles, rows, 0, 1};
}

// The sums that pieces of the rows have left of one query, joined: see VectorLoops::join.
class Pooled {
  public:
    void clear() {  // for the next query
        summands_.clear();
    }
    bool empty() const { return summands_.empty(); }
    void add(const WeightedSum& piece, int64_t q, double factor) {
        order_ = piece.order();
        summands_.push_back({piece.sum(q), piece.step(), factor});
        if (piece.sum_before(q))
            summands_.push_back({piece.sum_before(q), piece.step(), factor * double(piece.before(q))});
    }
    // [padded(d)]
    void add(const float* sum, const uint8_t* order, double factor) {
        order_ = order;
        summands_.push_back({sum, kPad, factor});
    }
    Joined join(const Table& kernels, int64_t d, double scale, double shift, double* to) const {
        return kernels.vectors.join(summands_.data(), int(summands_.size()), order_, d, scale, shift, to);
    }

  private:
    std::vector<Summand> summands_;
    const uint8_t* order_ = nullptr;
};

}  // namespace geodiff
