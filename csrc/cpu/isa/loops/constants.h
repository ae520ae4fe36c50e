// Numbers that the compiler knows, for loops whose shapes are parameters of templates.
#pragma once

#include <type_traits>
#include <utility>

namespace {

// f(n) for n < MOST, as a constant of the compiler.
template <int MOST, class F>
inline void with_constant(int n, F&& f) {
    if constexpr (MOST > 1) {
        if (n == MOST - 1) return f(std::integral_constant<int, MOST - 1>{});
        with_constant<MOST - 1>(n, f);
    }
}

}  // namespace
