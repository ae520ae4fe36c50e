// From inner products to weights, in float64: logits of a tile and their online softmax.
#pragma once

#include <algorithm>
#include <limits>

#include "../table.h"
#include "../vec/constants.h"
#include "exp.h"
#include "vectors.h"

namespace {

using geodiff::Online;

double to_floats(const double* p, int R, float* w) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int r = 0; r < R; ++r) {
        w[r] = float(p[r]);
        total += double(w[r]);
    }
    return total;
}

template <int PARTS, bool ONTO>
inline void join_parts(const geodiff::DigitSums& s, const double* from, double factor, double offset, int R,
                       double* l) {
    double weight[PARTS], each = s.weight;
    for (int part = PARTS - 1; part >= 0; --part, each *= s.base) weight[part] = each;
#pragma omp simd
    for (int r = 0; r < R; ++r) {
        double sum = ONTO ? factor * from[r] + offset : offset;
        GEODIFF_UNROLL4 for (int part = PARTS - 1; part >= 0; --part) sum += weight[part] * s.at[part * s.lds + r];
        l[r] = sum;
    }
}

void join_digits(const geodiff::DigitSums& sums, const double* from, double factor, double offset, int R, double* l) {
    with_constant<5>(sums.parts, [&](auto count) {
        constexpr int PARTS = decltype(count)::value;
        if constexpr (PARTS > 0) {
            if (from)
                join_parts<PARTS, true>(sums, from, factor, offset, R, l);
            else
                join_parts<PARTS, false>(sums, nullptr, 0, offset, R, l);
        }
    });
}

void to_logits(const double* half_norm, double inverse, const double* prior, int R, double* l) {
    if (prior) {
#pragma omp simd
        for (int r = 0; r < R; ++r) l[r] = (l[r] - half_norm[r]) * inverse + prior[r];
    } else {
#pragma omp simd
        for (int r = 0; r < R; ++r) l[r] = (l[r] - half_norm[r]) * inverse;
    }
}

geodiff::Reach reach(const double* l, const float* away, double row_error, double base_error, int R) {
    double lower = -std::numeric_limits<double>::infinity(), upper = lower;
#pragma omp simd reduction(max : lower, upper)
    for (int r = 0; r < R; ++r) {
        const double error = row_error * double(away[r]) + base_error;
        lower = l[r] - error > lower ? l[r] - error : lower;
        upper = l[r] + error > upper ? l[r] + error : upper;
    }
    return {lower, upper};
}

double below(const double* l, const float* away, double row_error, double base_error, double least, double top, int R) {
    double t[geodiff::kMaxTileRows + kD];
#pragma omp simd
    for (int r = 0; r < R; ++r) {
        const double upper = l[r] + (row_error * double(away[r]) + base_error);
        t[r] = upper < least ? upper - top : -700.0;
    }
    std::fill_n(t + R, kD, -700.0);
    VecD sums{};
    for (int r = 0; r < R; r += kD) sums += exp_of(load<VecD>(t + r));
    double sum = 0;
    for (int i = 0; i < kD; ++i) sum += sums[i];
    return sum;
}

// Makes the maximum that of the tile as well; false if no row of the tile can matter. Returns what older sums were
// multiplied with in `rescale`.
GEODIFF_INLINE bool raise_maximum(const double* l, int R, double cut, Online* state, double* rescale) {
    const double top = largest_of(l, R);
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
    return true;
}

bool softmax(const double* l, const double* half_norm, int R, double cut, Online* state, double* p, double* rescale) {
    if (!raise_maximum(l, R, cut, state, rescale)) return false;
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

// The same with weights in float32, as the second product takes them; the sums of a tile in float32, too. Two vectors
// at a time, since one waits for its own exponential.
bool softmax_f32(const double* l, const float* half_norm, int R, double cut, Online* state, float* w, double* rescale) {
    if (!raise_maximum(l, R, cut, state, rescale)) return false;
    constexpr int N = 2;
    const double m = state->max;
    const float least = float(-cut);
    VecF s0[N] = {}, s1[N] = {}, s2[N] = {}, sh[N] = {};
    for (int r = 0; r < R; r += N * kF) {
        const int some = std::min(R - r, N * kF);
        float t[N * kF], h[N * kF];
        if (some == N * kF) {
#pragma omp simd
            for (int i = 0; i < N * kF; ++i) t[i] = float(l[r + i] - m);
            std::memcpy(h, half_norm + r, sizeof h);
        } else {
            for (int i = 0; i < N * kF; ++i) {
                t[i] = i < some ? float(l[r + i] - m) : -1e9f;
                h[i] = i < some ? half_norm[r + i] : 0;
            }
        }
        VecF tv[N], e[N];
        GEODIFF_UNROLL for (int i = 0; i < N; ++i) e[i] = tv[i] = load<VecF>(t + i * kF);
        exp_of(e);
        GEODIFF_UNROLL for (int i = 0; i < N; ++i) {
            e[i] = tv[i] < least ? VecF{} : e[i];  // such a row cannot matter: see `cut` in contract.h
            s0[i] += e[i];
            s1[i] += e[i] * (tv[i] < least ? VecF{} : tv[i]);
            s2[i] += e[i] * e[i];
            sh[i] += e[i] * load<VecF>(h + i * kF);
        }
        if (some == N * kF) {
            GEODIFF_UNROLL for (int i = 0; i < N; ++i) store(w + r + i * kF, e[i]);
        } else {
            std::memcpy(w + r, e, size_t(some) * sizeof(float));
        }
    }
    const double sum = double(lane_sum<VecF, float>(s0[0] + s0[1]));
    state->sum += sum;
    state->sum_q += sum;
    state->sum_l += double(lane_sum<VecF, float>(s1[0] + s1[1]));
    state->sum_2 += double(lane_sum<VecF, float>(s2[0] + s2[1]));
    state->sum_h += double(lane_sum<VecF, float>(sh[0] + sh[1]));
    return true;
}

}  // namespace
