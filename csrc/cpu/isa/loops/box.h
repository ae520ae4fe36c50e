// Sums over windows of `size` numbers that lie `unit` apart, from sums of 2, 4, ... neighbours, of which a window takes
// some of the widest and what is then missing. Only numbers of one sign are added where the input has one sign, so
// nothing cancels, as it would in differences of running sums.
#pragma once

#include "../vec/constants.h"
#include "../vec/floats.h"

namespace {

constexpr int kWidest = 5;      // sums that a window takes at most
constexpr int kParts = 7;       // that it takes in all, with which loops are unrolled: the most up to 46 numbers
constexpr int kMostParts = 20;  // of windows up to 2^15

template <class T>
struct Parts {
    const T* at[kMostParts];  // window i is the sum of at[j][i]
    int count = 0;
};

// Another level costs more than two parts.
constexpr int doublings(int64_t size) {
    int n = 0;
    while (size >> n > kWidest) ++n;
    return n;
}

// `level` numbers apart lie the levels of an input of that length and two registers more.
template <class T>
inline Parts<T> box_parts(const T* in, int64_t level, int64_t unit, int64_t size, const T* levels) {
    const int steps = doublings(size);
    Parts<T> parts;
    int64_t covered = 0;
    for (int j = 0; j <= steps; ++j) {
        const int64_t times = j == steps ? size >> steps : size >> j & 1;
        for (int64_t t = 0; t < times; ++t) {
            parts.at[parts.count++] = (j == 0 ? in : levels + (j - 1) * level) + covered * unit;
            covered += int64_t(1) << j;
        }
    }
    return parts;
}

// The levels where the numbers from, ..., to - 1 of the input are new, those before them having been seen. As many
// numbers as a register holds may be read beyond. V: a register of T.
template <class V, class T>
inline void add_levels(const T* in, int64_t from, int64_t to, int64_t unit, int64_t size, int64_t level, T* levels) {
    constexpr int64_t kLanes = sizeof(V) / sizeof(T);
    const int steps = doublings(size);
    for (int j = 0; j < steps; ++j) {
        const int64_t half = (int64_t(1) << j) * unit, short_by = 2 * half - unit;
        T* const next = levels + j * level;
        GEODIFF_UNROLL4 for (int64_t i = from > short_by ? from - short_by : 0; i < to - short_by; i += kLanes)
            store(next + i, load<V>(in + i) + load<V>(in + i + half));
        in = next;
    }
}

// COUNT parts, which loops keep in registers
template <int COUNT, class T>
struct FixedParts {
    static constexpr int count = COUNT;
    const T* at[COUNT];
};

// f(parts), whose number the compiler knows as a rule
template <class T, class F>
inline void for_parts(const Parts<T>& parts, F&& f) {
    if (parts.count > kParts) return f(parts);
    with_constant<kParts + 1>(parts.count, [&](auto n) {
        constexpr int COUNT = decltype(n)::value;
        FixedParts<COUNT, T> some;
        GEODIFF_UNROLL for (int j = 0; j < COUNT; ++j) some.at[j] = parts.at[j];
        f(some);
    });
}

// The sum of the window that starts at i
template <class V, class P>
GEODIFF_INLINE V window(const P& parts, int64_t i) {
    V sum = load<V>(parts.at[0] + i);
    GEODIFF_UNROLL for (int j = 1; j < parts.count; ++j) sum += load<V>(parts.at[j] + i);
    return sum;
}

// Windows along a line of a few registers, summed in registers: what lies before a place and what lies behind it, each
// from sums of twice as many numbers, or one more, a step.
template <class T, int ROW, bool WRAPS>
class Line {
    typedef typename std::conditional<sizeof(T) == sizeof(float), VecF, VecD>::type V;
    typedef typename std::conditional<sizeof(T) == sizeof(float), VecI, VecL>::type I;

  public:
    static constexpr int64_t kLanes = sizeof(V) / sizeof(T);

    // Whether no step looks further than the register beside its own.
    static bool holds(int64_t before, int64_t after) { return before <= 2 * kLanes && after <= 2 * kLanes; }

    // Sums over windows of so many numbers before their own and behind it, in place of the numbers. A sum is a chain of
    // steps: those of all lines before the next.
    template <int COUNT>
    static GEODIFF_INLINE void sum(V (&lines)[COUNT][ROW], int before, int after) {
        V down[COUNT][ROW], up[COUNT][ROW];
        std::memcpy(down, lines, sizeof lines);
        grow<true>(lines, down, before + 1);
        if (after > 0) {
            std::memcpy(up, lines, sizeof lines);
            grow<false>(lines, up, after);
            look<false>(down, up, 1);
            std::memcpy(lines, up, sizeof lines);
        } else {
            std::memcpy(lines, down, sizeof lines);
        }
    }

  private:
    template <bool BACK, int COUNT>
    static GEODIFF_INLINE void grow(const V (&lines)[COUNT][ROW], V (&sums)[COUNT][ROW], int size) {
        int steps = 0;
        while (size >> (steps + 1) > 0) ++steps;
        GEODIFF_UNROLL for (int j = steps - 1; j >= 0; --j) {
            look<BACK>(sums, sums, size >> (j + 1));
            if (size >> j & 1) look<BACK>(lines, sums, 1);
        }
    }
    // sums[x] = more[x] + sums[x - by], or x + by
    template <bool BACK, int COUNT>
    static GEODIFF_INLINE void look(const V (&more)[COUNT][ROW], V (&sums)[COUNT][ROW], int by) {
        I at;
        GEODIFF_UNROLL for (int i = 0; i < kLanes; ++i) at[i] = i;
        at += BACK ? int(kLanes) - by : by;
        V end[COUNT];
        GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) end[g] = !WRAPS ? V{} : BACK ? sums[g][ROW - 1] : sums[g][0];
        if constexpr (BACK) {
            GEODIFF_UNROLL for (int r = ROW - 1; r >= 0; --r) GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g)
                sums[g][r] = more[g][r] + shifted(r > 0 ? sums[g][r - 1] : end[g], sums[g][r], at);
        } else {
            GEODIFF_UNROLL for (int r = 0; r < ROW; ++r) GEODIFF_UNROLL for (int g = 0; g < COUNT; ++g) sums[g][r] =
                more[g][r] + shifted(sums[g][r], r + 1 < ROW ? sums[g][r + 1] : end[g], at);
        }
    }
};

}  // namespace
