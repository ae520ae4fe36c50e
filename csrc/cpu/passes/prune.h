// Rows that principal coordinates alone tell from the nearest ones, so that a screening pass need not look at them.
//
// With w = v - mean and y = x - mean, the logit of a row is <y, w> - |w|^2 / 2 over sigma^2, up to what all rows have
// in common. Its coordinates (products/shaping.h) say what <y, w> is along their directions, and Cauchy-Schwarz how
// much it can be beside them. csrc/cpu/README.md, "Pruning".
#pragma once

#include <algorithm>
#include <vector>

#include "../products/lane_digits.h"
#include "../products/shaping.h"
#include "../request.h"
#include "../runtime/buffer.h"

namespace geodiff {

class Pruning {
  public:
    // For the queries `which`, all of which want the rows whose logit is less than `width` below the largest, and the
    // `nearest` with the largest. Looks at the coordinates of all rows for these. Where rows have priors, these and
    // sigma are those of the first query for all: see `together`.
    Pruning(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which, double width,
            int64_t nearest);

    // Whether enough rows are likely to fall away for query q, with these coordinates and, `promising`, with any that
    // data as a rule have. `width` as above.
    static bool worthwhile(const Request& request, const Shaping& shaping, int64_t q, double width);
    static bool promising(const Request& request, int64_t q, double width);
    // Whether one number says of a row how far its bounds are from |y|, for both queries.
    static bool together(const Request& request, int64_t q, int64_t other) {
        if (!request.log_prior) return true;
        return request.sigma[q] == request.sigma[other] && request.prior_of(q) == request.prior_of(other);
    }

    // What is left of the rows of a tile: of query i, first + list(i)[0..count[i]).
    struct Left {
        int64_t first = -1, tile = 0;
        Buffer<int32_t> lists;  // [slots, tile]
        std::vector<int32_t> count;
        std::vector<const uint8_t*> rows;  // that some query wants
        bool most = false;                 // so many that all of them are better taken

        const int32_t* list(int64_t i) const { return lists.data() + i * tile; }
    };
    // Scratch of one thread, which looks a tile ahead.
    struct Work {
        Buffer<float> half;
        std::vector<uint8_t> any;
        Left now, next;
    };
    Work work(int64_t tile) const;

    // What is left of rows [first, first + R), brought to L2 while the same is found for the `ahead` rows behind them.
    const Left& over(Work& work, int64_t first, int R, int ahead) const;

  private:
    void pack(const Request& request, const std::vector<int64_t>& which);
    void find_nearest(const Request& request, const std::vector<int64_t>& which, double width, int64_t nearest);
    void find(Work& work, Left& left, int64_t first, int R, const std::vector<const uint8_t*>& bring) const;
    CoordinateRows coordinates(Buffer<float>& half, int64_t first, int R) const;
    CoordinateQueries queries() const;

    const IntegerProducts& integers_;
    const Rows& rows_;
    const Stats& stats_;
    const Shaping shaping_;
    const int64_t count_;
    const double* const prior_;  // of row 0, or null
    const double variance_;      // sigma^2 of all queries, where there are priors
    LaneDigits digits_;
    const int64_t slots_;
    // See CoordinateQueries. Lanes that no query takes want nothing.
    std::vector<float> scale_, outside_, along_, least_;
    std::vector<double> half_square_, slack_;  // |y|^2 / 2, and how far a bound may be off for other reasons
};

}  // namespace geodiff
