// Where things lie: index arithmetic of the two integer products.
#pragma once

#include "device.h"
#include "types.h"

namespace geodiff::cuda {

// Digits of the queries, ready to be the first operand of mma: byte of digit `digit` of query q at column k, in
// [q / 4][k / 32][lane][16 bytes]; `steps` = columns / 32. Digit 0 is the highest.
__host__ __device__ inline int64_t digit_address(int64_t q, int digit, int64_t k, int64_t steps) {
    const int slot = int(q % kQueriesPerMma) * kDigits + digit;
    const int within = int(k % 32), half = within / 16, t = within % 16 / 4;
    const int lane = slot % 8 * 4 + t, word = slot / 8 + 2 * half;
    return ((q / kQueriesPerMma * steps + k / 32) * 32 + lane) * 16 + word * 4 + within % 4;
}

// value = d[0] 256^3 + ... + d[3], every digit in [-128, 127]; |value| <= kTopDigits.
__host__ __device__ inline void four_digits(int64_t value, int8_t (&d)[kDigits]) {
    for (int k = kDigits - 1; k > 0; --k) {
        const int64_t low = ((value + 128) & 255) - 128;
        d[k] = int8_t(low);
        value = (value - low) / 256;
    }
    d[0] = int8_t(value);
}

// Four words of four columns each, one word per row -> four words of four rows each, one word per column.
__device__ __forceinline__ void transpose_bytes(unsigned (&w)[4]) {
    const unsigned a = __byte_perm(w[0], w[1], 0x5140), b = __byte_perm(w[2], w[3], 0x5140);
    const unsigned c = __byte_perm(w[0], w[1], 0x7362), e = __byte_perm(w[2], w[3], 0x7362);
    w[0] = __byte_perm(a, b, 0x5410);
    w[1] = __byte_perm(a, b, 0x7632);
    w[2] = __byte_perm(c, e, 0x5410);
    w[3] = __byte_perm(c, e, 0x7632);
}

// Rows [begin, end) of part `part` of `parts`, cut at whole tiles.
struct Range {
    int64_t begin, end;
};
__host__ __device__ inline Range share(int64_t n, int64_t part, int64_t parts) {
    const int64_t tiles = (n + kRows - 1) / kRows;
    const int64_t begin = tiles * part / parts * kRows, end = tiles * (part + 1) / parts * kRows;
    return {begin < n ? begin : n, end < n ? end : n};
}

// Bytes from one row of a tile in shared memory to the next: 16 modulo 32, so that the eight rows which one load of the
// first product touches lie in different banks.
__host__ __device__ inline int64_t tile_stride(int64_t slice) { return slice + 16; }

// Where the sum of a slot (a digit of a query) and a row of a tile lies. The lanes of a warp add to 8 slots and 4 rows,
// two apart, at once: like this they meet in no bank of shared memory.
constexpr int kDotStride = kRows + 8;
__host__ __device__ inline int dot_place(int slot, int row) { return slot * kDotStride + (slot >> 2 & 1) + row; }

// Shared memory of the streaming kernel for `queries` queries at a time.
struct StreamShared {
    int64_t sums, tiles, dots, parts, states, factors, weights, total;
};
__host__ __device__ inline StreamShared stream_shared(int64_t slice, int queries, int stages) {
    StreamShared s{};
    s.sums = 0;                                                // double [slice / 32][queries / 4][4][32]
    s.tiles = s.sums + slice * queries * 8;                    // byte   [stages][kRows][stride]
    s.parts = s.tiles + stages * kRows * tile_stride(slice);   // int64  [2][queries][kRows]
    s.states = s.parts + 2 * queries * kRows * 8;              // Online [queries]
    s.factors = s.states + queries * int64_t(sizeof(Online));  // double [2][queries], then one int per query
    s.dots = s.factors + queries * 24;                         // int    [queries * kDigits][kDotStride]
    s.weights = s.dots + queries * kDigits * kDotStride * 4;   // int8   [queries * kDigits][kRows]
    s.total = s.weights + queries * kDigits * kRows;
    return s;
}

}  // namespace geodiff::cuda
