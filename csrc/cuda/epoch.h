// Weights of one query as integers of a unit that lasts for many tiles: their sums with bytes stay integers meanwhile.
//
// In an epoch a weight is exp(l - base), counted in kUnit. A tile's weights are integers below 2^32 of a unit of the
// tile's own, kUnit 2^shift: what is left of a weight is small beside the largest of its tile. An epoch ends when the
// largest logit has risen so far that shift would be too large, or when an int64 might not hold the sums.
#pragma once

#include <cmath>

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

constexpr int kLower = 6;                                 // a tile's largest weight may be 2^-6 and have all its bits
constexpr double kUnit = 0x1p-38;                         // 2^(-32 - kLower)
constexpr double kRise = 6;                               // of the largest logit: exp(6) < 2^9
constexpr int64_t kMostUsed = (1ll << 55) - (1ll << 52);  // with a tile's 32 2^(32 + shift), times 255: below 2^63
static_assert(16 + 9 + kLower < 32, "2^(16 + shift) is an unsigned");

struct Epoch {
    double base;         // the logit that weighs 1
    double up;           // exp(largest logit - base)
    double sum_q, lost;  // as in Online, relative to base: sum_q of what was written down, lost of all
    int64_t used;        // the sum of the integers since, in kUnit
    int64_t written;     // whether sums were written down
};

__device__ inline Epoch no_epoch() { return Epoch{kNothing, 0, 0, 0, 0, 0}; }

// How sums are written down: keep times those before, plus gain times (integers times bytes - 128 used).
struct Move {
    double keep, gain;
    int64_t used;
};

// Ends the epoch and begins the next one at the logit `base`. Unless it `counts`, what was before is dropped.
__device__ inline Move turn_over(Epoch& e, double base, bool counts) {
    const double factor = counts ? exp(e.base - base) : 0;
    const Move move{e.written ? factor : 0, factor * kUnit, e.used};
    e.sum_q = e.sum_q * factor + move.gain * double(e.used);
    e.lost *= factor;
    e.base = base;
    e.up = 1;
    e.written = counts && (e.written || e.used > 0);
    e.used = 0;
    return move;
}

// The largest logit was `before` and is `max`, and a tile comes. True: the epoch was over, and `move` says what becomes
// of the sums.
__device__ inline bool is_over(Epoch& e, double before, double max, double cut, Move& move) {
    if (max - e.base <= kRise && e.used <= kMostUsed) {
        if (max > before) e.up = exp(max - e.base);
        return false;
    }
    const bool any = e.used > 0;
    move = turn_over(e, max, max - before <= cut);
    return any;
}

// For a warp: lane i has the weight of a row, exp(l - largest logit). The integer of this lane, in kUnit 2^shift.
__device__ inline unsigned whole_weight(Epoch& e, double weight, int& shift) {
    weight *= e.up;
    const int exponent = (__reduce_max_sync(kWholeWarp, __double2hiint(weight)) >> 20) - 1022;  // weights < 2^exponent
    shift = exponent + kLower > 0 ? exponent + kLower : 0;
    const double scaled = weight * __hiloint2double((1023 + 32 + kLower - shift) << 20, 0);
    const double rounded = fmin(scaled, 4294967295.0) + 0x1p52;  // in the low word
    const unsigned whole = unsigned(__double2loint(rounded));
    const int64_t high = __reduce_add_sync(kWholeWarp, whole >> 16), low = __reduce_add_sync(kWholeWarp, whole & 65535);
    e.used += (high * 65536 + low) << shift;
    e.lost += warp_sum(fabs(scaled - (rounded - 0x1p52))) * __hiloint2double((1023 - 32 - kLower + shift) << 20, 0);
    return whole;
}

}  // namespace geodiff::cuda
