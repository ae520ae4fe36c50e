// Contract 1: |r - exact r| <= tol max(|r|, 0.01 max_i |x_i|), and log p to 1e-3 beside a relative part.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace geodiff {

// Noise levels that are answered, in model units: those of geodiff/base/arguments.py.
constexpr double kSigmaMin = 1e-12, kSigmaMax = 1e12;

constexpr double kLogError = 1e-3;  // of log p, without its relative part, unless a call asks for less

// What the contract measures an answer against; lengths in the units of the model, times any common factor.
struct Scale {
    double max_norm;  // max_i |x_i|
    double radius;    // max_i |x_i - mean|

    // The smallest value that it divides by.
    double least() const { return std::max(0.01 * max_norm, 1e-300); }
    // The most that r, of length `norm`, may be off by.
    double allowed(double norm, double tol) const { return tol * std::max(norm, least()); }
    // Rows whose logit lies this far below the largest may be dropped altogether: all n of them together then have a
    // weight of at most n e^-cut <= log_error/100, which is what log p loses, and move r by 2 radius times that, <=
    // tol/50 least(). Rows that are all alike would move r by nothing.
    double cut(int64_t n, double tol, double log_error = kLogError) const {
        return std::log(double(n) * 100 * std::max(radius / (tol * least()), 1 / log_error));
    }
};

}  // namespace geodiff
