// What a call does with whole vectors beside the products, as an instruction set offers it: each is a few instructions
// a number, but where there are few rows a query costs as much as its products.
#pragma once

#include <cmath>
#include <cstdint>

namespace geodiff {

// Fixed pseudo-random numbers in [0, 1) that round queries and weights: a table read from any start below kDithers.
constexpr int64_t kDithers = 4096;

// Query vectors of one block as the first product takes them: [groups][dp/64][group][64] digits.
struct DigitPlace {
    char* digits;
    int64_t* total;  // [groups*group]  sum of the digits, to which they are added
    int64_t group, dp;
};

// How a vector becomes digits: in units of `step`, as vectors first, first + 1, ... of the block; rounded up with the
// probability of the fraction where `up` is given (uniform numbers, kDithers of them), else to nearest.
struct DigitRounding {
    double step;
    const float* up;
    int parts;
    int64_t first;
    float* lost;  // [d]  what is rounded away, or null
};

struct VectorSize {
    double largest, square;  // max |x_k| and sum x_k^2
    double part;             // the largest sum of squares that one lane sees of a block of columns
};

struct Joined {
    double square, model_square;  // sum of v_k^2 and of (v_k + shift)^2
};

// Numbers in blocks of kPad, `step` apart, times a factor.
struct Summand {
    const float* at;
    int64_t step;
    double factor;
};

struct VectorLoops {
    // to = from factor + term, n numbers; false if one of them is NaN or Inf
    bool (*centre_f32)(const float* from, int64_t n, double factor, double term, double* to);
    bool (*centre_f64)(const double* from, int64_t n, double factor, double term, double* to);
    void (*narrow)(const double* from, int64_t n, float* to);
    double (*dot)(const double* a, const double* b, int64_t n);
    double length(const double* x, int64_t n) const { return std::sqrt(dot(x, x, n)); }
    // max_k x_k; the lowest number where n is 0
    double (*largest)(const double* x, int64_t n);
    // to += factor x
    void (*add)(double factor, const double* x, int64_t n, double* to);
    // sum_k (x_k + factor y_k)^2, wholly in float32; y may be null, for 0. n numbers in blocks of kPad, `step` apart
    float (*square_f32)(const float* x, const float* y, float factor, int64_t n, int64_t step);
    // y = x + factor y, then x = 0, likewise
    void (*fold_f32)(float* x, float factor, float* y, int64_t n, int64_t step);
    double (*squared_distance)(const double* a, const double* b, int64_t n);
    // sum_k (x_k + shift)^2
    double (*shifted_square)(const double* x, double shift, int64_t n);
    // Blocks of `fold` columns, whose column k is in lane k % FloatLayout::few_lanes, or all in one
    VectorSize (*size)(const double* x, int64_t n, int64_t fold, bool in_lanes);
    // to = scale (the sum of so many), d numbers, whose place i of each block holds column[i] (null: i)
    Joined (*join)(const Summand* summands, int count, const uint8_t* column, int64_t d, double scale, double shift,
                   double* to);
    // out = (gain mean + offset) + sum_k factors[k] terms[k], rounded once; `out` may be one of the terms
    void (*combine_f32)(const double* mean, double gain, double offset, const float* const* terms,
                        const double* factors, int count, int64_t n, float* out);
    void (*combine_f64)(const double* mean, double gain, double offset, const double* const* terms,
                        const double* factors, int count, int64_t n, double* out);
};

}  // namespace geodiff
