// What the compiler is told about loops and functions.
#pragma once

#define GEODIFF_UNROLL _Pragma("GCC unroll 32")
#define GEODIFF_UNROLL4 _Pragma("GCC unroll 4")

// Operations on registers: where one of them is left as a call, sums whose address it takes live in memory.
#define GEODIFF_INLINE inline __attribute__((always_inline))
// A register block: it is a function, so that no neighbour takes its registers, and a name in the disassembly.
#define GEODIFF_BLOCK __attribute__((noinline))
#define GEODIFF_INLINE_LAMBDA __attribute__((always_inline))

// A number that the compiler is to hold in a register: what it would make of it instead are sums of it and every
// pointer of a loop, for which it has none.
template <class T>
GEODIFF_INLINE T in_register(T x) {
    asm("" : "+r"(x));
    return x;
}
