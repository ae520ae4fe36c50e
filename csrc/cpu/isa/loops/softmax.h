// Online softmax of a tile, in float64.
#pragma once

#include <limits>

#include "../table.h"
#include "exp.h"

namespace {

using geodiff::Online;

bool softmax(const double* l, const double* half_norm, int R, double cut, Online* state, double* p, double* rescale) {
    double top = -std::numeric_limits<double>::infinity();
    for (int r = 0; r < R; ++r) top = l[r] > top ? l[r] : top;
    *rescale = 1;
    if (!(top >= state->max - cut)) return false;
    if (top > state->max) {
        const double step = state->max - top;  // -inf on the first tile
        const bool first = !(step > -700.0);
        VecD e = first ? VecD{} : exp_nonpositive<VecD, VecL>(step - VecD{});
        const double s = e[0];
        state->sum_l = first ? 0 : (state->sum_l + step * state->sum) * s;
        state->sum *= s;
        state->sum_2 *= s * s;
        state->sum_h *= s;
        state->sum_q *= s;
        state->noise *= s * s;
        state->max = top;
        *rescale = s;
    }
    const double m = state->max;
    VecD s0 = {}, s1 = {}, s2 = {}, sh = {};
    for (int r = 0; r < R; r += kD) {
        VecD t, h;
        if (r + kD <= R) {
            t = load<VecD>(l + r) - m;
            h = load<VecD>(half_norm + r);
        } else {
            for (int i = 0; i < kD; ++i) {
                t[i] = r + i < R ? l[r + i] - m : -1e9;
                h[i] = r + i < R ? half_norm[r + i] : 0;
            }
        }
        VecD w = exp_nonpositive<VecD, VecL>(t);
        w = t < -cut ? VecD{} : w;  // such a row cannot matter: see `cut` in contract.h
        t = t < -cut ? VecD{} : t;
        s0 += w;
        s1 += w * t;
        s2 += w * w;
        sh += w * h;
        if (r + kD <= R)
            store(p + r, w);
        else
            for (int i = 0; r + i < R; ++i) p[r + i] = w[i];
    }
    state->sum += lane_sum<VecD, double>(s0);
    state->sum_l += lane_sum<VecD, double>(s1);
    state->sum_2 += lane_sum<VecD, double>(s2);
    state->sum_h += lane_sum<VecD, double>(sh);
    return true;
}

}  // namespace
