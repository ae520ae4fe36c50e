// exp(t) for t <= 0: 2^n times a polynomial in the remainder |f| <= ln2/2.
#pragma once

#include "../vec/floats.h"

namespace {

// To ~2e-15. Below -700 the result is 0 for every purpose here and is clamped to stay a normal number.
template <class V, class L>
inline V exp_nonpositive(V t) {
    const V magic = 0x1.8p52 - V{};
    t = t < -700.0 ? -700.0 - V{} : t;
    const V shifted = t * 1.4426950408889634 + magic;
    const V n = shifted - magic;
    const V f = (t - n * 0x1.62e42fefa0000p-1) - n * 0x1.cf79abc9e3b3ap-40;
    V p = 1.0 / 39916800 - V{};
    p = p * f + 1.0 / 3628800;
    p = p * f + 1.0 / 362880;
    p = p * f + 1.0 / 40320;
    p = p * f + 1.0 / 5040;
    p = p * f + 1.0 / 720;
    p = p * f + 1.0 / 120;
    p = p * f + 1.0 / 24;
    p = p * f + 1.0 / 6;
    p = p * f + 0.5;
    p = p * f + 1.0;
    p = p * f + 1.0;
    L bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    L out;
    std::memcpy(&out, &p, sizeof out);
    out += bits << 52;  // the low bits of `shifted` hold n in two's complement
    std::memcpy(&p, &out, sizeof p);
    return p;
}
inline VecD exp_of(VecD t) { return exp_nonpositive<VecD, VecL>(t); }

template <int N>
GEODIFF_INLINE void exp_of(VecD (&t)[N]) {
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) t[i] = exp_of(t[i]);
}

// In float32, to 1e-7 for t > -10 and an ulp more for each -10 from there on: what a weight e^t is worth less by.
// The polynomial has the least largest relative error of its degree, 2e-9. Each step of all of them before the next: a
// step waits for the one before it, and processors look ahead no further than one such chain.
template <int N>
GEODIFF_INLINE void exp_of(VecF (&t)[N]) {
    constexpr float kTerms[] = {0.0013836835f, 0.0083748242f, 0.0416682251f, 0.1666641980f, 0.4999999106f, 1.0f, 1.0f};
    const VecF magic = 0x1.8p23f - VecF{};
    VecF shifted[N], p[N];
    VecI bits[N], out;
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) t[i] = larger(t[i], -80.0f - VecF{});
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) shifted[i] = t[i] * 1.44269504f + magic;
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) p[i] = shifted[i] - magic;
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) t[i] = t[i] - p[i] * 0.693147182f;
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) p[i] = t[i] * kTerms[0] + kTerms[1];
    GEODIFF_UNROLL for (int k = 2; k < 7; ++k) GEODIFF_UNROLL for (int i = 0; i < N; ++i) p[i] =
        p[i] * t[i] + kTerms[k];
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) std::memcpy(&bits[i], &shifted[i], sizeof out);
    GEODIFF_UNROLL for (int i = 0; i < N; ++i) {
        std::memcpy(&out, &p[i], sizeof out);
        out += bits[i] << 23;
        std::memcpy(&t[i], &out, sizeof out);
    }
}
inline VecF exp_of(VecF t) {
    VecF one[1] = {t};
    exp_of(one);
    return one[0];
}

}  // namespace
