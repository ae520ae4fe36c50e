// Numbers that the compiler knows, for loops whose shapes are parameters of templates.
#pragma once

#include <type_traits>
#include <utility>

#include "macros.h"

namespace {

template <int N>
using Constant = std::integral_constant<int, N>;

// f(n) for 0 < n < MOST, as a constant of the compiler; nothing for any other n.
template <int MOST, class F>
inline void with_constant(int n, F&& f) {
    if constexpr (MOST > 1) {
        if (n == MOST - 1) return f(Constant<MOST - 1>{});
        with_constant<MOST - 1>(n, f);
    }
}

// f(0), f(1), ..., f(COUNT - 1), as constants of the compiler.
template <class F, int... I>
GEODIFF_INLINE void each_of(F& f, std::integer_sequence<int, I...>) {
    (f(Constant<I>{}), ...);
}
template <int COUNT, class F>
GEODIFF_INLINE void each_constant(F&& f) {
    each_of(f, std::make_integer_sequence<int, COUNT>{});
}

}  // namespace
