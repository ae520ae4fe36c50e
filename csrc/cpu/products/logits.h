// The first product: logits of a block of queries for a tile of rows, to a known error.
#pragma once

#include <algorithm>
#include <vector>

#include "../request.h"
#include "../runtime/buffer.h"
#include "digits.h"
#include "lane_digits.h"

namespace geodiff {

constexpr int64_t kQueryBlock = kDotQueries;  // queries whose packed form and logits are in L2 together

enum class Precision {
    coarse,  // float32, or the fewest digits whose error bound still screens
    sharp,   // float64, or the fewest digits whose error bound is small beside what carries weight
    normal,  // float32, or as many digits as `tol` needs, 24 bits at most
    fine,    // float64, or 32 bits of digits
    known,   // no digits: products that are known, of all queries, and principal coordinates of what is new of them
};

// Rows per tile for `count` queries: the tile stays in L2 between the two products. Few queries want small tiles, which
// keep memory busy all the time; many want large ones, over which the sums are written back less often.
int64_t tile_rows(const Request& request, int64_t count);
// The same where no second product follows: nothing but logits is kept of a tile.
int64_t screened_tile_rows(const Request& request, int64_t count);

// Whether a dense pass over short rows of bytes takes products in float32, as for few queries: lanes would be empty.
// `exact`: where logits in float32 would have to be settled.
inline bool in_floats(const Request& request, int64_t count, bool exact) {
    const IntegerProducts* integers = request.integers();
    const int64_t most = request.kernels.floats.few;
    return request.short_bytes() &&
           count <= (exact && integers ? std::min<int64_t>(integers->layout.lanes_from - 1, most) : most);
}

class Logits {
  public:
    // `which[0..count)` picks the queries of `request`. `exact`: products are integers where that is possible, even if
    // those in float32 would be faster. `lists`: `listed` will be asked, of integers that screen.
    Logits(const Request& request, const int64_t* which, int64_t count, Precision precision, bool exact = false,
           bool lists = false);

    // Scratch of one thread.
    struct Work {
        Buffer<double> sums;    // [parts * block, R]  integer path
        Buffer<double> logits;  // [block, R]
    };
    Work work(int64_t tile) const;

    // Queries of a block; of the last one there may be fewer.
    int64_t block() const { return tiles_ ? count_ : kQueryBlock; }
    int64_t blocks() const { return (count_ + block() - 1) / block(); }
    int64_t block_size(int64_t b) const { return std::min(block(), count_ - b * block()); }

    // Multiplies rows [first, first + R) with the queries of block b. One query after the other is then to be asked
    // for, so that what is made of its products is in L1 when it is used; what this returns lies `tile` apart.
    void multiply(Work& work, int64_t first, int R, int64_t b, int64_t tile) const;
    // <x_i, v_r> for query i of that block.
    double* products(Work& work, int64_t first, int R, int64_t i, int64_t tile) const;
    //   l[r] = (<x_i, v_r> - |v_r|^2 / 2) / sigma_i^2 + log prior_r     (the |x|^2 term is common)
    // and -inf for the row that the query must not see. Once for each query: they take the place of the products.
    const double* logits(Work& work, int64_t first, int R, int64_t i, int64_t tile) const;

    // The same for rows first + list[0..count) of a tile and one query, in `work.logits`.
    const double* listed(Work& work, int64_t first, const int32_t* list, int count, int64_t i, int64_t tile) const;

    // each(i, l) for every query i of the pass with its logits l[0..R); before(b) ahead of each block b.
    template <class Each, class Before>
    void over(Work& work, int64_t first, int R, int64_t tile, Before&& before, Each&& each) const {
        for (int64_t b = 0; b < blocks(); ++b) {
            multiply(work, first, R, b, tile);
            before(b);
            for (int64_t i = b * block(); i < b * block() + block_size(b); ++i)
                each(i, logits(work, first, R, i, tile));
        }
    }
    template <class Each>
    void over(Work& work, int64_t first, int R, int64_t tile, Each&& each) const {
        over(work, first, R, tile, [](int64_t) {}, each);
    }

    // The products that a pass over all rows has left are whole: to be said after it.
    void commit() const;

    bool integer() const { return integers_ != nullptr; }
    bool shaped() const { return bool(shaping_); }  // principal coordinates carry their part of the rounding
    // The logit of row r is off by at most row_error * away_r + base_error, up to a constant common to all rows of the
    // query; certain, not probable. A *difference* of two logits is off by at most gap_error.
    double row_error(int64_t i) const { return row_error_[size_t(i)]; }
    double base_error(int64_t i) const { return base_error_[size_t(i)]; }
    double gap_error(int64_t i) const { return 2 * (row_error(i) * stats_.scale.radius + base_error(i)); }
    // The same, row by row and closer, where no digits are multiplied.
    void errors_of_known(int64_t i, int64_t first, int R, float* error) const;
    // What rounding has lost of a shaped query and coordinates do not carry, [d]: <lost, v> / sigma^2 is missing from
    // the logit of v.
    const float* lost(int64_t i) const { return lost_.data() + i * padded(rows_.d); }
    double length(int64_t i) const { return length_[size_t(i)]; }  // of query i
    // Standard deviations for bounds.h.
    double query_step(int64_t i) const { return query_step_[size_t(i)]; }
    double logit_noise(int64_t i) const { return logit_noise_[size_t(i)]; }

  private:
    const double* part(const Request& request, const int64_t* which, int64_t i) const {  // that digits say
        return known_.empty() ? request.query(which[i]) : rest_.data() + i * rows_.d;
    }
    std::vector<VectorSize> measure(const Request& request, const int64_t* which);
    void recollect(const Request& request, const int64_t* which);
    bool direct() const { return !integer() && !wide_ && !tiles_ && count_ <= kernels_.floats.few; }  // `dot_few`
    // Digits for queries of such sizes; with coordinates if these are given.
    int digits_for(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes,
                   Precision precision, const Shaping& shaping) const;
    bool coordinates_do(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes) const;
    void pack_integers(const Request& request, const int64_t* which, const std::vector<VectorSize>& sizes,
                       Precision precision);
    void pack_pending(const Request& request, const std::vector<VectorSize>& sizes);
    void bound_pending(int64_t i, double length, double rounded);
    double unit_of_coordinates(int64_t i, const double* along);
    void pack_coordinates(int64_t first, int64_t count);
    void renew(int64_t i, const double* x);
    void pack_floats(const Request& request, const int64_t* which);

    const Table& kernels_;
    const Rows& rows_;
    const Stats& stats_;
    const IntegerProducts* integers_;
    int64_t count_;
    bool wide_;                          // float64 products
    const FloatTiles* tiles_ = nullptr;  // of products in float32, if they are taken
    bool alone_;                         // no second product follows, which would bring the next tile
    Shaping shaping_;
    int parts_ = 1;
    std::vector<const double*> prior_;  // [count], of row 0
    std::vector<int64_t> excluded_;     // [count]
    std::vector<double> inv_sigma2_, length_, row_error_, base_error_, query_step_, logit_noise_, scale_;
    // Integer path. Per block: groups x group vectors of digits, laid out for IntegerProducts::dot.
    struct Block {
        int64_t groups, group;
        Buffer<char> digits;
        std::vector<int64_t> total;  // [groups*group]  sum of the digits
    };
    DigitPlace place(Block& block, int64_t columns, int64_t behind = 0) const {  // so many of them
        char* digits = block.digits.data() + behind * block.group * integers_->layout.digit_bits / 8;
        return {digits, block.total.data(), block.group, columns};
    }
    std::vector<Block> make_blocks(const IntegerLayout& layout, int64_t columns) const;
    DigitSums sums(const Work& work, int64_t q, int64_t tile) const;
    void multiply_floats(Work& work, int64_t first, int R, int64_t b, int64_t tile) const;
    void renew_products(const Work& work, int64_t first, int R, int64_t b, int64_t tile) const;
    std::vector<Block> blocks_;
    bool lists_;
    std::vector<Block> of_lists_;    // the same for IntegerProducts::dot_listed, where `blocks_` are for many queries
    std::vector<LaneDigits> lanes_;  // instead of blocks_: of short rows
    int64_t columns_ = 0;            // padded(d), and those of the principal coordinates
    // Where products are known, digits are of what is left of the queries, and those of the coordinates stand apart,
    // since what they add to a product is not exactly that of any vector.
    struct Rest {
        Known::Entry* entry;
        double factor;  // x = factor y + what the digits say + what is lost
    };
    std::vector<Rest> known_;  // [count] or none
    bool pending_ = false;     // of what is left of the queries coordinates alone are multiplied: no digits say it yet
    std::vector<LaneDigits> tails_;
    Buffer<double> rest_;  // [count, d]
    // [count]  How long that is along no direction, and along all of them, each times the root of its step; how far
    // products are off for other reasons
    std::vector<double> outside_, along_, aside_;
    std::vector<double> offset_;  // [count]  what coordinates owe for the mean of the rows
    Buffer<float> lost_;          // [count, dp]
    Buffer<float> queries32_;     // [count, dp] if direct(), else [vectors of queries, d, lanes]
    Buffer<char> pieces_;         // instead: packed by tiles_
    Buffer<double> queries64_;    // [vectors of queries, d, lanes]
};

}  // namespace geodiff
