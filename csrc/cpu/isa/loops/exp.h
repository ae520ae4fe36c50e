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

// In float32, to 1e-7 for t > -10 and an ulp more for each -10 from there on: what a weight e^t is worth less by.
// The polynomial has the least largest relative error of its degree, 2e-9.
inline VecF exp_of(VecF t) {
    const VecF magic = 0x1.8p23f - VecF{};
    t = larger(t, -80.0f - VecF{});
    const VecF shifted = t * 1.44269504f + magic;
    const VecF n = shifted - magic;
    const VecF f = t - n * 0.693147182f;
    VecF p = 0.0013836835f - VecF{};
    p = p * f + 0.0083748242f;
    p = p * f + 0.0416682251f;
    p = p * f + 0.1666641980f;
    p = p * f + 0.4999999106f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    VecI bits, out;
    std::memcpy(&bits, &shifted, sizeof bits);
    std::memcpy(&out, &p, sizeof out);
    out += bits << 23;
    std::memcpy(&p, &out, sizeof p);
    return p;
}

}  // namespace
