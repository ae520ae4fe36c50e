// The inner loops in GCC/Clang vector extensions, compiled once per instruction set by kernels_<isa>.cpp, which sets
//   GEODIFF_VB   bytes of a vector register        GEODIFF_RB, _QB   register block of the first product
//   GEODIFF_SQ, _SC   register block of the second product (queries x vectors of columns)
//
// Everything here has internal linkage and calls no library template: a symbol merged across translation units with
// different -m flags would run AVX-512 code on a machine without it.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels.h"

#define GEODIFF_UNROLL _Pragma("GCC unroll 32")
#define GEODIFF_UNROLL4 _Pragma("GCC unroll 4")

namespace {

using geodiff::DType;
using geodiff::kFold;
using geodiff::Online;

constexpr int kF = GEODIFF_VB / 4;  // floats in a register
constexpr int kD = GEODIFF_VB / 8;  // doubles in a register
typedef float VecF __attribute__((vector_size(GEODIFF_VB)));
typedef double VecD __attribute__((vector_size(GEODIFF_VB)));
typedef int64_t VecL __attribute__((vector_size(GEODIFF_VB)));
typedef float HalfF __attribute__((vector_size(GEODIFF_VB / 2)));

template <class V, class T>
inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class V, class T>
inline void store(T* p, V v) {
    std::memcpy(p, &v, sizeof v);
}

template <class V, class T>
inline T lane_sum(V v) {
    T lanes[sizeof(V) / sizeof(T)];
    store(lanes, v);
    for (int width = sizeof(V) / sizeof(T) / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
}

// ---- stored values -> float32 ------------------------------------------------------------------------------------

inline float bits_to_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}

inline float half_to_float(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    // Exponents are rebiased by a multiplication with 2^112, which is exact for subnormal halves as well.
    return bits_to_float(sign | magnitude << 13) * 0x1p112f;
}

template <DType T>
inline float value(const void* row, int64_t k) {
    if constexpr (T == DType::u8) return float(int(static_cast<const uint8_t*>(row)[k]) - 128);
    if constexpr (T == DType::f16) return half_to_float(static_cast<const uint16_t*>(row)[k]);
    if constexpr (T == DType::bf16) return bits_to_float(uint32_t(static_cast<const uint16_t*>(row)[k]) << 16);
    if constexpr (T == DType::f32) return static_cast<const float*>(row)[k];
    return 0;
}

// Columns [k, k + kF) of a row.
template <DType T>
inline VecF wide(const void* row, int64_t k) {
#if defined(__AVX512F__)
    if constexpr (T == DType::u8) {
        const __m128i bytes = load<__m128i>(static_cast<const uint8_t*>(row) + k);
        return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(128)));
    }
    if constexpr (T == DType::f16) return _mm512_cvtph_ps(load<__m256i>(static_cast<const uint16_t*>(row) + k));
    if constexpr (T == DType::bf16) {
        const __m256i halves = load<__m256i>(static_cast<const uint16_t*>(row) + k);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
#elif defined(__AVX2__)
    if constexpr (T == DType::u8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i*)(static_cast<const uint8_t*>(row) + k));
        return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(128)));
    }
    if constexpr (T == DType::f16) return _mm256_cvtph_ps(load<__m128i>(static_cast<const uint16_t*>(row) + k));
    if constexpr (T == DType::bf16) {
        const __m128i halves = load<__m128i>(static_cast<const uint16_t*>(row) + k);
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
#endif
    if constexpr (T == DType::f32) return load<VecF>(static_cast<const float*>(row) + k);
    VecF v;
    for (int i = 0; i < kF; ++i) v[i] = value<T>(row, k + i);
    return v;
}

// The same where the row ends before k + kF: zero from there on.
template <DType T>
inline VecF wide_tail(const void* row, int64_t k, int64_t d) {
    float v[kF] = {};
    for (int64_t i = k; i < d; ++i) v[i - k] = value<T>(row, i);
    return load<VecF>(v);
}

template <DType T>
inline void widen_row(const void* row, int64_t d, float* dst) {
    int64_t k = 0;
    GEODIFF_UNROLL4 for (; k + kF <= d; k += kF) store(dst + k, wide<T>(row, k));
    for (; k < d; ++k) dst[k] = value<T>(row, k);
}

template <class F>
inline auto for_dtype(DType dtype, F&& f) {
    switch (dtype) {
        case DType::u8:
            return f(std::integral_constant<DType, DType::u8>{});
        case DType::f16:
            return f(std::integral_constant<DType, DType::f16>{});
        case DType::bf16:
            return f(std::integral_constant<DType, DType::bf16>{});
        default:
            return f(std::integral_constant<DType, DType::f32>{});
    }
}

void widen(const void* row, DType dtype, int64_t d, int64_t dp, float* dst) {
    for_dtype(dtype, [&](auto t) { widen_row<decltype(t)::value>(row, d, dst); });
    for (int64_t k = d; k < dp; ++k) dst[k] = 0;
}

// ---- first product -----------------------------------------------------------------------------------------------

constexpr int64_t kColumns = 1024;  // of the rows and queries of a register block are in L1 together

// One register block. In<float>: float32 throughout; In<double>: rows widened once per block, products in float64.
template <class T>
struct In;
template <>
struct In<float> {
    typedef VecF Vec;
    static Vec row(const float* p) { return load<VecF>(p); }
    static VecD widened(VecF v) {
        HalfF half[2];
        std::memcpy(half, &v, sizeof v);
        return __builtin_convertvector(half[0], VecD) + __builtin_convertvector(half[1], VecD);
    }
};
template <>
struct In<double> {
    typedef VecD Vec;
    static Vec row(const float* p) { return __builtin_convertvector(load<HalfF>(p), VecD); }
    static VecD widened(VecD v) { return v; }
};

// acc[r][q] of kFold columns into float64: one more addition there costs nothing in error.
template <class T, int RB, int QB>
inline void dot_block(const float* X, int64_t ldx, const T* Q, int64_t ldq, int64_t len, double* S, int64_t lds) {
    typedef typename In<T>::Vec Vec;
    constexpr int64_t kStep = int64_t(sizeof(Vec) / sizeof(T));
    VecD total[RB][QB] = {};
    for (int64_t base = 0; base < len; base += kFold) {
        const int64_t end = len - base < kFold ? len : base + kFold;
        Vec acc[RB][QB] = {};
        for (int64_t k = base; k < end; k += kStep) {
            Vec x[RB];
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = In<T>::row(X + r * ldx + k);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
                const Vec y = load<Vec>(Q + q * ldq + k);
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) acc[r][q] += x[r] * y;
            }
        }
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < QB; ++q) total[r][q] +=
            In<T>::widened(acc[r][q]);
    }
    for (int q = 0; q < QB; ++q)
        for (int r = 0; r < RB; ++r) S[q * lds + r] += lane_sum<VecD, double>(total[r][q]);
}

template <class T, int RB, int QB>
inline void dot_rows(const float* X, int64_t ldx, int R, const T* Q, int64_t ldq, int64_t len, double* S, int64_t lds) {
    int r = 0;
    for (; r + RB <= R; r += RB) dot_block<T, RB, QB>(X + r * ldx, ldx, Q, ldq, len, S + r, lds);
    for (; r < R; ++r) dot_block<T, 1, QB>(X + r * ldx, ldx, Q, ldq, len, S + r, lds);
}

template <class T>
inline void dot(const float* X, int64_t ldx, int R, const T* Q, int64_t ldq, int nq, int64_t dp, double* S,
                int64_t lds) {
    constexpr int RB = GEODIFF_RB, QB = GEODIFF_QB;
    for (int64_t k = 0; k < dp; k += kColumns) {
        const int64_t len = dp - k < kColumns ? dp - k : kColumns;
        int q = 0;
        for (; q + QB <= nq; q += QB) dot_rows<T, RB, QB>(X + k, ldx, R, Q + q * ldq + k, ldq, len, S + q * lds, lds);
        const T* rest = Q + q * ldq + k;
        double* out = S + q * lds;
        switch (nq - q) {
            case 1:
                dot_rows<T, RB, 1>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 2:
                dot_rows<T, RB, 2>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 3:
                dot_rows<T, RB, 3>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 4:
                dot_rows<T, RB, 4>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            case 5:
                dot_rows<T, RB, 5>(X + k, ldx, R, rest, ldq, len, out, lds);
                break;
            default:
                break;
        }
    }
}

void dot_f32(const float* X, int64_t ldx, int R, const float* Q, int64_t ldq, int nq, int64_t dp, double* S,
             int64_t lds) {
    dot(X, ldx, R, Q, ldq, nq, dp, S, lds);
}

void dot_f64(const float* X, int64_t ldx, int R, const double* Q, int64_t ldq, int nq, int64_t dp, double* S,
             int64_t lds) {
    dot(X, ldx, R, Q, ldq, nq, dp, S, lds);
}

// ---- second product ----------------------------------------------------------------------------------------------

template <int QB, int CB>
inline void sum_block(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, float* A,
                      int64_t lda) {
    VecF acc[QB][CB] = {};
    for (int r = 0; r < R; ++r) {
        VecF x[CB];
        GEODIFF_UNROLL for (int c = 0; c < CB; ++c) x[c] = load<VecF>(X + r * ldx + c * kF);
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
            const VecF p = P[q * ldp + r] - VecF{};
            GEODIFF_UNROLL for (int c = 0; c < CB; ++c) acc[q][c] += x[c] * p;
        }
    }
    for (int q = 0; q < QB; ++q)
        for (int c = 0; c < CB; ++c) {
            float* a = A + q * lda + c * kF;
            store(a, load<VecF>(a) * rescale[q] + acc[q][c]);
        }
}

template <int CB>
inline void sum_columns(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                        float* A, int64_t lda) {
    int q = 0;
    for (; q + GEODIFF_SQ <= nq; q += GEODIFF_SQ)
        sum_block<GEODIFF_SQ, CB>(X, ldx, R, P + q * ldp, ldp, rescale + q, A + q * lda, lda);
    for (; q < nq; ++q) sum_block<1, CB>(X, ldx, R, P + q * ldp, ldp, rescale + q, A + q * lda, lda);
}

void sum_f32(const float* X, int64_t ldx, int R, const float* P, int64_t ldp, const float* rescale, int nq, int64_t dp,
             float* A, int64_t lda) {
    int64_t c = 0;
    for (; c + GEODIFF_SC * kF <= dp; c += GEODIFF_SC * kF)
        sum_columns<GEODIFF_SC>(X + c, ldx, R, P, ldp, rescale, nq, A + c, lda);
    for (; c < dp; c += kF) sum_columns<1>(X + c, ldx, R, P, ldp, rescale, nq, A + c, lda);
}

// ---- online softmax ----------------------------------------------------------------------------------------------

// exp(t) for t <= 0 to ~2e-15: 2^n times a polynomial in the remainder |f| <= ln2/2. Below -700 the result is 0 for
// every purpose here and is clamped to stay a normal number.
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
        w = t < -cut ? VecD{} : w;  // such a row cannot matter: see `cut` in bounds.h
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

// ---- float64 refinement ------------------------------------------------------------------------------------------

constexpr int64_t kChunk = 512;  // columns widened at a time: 2 KiB, always in L1

template <class F>
inline void over_chunks(const void* row, DType dtype, int64_t d, F&& f) {
    float v[kChunk];
    const char* bytes = static_cast<const char*>(row);
    const int64_t size = dtype == DType::u8 ? 1 : dtype == DType::f32 ? 4 : 2;
    for (int64_t k = 0; k < d; k += kChunk) {
        const int64_t len = d - k < kChunk ? d - k : kChunk;
        for_dtype(dtype, [&](auto t) { widen_row<decltype(t)::value>(bytes + k * size, len, v); });
        f(k, len, v);
    }
}

double distance(const double* x, const void* row, DType dtype, int64_t d) {
    VecD acc[4] = {};
    double tail = 0;
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        int64_t i = 0;
        for (; i + 4 * kD <= len; i += 4 * kD) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                const VecD e =
                    load<VecD>(x + k + i + j * kD) - __builtin_convertvector(load<HalfF>(v + i + j * kD), VecD);
                acc[j] += e * e;
            }
        for (; i < len; ++i) tail += (x[k + i] - double(v[i])) * (x[k + i] - double(v[i]));
    });
    return lane_sum<VecD, double>((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail;
}

void axpy(double w, const void* row, DType dtype, int64_t d, double* acc) {
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        for (int64_t i = 0; i < len; ++i) acc[k + i] += w * double(v[i]);
    });
}

bool row_stats(const void* row, DType dtype, int64_t d, double* norm2, double* acc) {
    double total = 0;
    over_chunks(row, dtype, d, [&](int64_t k, int64_t len, const float* v) {
        VecD s = {};
        int64_t i = 0;
        for (; i + kD <= len; i += kD) {
            const VecD w = __builtin_convertvector(load<HalfF>(v + i), VecD);
            s += w * w;
            store(acc + k + i, load<VecD>(acc + k + i) + w);
        }
        for (; i < len; ++i) {
            total += double(v[i]) * double(v[i]);
            acc[k + i] += double(v[i]);
        }
        total += lane_sum<VecD, double>(s);
    });
    *norm2 = total;
    return total - total == 0;  // squares of float32 values cannot overflow float64: only NaN or Inf fail this
}

}  // namespace
