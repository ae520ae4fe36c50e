// Which rows a query sees, and one step of the online softmax, for one warp: lane i has row i of a tile.
#pragma once

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

__device__ inline bool sees(const Problem& p, int64_t q, int64_t row) {
    return !p.exclude || p.exclude[q] != p.first + row;
}

__device__ inline Online nothing() { return Online{kNothing, 0, 0, 0, 0, 0, 0, 0, -1}; }

// A tile's row as its lane has it. The logit, -inf where there is no row, holds `bias`.
struct OfLane {
    double logit, half_norm, bias;
    int64_t row;
};

// Takes in the rows of all lanes, of which any has a bias only if they are `biased`, as it is for all. Returns false,
// leaving `s` as it was, if no row of the tile can matter; else `p` = exp(l - max) or 0, and `rescale` is what older
// sums must be multiplied with. `sum_q` and `lost` are rescaled only: what the second product makes of p is the
// caller's to add. All lanes hold the same `s`.
__device__ inline bool take_tile(const OfLane& own, bool biased, double cut, Online& s, double& p, double& rescale) {
    const double l = own.logit;
    const double top = warp_max(l);
    rescale = 1;
    p = 0;
    if (!(top > kNothing && top >= s.max - cut)) return false;
    if (top > s.max) {
        const bool first = s.max == kNothing;
        const double step = first ? 0 : s.max - top;
        rescale = first ? 0 : exp(step);
        s.sum_l = (s.sum_l + step * s.sum) * rescale;
        s.sum *= rescale;
        s.sum_2 *= rescale * rescale;
        s.sum_h *= rescale;
        s.sum_b *= rescale;
        s.sum_q *= rescale;
        s.lost *= rescale;
        s.max = top;
        const int lane = __ffs(__ballot_sync(kWholeWarp, l == top)) - 1;  // the lowest row of equals
        s.best = own.row - int(threadIdx.x % 32) + lane;
    }
    const double t = l - s.max;
    const bool counts = t >= -cut;
    p = counts ? exp(t) : 0;
    s.sum += warp_sum(p);
    s.sum_l += warp_sum(counts ? p * t : 0);
    s.sum_2 += warp_sum(p * p);
    s.sum_h += warp_sum(p * own.half_norm);
    if (biased) s.sum_b += warp_sum(p > 0 ? p * own.bias : 0);  // 0 times -inf would be NaN
    return true;
}

}  // namespace geodiff::cuda
