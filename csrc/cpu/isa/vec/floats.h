// Vectors of floats and doubles in GCC/Clang vector extensions, and how loops over them are cut for the registers there
// are. A vector header includes this file after its Shape, which has
//     bytes                         of a register
//     accumulators, dot_vectors     of the first product's block: rows x vectors of queries, and the latter
//     sum_queries, sum_vectors      of the second's: queries, and vectors of columns
//     few_rows                      rows of the first product's block for four queries
//
// Everything in vec/ and loops/ has internal linkage and calls no library template: a symbol merged across translation
// units with different -m flags would run AVX-512 code on a machine without it.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace {

constexpr int kF = Shape::bytes / 4;  // floats in a register
constexpr int kD = Shape::bytes / 8;  // doubles in a register
typedef float VecF __attribute__((vector_size(Shape::bytes)));
typedef double VecD __attribute__((vector_size(Shape::bytes)));
typedef int64_t VecL __attribute__((vector_size(Shape::bytes)));
typedef int32_t VecI __attribute__((vector_size(Shape::bytes)));
typedef float HalfF __attribute__((vector_size(Shape::bytes / 2)));
typedef int32_t HalfI __attribute__((vector_size(Shape::bytes / 2)));

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

// The first n of a register's numbers, and zeros
inline VecD load_first(const double* p, int64_t n) {
    if (n >= kD) return load<VecD>(p);
    double v[kD] = {};
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
    return load<VecD>(v);
}
inline void store_first(double* p, VecD v, int64_t n) {
    if (n >= kD) return store(p, v);
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}

template <class V, class T>
inline T lane_sum(V v) {
    T lanes[sizeof(V) / sizeof(T)];
    store(lanes, v);
    for (int width = sizeof(V) / sizeof(T) / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
}

// Whether a register can be taken from two that lie side by side: the vector header has shifted(a, b, first) then, the
// numbers of a and b from place first[0] on, `first` being numbers one after the other.
template <class V>
constexpr bool kShifts = false;

#ifndef GEODIFF_OWN_DOUBLES
inline VecD as_doubles(HalfF v) { return __builtin_convertvector(v, VecD); }
inline VecD as_doubles(HalfI v) { return __builtin_convertvector(v, VecD); }
#endif

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

inline float bfloat_to_float(uint16_t b) { return bits_to_float(uint32_t(b) << 16); }

}  // namespace
