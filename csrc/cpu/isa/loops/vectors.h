// Whole vectors, beside the products: see vector_table.h.
#pragma once

#include <limits>

#include "../table.h"
#include "../vec/constants.h"

namespace {

using geodiff::kPad;

template <class From>
bool centre(const From* from, int64_t n, double factor, double term, double* to) {
    double wrong = 0;
#pragma omp simd reduction(+ : wrong)
    for (int64_t i = 0; i < n; ++i) {
        const From x = from[i];  // `to` may be the same memory
        wrong += double(x - x);  // NaN for NaN and Inf, else 0
        to[i] = double(x) * factor + term;
    }
    return wrong == 0;
}

void narrow(const double* from, int64_t n, float* to) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = float(from[i]);
}

// sum_k term(a_k, b_k)
template <class Term>
double summed(const double* a, const double* b, int64_t n, Term term) {
    VecD acc[4] = {};
    double rest = 0;
    int64_t k = 0;
    for (; k + 4 * kD <= n; k += 4 * kD)
        GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[j] +=
            term(load<VecD>(a + k + j * kD), load<VecD>(b + k + j * kD));
    for (; k + kD <= n; k += kD) acc[0] += term(load<VecD>(a + k), load<VecD>(b + k));
    for (; k < n; ++k) rest += term(a[k], b[k]);
    return lane_sum<VecD, double>((acc[0] + acc[1]) + (acc[2] + acc[3])) + rest;
}

double dot_f64_vectors(const double* a, const double* b, int64_t n) {
    return summed(a, b, n, [](auto x, auto y) { return x * y; });
}

double squared_distance_of(const double* a, const double* b, int64_t n) {
    return summed(a, b, n, [](auto x, auto y) { return (x - y) * (x - y); });
}

double shifted_square_of(const double* x, double shift, int64_t n) {
    return summed(x, x, n, [shift](auto v, auto) { return (v + shift) * (v + shift); });
}

double largest_of(const double* x, int64_t n) {
    constexpr double kLowest = std::numeric_limits<double>::lowest();
    VecD top[4];
    GEODIFF_UNROLL for (int j = 0; j < 4; ++j) top[j] = VecD{} + kLowest;
    int64_t k = 0;
    for (; k + 4 * kD <= n; k += 4 * kD)
        GEODIFF_UNROLL for (int j = 0; j < 4; ++j) top[j] = larger(top[j], load<VecD>(x + k + j * kD));
    for (; k + kD <= n; k += kD) top[0] = larger(top[0], load<VecD>(x + k));
    const VecD tops = larger(larger(top[0], top[1]), larger(top[2], top[3]));
    double most = kLowest;
    for (int i = 0; i < kD; ++i) most = tops[i] > most ? tops[i] : most;
    for (; k < n; ++k) most = x[k] > most ? x[k] : most;
    return most;
}

void add_to(double factor, const double* x, int64_t n, double* to) {
#pragma omp simd
    for (int64_t k = 0; k < n; ++k) to[k] += factor * x[k];
}

template <bool WITH_Y>
float square_f32_of(const float* x, const float* y, float factor, int64_t n, int64_t step) {
    static_assert(kPad % (4 * kF) == 0);
    VecF acc[4] = {};
    float rest = 0;
    const auto at = [&](int64_t k) {
        const VecF v = load<VecF>(x + k);
        return WITH_Y ? v + load<VecF>(y + k) * factor : v;
    };
    for (; n > 0; n -= kPad, x += step, y += WITH_Y ? step : 0) {
        const int64_t there = n < kPad ? n : kPad;
        int64_t k = 0;
        for (; k + 4 * kF <= there; k += 4 * kF) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                const VecF v = at(k + j * kF);
                acc[j] += v * v;
            }
        for (; k < there; ++k) {
            const float v = WITH_Y ? x[k] + y[k] * factor : x[k];
            rest += v * v;
        }
    }
    return lane_sum<VecF, float>((acc[0] + acc[1]) + (acc[2] + acc[3])) + rest;
}

float square_f32(const float* x, const float* y, float factor, int64_t n, int64_t step) {
    return y ? square_f32_of<true>(x, y, factor, n, step) : square_f32_of<false>(x, y, factor, n, step);
}

void fold_f32(float* x, float factor, float* y, int64_t n, int64_t step) {
    for (; n > 0; n -= kPad, x += step, y += step) {
        const int64_t there = n < kPad ? n : kPad;
#pragma omp simd
        for (int64_t k = 0; k < there; ++k) {
            y[k] = x[k] + factor * y[k];
            x[k] = 0;
        }
    }
}

// Two registers of doubles are as many lanes as one of floats.
geodiff::VectorSize size_of(const double* x, int64_t n, int64_t fold, bool in_lanes) {
    VecD top[2] = {}, most = {}, total[2] = {};
    double part = 0;
    for (int64_t base = 0; base < n; base += fold) {
        const int64_t end = n - base < fold ? n : base + fold;
        VecD sum[2] = {};
        int64_t k = base;
        for (; k + kF <= end; k += kF) GEODIFF_UNROLL for (int j = 0; j < 2; ++j) {
                const VecD v = load<VecD>(x + k + j * kD);
                top[j] = larger(top[j], larger(v, -v));
                sum[j] += v * v;
            }
        for (int j = 0; k < end; k += kD, ++j) {
            const VecD v = end - k < kD ? load_first(x + k, end - k) : load<VecD>(x + k);
            top[j] = larger(top[j], larger(v, -v));
            sum[j] += v * v;
        }
        total[0] += sum[0];
        total[1] += sum[1];
        if (in_lanes) {
            most = larger(most, larger(sum[0], sum[1]));
        } else {
            const double all = lane_sum<VecD, double>(sum[0] + sum[1]);
            part = all > part ? all : part;
        }
    }
    const VecD tops = larger(top[0], top[1]);
    double largest = 0;
    for (int i = 0; i < kD; ++i) {
        largest = tops[i] > largest ? tops[i] : largest;
        part = most[i] > part ? most[i] : part;
    }
    return {largest, lane_sum<VecD, double>(total[0] + total[1]), part};
}

geodiff::Joined join_sums(const geodiff::Summand* summands, int count, const uint8_t* column, int64_t d, double scale,
                          double shift, double* to) {
    VecD square = {}, model = {};
    double rest = 0, model_rest = 0;
    for (int64_t c = 0; c < d; c += kPad, to += kPad) {
        const bool whole = d - c >= kPad;
        alignas(64) double v[kPad];
        GEODIFF_UNROLL4 for (int64_t i = 0; i < kPad; i += kD) {
            VecD x = {};
            for (int s = 0; s < count; ++s)
                x += as_doubles(load<HalfF>(summands[s].at + c / kPad * summands[s].step + i)) * summands[s].factor;
            x *= scale;
            store(v + i, x);
            if (!whole) continue;
            const VecD shifted = x + shift;
            square += x * x;
            model += shifted * shifted;
            if (!column) store(to + i, x);
        }
        if (whole) {  // what is squared needs no order, and so nothing is read back that was stored piecemeal
            if (column) {
                GEODIFF_UNROLL4 for (int64_t i = 0; i < kPad; ++i) to[column[i]] = v[i];
            }
            continue;
        }
        for (int64_t i = 0; i < kPad; ++i) {
            const int64_t k = column ? column[i] : i;
            if (c + k >= d) continue;
            to[k] = v[i];
            rest += v[i] * v[i];
            model_rest += (v[i] + shift) * (v[i] + shift);
        }
    }
    return {lane_sum<VecD, double>(square) + rest, lane_sum<VecD, double>(model) + model_rest};
}

template <class Real>
void combine(const double* mean, double gain, double offset, const Real* const* terms, const double* factors, int count,
             int64_t n, Real* out) {
    constexpr int64_t kPiece = 512;  // the sum of one stays in L1 while the terms are added
    double sum[kPiece];
    for (int64_t base = 0; base < n; base += kPiece) {
        const int64_t size = n - base < kPiece ? n - base : kPiece;
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) sum[i] = mean[base + i] * gain + offset;
        for (int k = 0; k < count; ++k) {
            const Real* const term = terms[k] + base;
            const double factor = factors[k];
#pragma omp simd
            for (int64_t i = 0; i < size; ++i) sum[i] += factor * double(term[i]);
        }
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) out[base + i] = Real(sum[i]);
    }
}

inline geodiff::VectorLoops vector_loops() {
    geodiff::VectorLoops v{};
    v.centre_f32 = centre<float>;
    v.centre_f64 = centre<double>;
    v.narrow = narrow;
    v.dot = dot_f64_vectors;
    v.largest = largest_of;
    v.add = add_to;
    v.square_f32 = square_f32;
    v.fold_f32 = fold_f32;
    v.squared_distance = squared_distance_of;
    v.shifted_square = shifted_square_of;
    v.size = size_of;
    v.join = join_sums;
    v.combine_f32 = combine<float>;
    v.combine_f64 = combine<double>;
    return v;
}

}  // namespace
