// Weights of one query in the fused pass, as integers of a unit that lasts for an epoch, and the sums over them.
//
// In an epoch a weight is exp(l - base), counted in units of 2^-31: base was the largest logit when the epoch began,
// and no weight is beyond 2. An epoch ends when a logit is further above base, or when 32 bits might not hold the sums
// of products. Then the sums of products are written down in float64 (Order), or dropped where what was before is
// beyond the cut. Unlike those of epoch.h, digits of all tiles count the same: they are summed up where they are
// multiplied.
#pragma once

#include <cmath>

#include "fused.h"
#include "online.h"

namespace geodiff::cuda {

constexpr double kFewScale = 2147483647, kFewUnit = 1 / kFewScale;
constexpr double kFewRise = 0.69314718055994529;   // log 2: twice kFewScale is below 2^32
constexpr int kEpochTiles = (1 << 16) / kFewRows;  // 255^2 2^16 < 2^32

// What a lane knows. base, max, sum_q, best, tiles and written are alike in all lanes; sums are of the lane's rows, and
// relative to base.
struct Share {
    double base, max, sum, sum_l, sum_2, sum_h, sum_b, lost, sum_q;
    int64_t used, best;  // used: the sum of the integers of the epoch
    int tiles, written;
};
static_assert(sizeof(Share) == kLaneBytes - 8, "eight more, so that lanes meet in few banks");

__device__ inline Share nothing_seen() { return {kNothing, kNothing, 0, 0, 0, 0, 0, 0, 0, 0, -1, 0, 0}; }

// Two rows of a tile, as a lane has them; where there is no row the logit, which holds `bias`, is -inf.
struct TwoRows {
    double logit[2], half_norm[2], bias[2];
};

// The place of row `i` of a lane in the tile. So the lane's bytes among the second operands lie in one word (row_at).
__device__ inline int few_row(int lane, int i) { return lane / 8 * 16 + lane % 8 + i * 8; }

// Sums over the weights are from here on relative to the logit `base`; what they are multiplied with.
__device__ inline double rebase(Share& s, double base, bool counts) {
    const double step = s.base - base, factor = counts ? exp(step) : 0;
    s.sum_l = counts ? (s.sum_l + step * s.sum) * factor : 0;
    s.sum *= factor;
    s.sum_2 *= factor * factor;
    s.sum_h *= factor;
    s.sum_b *= factor;
    s.lost *= factor;
    s.base = base;
    return factor;
}

// Ends the epoch; the next one begins at the logit `base`. Unless it `counts`, what was before is dropped.
__device__ inline Order end_epoch(Share& s, double base, bool counts) {
    const double used = warp_sum(double(s.used));  // exact: below 2^48
    const double factor = rebase(s, base, counts);
    const Order order{s.written ? factor : 0, factor * kFewUnit, int64_t(used), 0, 1};
    s.sum_q = s.sum_q * factor + order.gain * used;
    s.used = 0;
    s.tiles = 0;
    s.written = counts;
    return order;
}

// For a warp: takes in the tile that starts at row `first`, and says what is to become of the sums. `whole`: weights.
__device__ inline Order weigh(const TwoRows& own, int64_t first, bool biased, double cut, Share& s,
                              unsigned (&whole)[2]) {
    Order order{};
    whole[0] = whole[1] = 0;
    const double top = warp_max(fmax(own.logit[0], own.logit[1]));
    if (!(top > kNothing && top >= s.max - cut)) return order;
    const double before = s.max;
    if (top > before) {
        s.max = top;
        const int lane = int(threadIdx.x % 32), mine = own.logit[0] == top ? 0 : own.logit[1] == top ? 1 : 8;
        s.best = first - __reduce_max_sync(kWholeWarp, -few_row(lane, mine));  // the lowest row of equals
    }
    if (before == kNothing)
        s.base = top;
    else if (s.max - s.base > kFewRise || s.tiles == kEpochTiles)
        order = end_epoch(s, s.max, s.max - before <= cut);
    double p[2], t[2], lost = 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const bool counts = own.logit[i] >= s.max - cut;
        t[i] = counts ? own.logit[i] - s.base : 0;
        p[i] = counts ? exp(t[i]) : 0;
        const double scaled = p[i] * kFewScale, rounded = scaled + 0x1p52;  // in the low word
        whole[i] = unsigned(__double2loint(rounded));
        lost += fabs(scaled - (rounded - 0x1p52));
    }
    s.used += int64_t(whole[0]) + whole[1];
    s.lost += lost * kFewUnit;
    s.sum += p[0] + p[1];
    s.sum_l += p[0] * t[0] + p[1] * t[1];
    s.sum_2 += p[0] * p[0] + p[1] * p[1];
    s.sum_h += p[0] * own.half_norm[0] + p[1] * own.half_norm[1];
    if (biased) s.sum_b += (p[0] > 0 ? p[0] * own.bias[0] : 0) + (p[1] > 0 ? p[1] * own.bias[1] : 0);  // 0 -inf is NaN
    ++s.tiles;
    order.adds = __ballot_sync(kWholeWarp, (whole[0] | whole[1]) != 0) != 0;
    return order;
}

// The end of the part: what the sums of products are written down with, and the query's state.
__device__ inline Order finish(Share& s, Online& state) {
    const Order order = s.max == kNothing ? Order{0, 0, 0, 0, 1} : end_epoch(s, s.max, true);
    state = {s.max,
             warp_sum(s.sum),
             warp_sum(s.sum_l),
             warp_sum(s.sum_2),
             warp_sum(s.sum_h),
             warp_sum(s.sum_b),
             s.sum_q,
             warp_sum(s.lost),
             s.best};
    return order;
}

}  // namespace geodiff::cuda
