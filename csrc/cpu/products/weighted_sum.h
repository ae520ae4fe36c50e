// The second product: one thread's weighted sums of rows, tile by tile, for every query of a pass.
#pragma once

#include <vector>

#include "../request.h"
#include "../runtime/buffer.h"

namespace geodiff {

class WeightedSum {
  public:
    enum class Weights { positive, either_sign };

    // `bits`: of a weight on the integer path, 8, 16 or 24; rounded up to whole digits.
    WeightedSum(const Request& request, int64_t count, int64_t tile, int bits, Weights weights = Weights::positive);

    // Per tile: `begin`, then `set` for every query that takes something, then `add`.
    void begin(int R, uint64_t seed);
    // p[0..R): weights relative to the state's maximum. Rounds them on the integer path and books the rounding in
    // `state`.
    void set(int64_t q, const double* p, double rescale, Online& state);
    // The same for weights in float32, whose sum is booked already, where `integer()` is false.
    void set(int64_t q, const float* w, double rescale);
    bool integer() const { return integers_ != nullptr; }
    // `next`: the next tile or null, prefetched meanwhile.
    void add(int64_t first, const void* next);

    // The sum of query q, [padded(d)], whose place i of each block of kPad is column order()[i] (null: i).
    const float* sum(int64_t q) const { return sums_.data() + q * dp_; }
    const uint8_t* order() const { return integers_ ? integers_->layout.column_of_slot : nullptr; }

  private:
    void open(int64_t q, double rescale);
    void set_digits(int64_t q, const double* p, Online& state);
    void clear(int64_t slot);     // what it holds from an earlier tile
    int64_t group_bytes() const;  // digits of one group, this tile

    const Table& kernels_;
    const Rows& rows_;
    const IntegerProducts* integers_;  // null: weights in float32
    int64_t count_, tile_, dp_, group_, groups_;
    int parts_ = 1, R_ = 0;
    uint64_t seed_ = 0;
    bool balanced_, any_ = false;
    double units_ = 0;       // the largest weight as an integer
    Buffer<float> sums_;     // [groups*group, dp]
    Buffer<float> weights_;  // float path: [groups*group, tile]
    Buffer<char> digits_;
    std::vector<uint8_t> active_, set_;  // groups and slots that take something from this tile
    std::vector<int32_t> total_;
    std::vector<float> rescale_, quantum_;
};

// The sums that pieces of the rows have left of one query, joined: see VectorLoops::join.
class Pooled {
  public:
    void clear() {  // for the next query
        sums_.clear();
        factors_.clear();
    }
    void add(const WeightedSum& piece, int64_t q, double factor) {
        sums_.push_back(piece.sum(q));
        factors_.push_back(factor);
        order_ = piece.order();
    }
    Joined join(const Table& kernels, int64_t d, double scale, double shift, double* to) const {
        return kernels.vectors.join(sums_.data(), factors_.data(), int(sums_.size()), order_, d, scale, shift, to);
    }

  private:
    std::vector<const float*> sums_;
    std::vector<double> factors_;
    const uint8_t* order_ = nullptr;
};

}  // namespace geodiff
