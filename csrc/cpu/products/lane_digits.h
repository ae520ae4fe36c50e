// Queries as digits in lanes beside each other: what IntegerProducts::dot_lanes multiplies short rows with.
#pragma once

#include <vector>

#include "../isa/table.h"
#include "../runtime/buffer.h"

namespace geodiff {

class LaneDigits {
  public:
    // For `count` queries of d numbers, each of so many digits. 16 bits of digits make a piece.
    LaneDigits(const IntegerProducts& integers, int64_t count, int64_t d, int parts);

    // x[0..d) of query i as in IntegerProducts::place, in units of `step`, with `up` and `lost` of DigitRounding. Other
    // queries can be placed at the same time.
    double place(int64_t i, const double* x, double step, const float* up = nullptr, float* lost = nullptr);

    // Columns that rows are to have: d, up to a multiple of four.
    int64_t columns() const { return columns_; }
    int64_t slots() const { return groups_ * lanes_; }
    int pieces() const { return int(pieces_.size()); }
    LaneQueries piece(int p) const {
        const Piece& piece = pieces_[size_t(p)];
        return {int(groups_), piece.parts, piece.digits.data(), piece.start.data()};
    }

    // The products of all pieces and queries with R rows, S: [count * pieces()][lds].
    void multiply(const ShortRows& rows, double* S, int64_t lds) const;
    // Those of query q, in units of `step`.
    DigitSums sums(const double* S, int64_t lds, int64_t q, double step) const;

  private:
    struct Piece {
        int parts;
        Buffer<char> digits;         // as LaneQueries
        std::vector<int32_t> start;  // likewise
    };

    const IntegerProducts& integers_;
    int64_t count_, d_, columns_, lanes_, groups_;
    int parts_, in_piece_;
    std::vector<Piece> pieces_;
};

}  // namespace geodiff
