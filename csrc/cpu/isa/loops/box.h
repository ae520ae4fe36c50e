// Sums over windows of `size` numbers that lie `unit` apart, by doubling: sums of 2, 4, 8, ... neighbours, of which a
// window takes two or three of the widest and what is then missing. Only numbers of one sign are added where the input
// has one sign, so nothing cancels, as it would in differences of running sums.
#pragma once

#include "../vec/constants.h"
#include "../vec/floats.h"

namespace {

constexpr int kMostParts = 16;  // of windows up to 2^14

template <class T>
struct Parts {
    const T* at[kMostParts];  // window i is the sum of at[j][i]
    int count = 0;
};

inline int doublings(int64_t size) {
    int n = 0;
    while ((size >> (n + 1)) >= 2) ++n;
    return n;
}

// `length`: of the input, beyond which as many numbers as a register holds may be read; `levels` has room for
// doublings(size) times `length` and as much. V: a register of T.
template <class V, class T>
inline Parts<T> box_parts(const T* in, int64_t length, int64_t unit, int64_t size, T* levels) {
    constexpr int64_t kLanes = sizeof(V) / sizeof(T);
    const int steps = doublings(size);
    Parts<T> parts;
    int64_t covered = 0;
    const T* level = in;
    for (int j = 0; j <= steps; ++j) {
        const int64_t wide = int64_t(1) << j;
        const int64_t times = j == steps ? size >> steps : size >> j & 1;
        for (int64_t t = 0; t < times; ++t) {
            parts.at[parts.count++] = level + covered * unit;
            covered += wide;
        }
        if (j == steps) break;
        T* const next = levels + j * (length + 2 * kLanes);
        const int64_t end = length - (2 * wide - 1) * unit;
        GEODIFF_UNROLL4 for (int64_t i = 0; i < end; i += kLanes)
            store(next + i, load<V>(level + i) + load<V>(level + i + wide * unit));
        level = next;
    }
    return parts;
}

// f(i, sum of the window that starts at from + i) for i = 0, lanes, ... < n; COUNT parts, 0: as many as there are.
template <int COUNT, class V, class T, class F>
inline void each_window(const Parts<T>& parts, int64_t from, int64_t n, F&& f) {
    constexpr int64_t kLanes = sizeof(V) / sizeof(T);
    const int count = COUNT ? COUNT : parts.count;
    for (int64_t i = 0; i < n; i += kLanes) {
        V sum = load<V>(parts.at[0] + from + i);
        GEODIFF_UNROLL for (int j = 1; j < count; ++j) sum += load<V>(parts.at[j] + from + i);
        f(i, sum);
    }
}

}  // namespace
