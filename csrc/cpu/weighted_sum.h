// The second product: one thread's weighted sums of rows, tile by tile, for every query of a pass.
#pragma once

#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "types.h"

namespace geodiff {

class WeightedSum {
  public:
    enum class Weights { positive, either_sign };

    // `parts`: digits of a weight on the integer path (2 or 3).
    WeightedSum(const Kernels& kernels, const Rows& rows, int64_t count, int64_t tile, int parts,
                Weights weights = Weights::positive);

    // Per tile: `begin`, then `set` for every query that takes something, then `add`.
    void begin(int R, uint64_t seed);
    // p[0..R): weights relative to the state's maximum. Rounds them on the integer path and books the rounding in
    // `state`.
    void set(int64_t q, const double* p, double rescale, Online& state);
    // `tile`, `ld`: the widened rows (float path; null: rows as stored, at most kFewVectors queries). `next`: the next
    // tile or null, prefetched meanwhile.
    void add(int64_t first, const float* tile, int64_t ld, const void* next);

    // out[0..d) += factor * sum of query q
    void merge_into(int64_t q, double factor, double* out) const;

  private:
    template <bool kEitherSign>
    void set_digits(int64_t q, const double* p, Online& state);
    template <bool kEitherSign>
    void write_digits(int64_t q, int32_t* value);  // uses `value` up
    void activate(int64_t g);                      // clears what a group holds from an earlier tile
    int64_t group_bytes() const { return group_ * parts_ * ((R_ + 3) / 4 * 4); }  // digits of one group, this tile

    const Kernels& kernels_;
    const Rows& rows_;
    int64_t count_, tile_, dp_, group_, groups_;
    int parts_, R_ = 0;
    uint64_t seed_ = 0;
    bool integer_, either_sign_, any_ = false;
    Buffer<float> sums_;     // [groups*group, dp]
    Buffer<float> weights_;  // float path: [groups*group, tile]
    Buffer<int8_t> digits_;
    std::vector<uint8_t> active_;
    std::vector<int32_t> offset_;
    std::vector<float> rescale_, quantum_;
};

}  // namespace geodiff
