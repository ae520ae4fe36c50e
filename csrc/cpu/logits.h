// The first product: logits of a block of queries for a tile of rows, to a known error.
#pragma once

#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "types.h"

namespace geodiff {

constexpr int64_t kQueryBlock = 64;  // queries whose packed form and logits are in L2 together

enum class Precision {
    coarse,  // float32, or the fewest digits whose error bound still screens
    sharp,   // float64, or the fewest digits whose error bound is small beside what carries weight
    normal,  // float32, or 3 digits
    fine,    // float64, or 4 digits
};

// Rows per tile for `count` queries: the tile stays in L2 between the two products. Few queries want small tiles, which
// keep memory busy all the time; many want large ones, over which the sums are written back less often.
int64_t tile_rows(const Rows& rows, const Kernels& kernels, int64_t count);

class Logits {
  public:
    // `which[0..count)` picks the queries of `request`.
    Logits(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request, const int64_t* which,
           int64_t count, Precision precision);

    // Scratch of one thread.
    struct Work {
        Buffer<float> tile;           // [R, dp]     float path: the rows, widened
        Buffer<int32_t> sums;         // [parts * block, R]
        Buffer<double> logits;        // [block, R]
        const float* rows = nullptr;  // null where the products take rows as stored
        int64_t ld = 0;
    };
    Work work(int64_t tile) const;

    int64_t blocks() const { return (count_ + kQueryBlock - 1) / kQueryBlock; }
    int64_t block_size(int64_t b) const { return std::min(kQueryBlock, count_ - b * kQueryBlock); }

    // Makes rows [first, first + R) ready in `work`; then `block` fills work.logits with
    //   l[q, r] = (<x_q, v_r> - |v_r|^2 / 2) / sigma_q^2 + bias_r          (stride `tile`, the |x|^2 term is common)
    void load(Work& work, int64_t first, int R) const;
    void block(Work& work, int64_t first, int R, int64_t b, int64_t tile) const;
    // The products alone, <x_q, v_r>, in the same place.
    void products(Work& work, int64_t first, int R, int64_t b, int64_t tile) const;

    bool integer() const { return integer_; }
    // The logit of row r is off by at most row_error * away_r + base_error, up to a constant common to all rows of the
    // query; certain, not probable. A *difference* of two logits is off by at most gap_error.
    double row_error(int64_t i) const { return row_error_[size_t(i)]; }
    double base_error(int64_t i) const { return base_error_[size_t(i)]; }
    double gap_error(int64_t i) const { return 2 * (row_error(i) * stats_.radius + base_error(i)); }
    // Standard deviations for bounds.h.
    double query_step(int64_t i) const { return query_step_[size_t(i)]; }
    double logit_noise(int64_t i) const { return logit_noise_[size_t(i)]; }

  private:
    bool direct() const { return !integer_ && !wide_ && count_ <= kFewVectors; }  // no tile: see kernels.h
    void pack_integers(const Request& request, const int64_t* which, Precision precision);
    void place_digits(const int8_t* digits, int64_t i);
    void pack_floats(const Request& request, const int64_t* which);

    const Kernels& kernels_;
    const Rows& rows_;
    const Stats& stats_;
    int64_t count_;
    bool integer_, wide_;  // wide_: float64 products
    int parts_ = 1;
    std::vector<const double*> bias_;  // [count], of row 0
    std::vector<double> inv_sigma2_, row_error_, base_error_, query_step_, logit_noise_, scale_;
    // Integer path. Per block: groups x group vectors of d bytes, laid out for dot_u8, one such piece per kIntDims.
    struct Block {
        int64_t groups, group;
        Buffer<int8_t> digits;
        std::vector<int32_t> offset;  // [pieces, groups*group]  -128 * sum of the digits
    };
    std::vector<Block> blocks_;
    Buffer<float> queries32_;   // [count, dp]
    Buffer<double> queries64_;  // [count, dp]
};

}  // namespace geodiff
