// Where things lie: index arithmetic of the two integer products.
#pragma once

#include "device.h"
#include "epoch.h"
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

// 16 columns of 32 rows as the first operand of a product: rows of it are columns 2 g and, 8 further on, 2 g + 1. Lane
// i gives the address of row i.
__device__ __forceinline__ uint4 turned_columns(const uint8_t* row) {
    const uint4 two = load_turned(row);
    return {__byte_perm(two.x, two.y, 0x6420), __byte_perm(two.x, two.y, 0x7531), __byte_perm(two.z, two.w, 0x6420),
            __byte_perm(two.z, two.w, 0x7531)};
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

// Rows of a tile in the order in which the second products take them: word `w` holds those of four places. It is how
// `turned_columns` come out.
__host__ __device__ inline int row_at(int w, int i) {
    const int t = w % 4;
    return w / 4 * 16 + 2 * t + i % 2 + i / 2 * 8;
}

// Where digit `k` (0: highest) of the weight of row `row` for query `q` of a group lies, among the second operands of
// the second product: [query / 4][digit / 2][row / 16][query % 4][digit % 2], and 16 rows in the order of row_at.
__host__ __device__ inline int weight_place(int q, int k, int row) {
    const int slot = ((q / 4 * 2 + k / 2) * 2 + row / 16) * 8 + q % 4 * 2 + k % 2;
    return slot * 16 + row % 8 / 2 * 4 + row % 16 / 8 * 2 + row % 2;
}

// Where a lane has its two sums of half a group of 32 columns, in pairs: of columns 2 (lane / 4) and the next, and
// query 4 m + lane % 4.
template <int Mmas>
__host__ __device__ inline int64_t sum_place(int64_t group, int half, int m, int lane) {
    return ((group * 2 + half) * Mmas + m) * 32 + lane;
}

// Shared memory of the streaming kernel for `queries` queries at a time.
struct StreamShared {
    int64_t sums, tiles, parts, states, epochs, moves, queries, flags, dots, weights, total;
};
__host__ __device__ inline StreamShared stream_shared(int64_t slice, int queries, int stages) {
    StreamShared s{};
    s.sums = 0;                                               // int64  [slice / 16][queries / 4][32][2]
    s.tiles = s.sums + slice * queries * 8;                   // byte   [stages][kRows][stride]
    s.parts = s.tiles + stages * kRows * tile_stride(slice);  // int64  [2][queries][kRows]
    s.states = s.parts + 2 * queries * kRows * 8;             // Online [queries]
    s.epochs = s.states + queries * int64_t(sizeof(Online));  // Epoch  [queries]
    s.moves = s.epochs + queries * int64_t(sizeof(Epoch));    // Move   [queries]
    s.queries = s.moves + queries * int64_t(sizeof(Move));    // Query  [queries]
    s.flags = s.queries + queries * int64_t(sizeof(Query));   // int    [3][queries]
    s.dots = s.flags + 3 * queries * 4;                       // int    [queries * kDigits][kDotStride]
    s.weights = s.dots + queries * kDigits * kDotStride * 4;  // byte   [queries * kDigits][kRows], at weight_place
    s.total = s.weights + queries * kDigits * kRows;
    return s;
}

}  // namespace geodiff::cuda
