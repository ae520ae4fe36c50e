// The two products in exact 8-bit integers: data times query digits, and data times weight digits, four products to a
// dword, summed in int32. V: the operations of vec/bytes_vnni.h. It says which factor is signed, and how many sums its
// registers hold.
//
// Both read the data as stored. The first product walks along d, so rows need no rearranging. The second contracts over
// rows: four rows are interleaved byte-wise for one block of columns at a time, which stays in L1 while every query
// uses it.
#pragma once

#include <algorithm>

#include "../table.h"
#include "../vec/constants.h"
#include "coordinate_bounds.h"
#include "listed_rows.h"
#include "peaks.h"
#include "query_digits.h"
#include "row_ends.h"
#include "rows_ahead.h"
#include "transpose.h"
#include "weight_digits.h"

namespace {

constexpr int64_t kDotChunk = 4096;  // 8 vectors of this length: 32 KiB, resident in L1 while rows stream by

// What one group of digits sums up over a tile, as its blocks leave it: a row of digits for each row. Doubles, digit by
// digit, would take as many instructions of a block as 15 % of its products (AVX-512, 3 x 8).
template <class V>
struct GroupSums {
    static constexpr int width = (V::dot_group + kD - 1) / kD * kD;
    alignas(64) int32_t at[geodiff::kMaxTileRows + kD][width];

    // S[q*lds + r] = (add ? S : start[q]) + the sum of row r and digit q
    void spread(int R, int digits, const double* start, double* S, int64_t lds, bool add) const {
        each_element(
            R, digits, [&](int r, int q) GEODIFF_INLINE_LAMBDA { return load<HalfI>(at[r] + q); },
            [&](int q, int r, HalfI sums, int there) GEODIFF_INLINE_LAMBDA {
                double* to = S + q * lds + r;
                const VecD before = add ? load_first(to, there) : start[q] - VecD{};
                store_first(to, before + as_doubles(sums), there);
            });
    }
};

// S[r][q] = <u_r, q_q> over whole blocks of columns, then those of `ends`. An int32 cannot overflow below
// 2^31 / (255 128) = 65,793 columns. PREFETCH: the rows at `ahead`, as many as these.
template <class V, int RB, int QB, bool PREFETCH>
GEODIFF_BLOCK void dot_block_bytes(const uint8_t* X, int64_t ldx, const uint8_t* ahead, const int8_t* Q, int64_t blocks,
                                   const RowEnds& ends, int32_t (*S)[GroupSums<V>::width]) {
    typedef typename V::Vec Vec;
    Vec acc[RB][V::dot_group];
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < V::dot_group; ++q) acc[r][q] =
        V::zero();
    for (int part = 0; part <= RowEnds::parts;
         X = ends.part[part].at, ldx = ends.part[part].stride, blocks = ends.part[part].blocks, ++part)
        for (; blocks > 0; --blocks, X += kPad, Q += kPad * QB) {
            if constexpr (PREFETCH) {
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) __builtin_prefetch(ahead + r * ldx, 0, 2);
                ahead += kPad;
            }
            GEODIFF_UNROLL for (int64_t i = 0; i < kPad; i += V::bytes) {
                Vec x[RB];
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = V::row(V::load(X + r * ldx + i));
                GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
                    const Vec y = V::load(Q + q * kPad + i);
                    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[r][q], x[r], y);
                }
            }
        }
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::sums(acc[r], S[r]);
}

// Rows of a block for so many digits: as many as leave registers for them and for a vector of digits.
template <class V>
constexpr int byte_rows(int digits) {
    for (const int rows : {6, 4, 3, 2})  // divisors of a tile's rows
        if (rows * digits <= V::sums_held && rows * (digits + 1) + 1 <= V::registers) return rows;
    return 1;
}

template <class V, int QB>
inline void dot_group_bytes(const uint8_t* X, int64_t ldx, int R, const RowsAhead& prefetch, const int8_t* Q, int64_t d,
                            const RowEnds& ends, const double* start, double* S, int64_t lds) {
    constexpr int RB = byte_rows<V>(QB);
    GroupSums<V> sums;
    for (int64_t k = 0; k < d; k += kDotChunk, Q += kDotChunk * QB) {
        const int64_t blocks = (d - k < kDotChunk ? d - k : kDotChunk) / kPad;
        const RowEnds last = d - k <= kDotChunk ? ends : RowEnds{};
        prefetch.each_block<RB>(X, ldx, R,
                                [&](int r, auto rows, auto prefetches, const uint8_t* ahead) GEODIFF_INLINE_LAMBDA {
                                    dot_block_bytes<V, rows, QB, prefetches>(X + r * ldx + k, ldx, ahead + k, Q, blocks,
                                                                             last.from(r), sums.at + r);
                                });
        sums.spread(R, QB, start, S, lds, k > 0);
    }
}

template <class V>
void dot_bytes(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const geodiff::QueryDigits& queries,
               int64_t d, double* S, int64_t lds, const uint8_t* next) {
    const int group = queries.group;
    const int64_t* total = queries.total;
    const int8_t* Q = static_cast<const int8_t*>(queries.digits);
    RowEndsRoom room;
    const RowEnds ends = room.fill<V>(X, ldx, tail, R, d);
    for (int g = 0; g < queries.groups; ++g, Q += group * queries.columns, S += group * lds, total += group) {
        double start[V::dot_group];  // v = u - 128
        for (int q = 0; q < group; ++q) start[q] = V::unsigned_rows ? -128.0 * double(total[q]) : 0.0;
        with_constant<V::dot_group + 1>(group, [&](auto size) {
            constexpr int QB = decltype(size)::value;
            if constexpr (QB > 0)
                dot_group_bytes<V, QB>(X, ldx, R, {next, g, queries.groups}, Q, d, ends, start, S, lds);
        });
    }
}

// Where the sums of one slot of digits start: rows taken as u8 owe -128 for each digit.
template <class V, bool SIGNED>
GEODIFF_INLINE typename V::Vec start_of_sum(int32_t total) {
    return V::set1(V::template raw<SIGNED>() ? -128 * total : 0);
}

// What the second product needs of one group's weights.
struct ByteGroup {
    const int8_t* digits;  // [steps][queries][parts][4 rows]
    const int32_t* total;
    const float *rescale, *quantum;
};

// A[q][columns] = rescale[q] A + quantum[q] sum_r digit(p_r) v_r, for one group and interleaved columns of one block.
template <class V, int QB, int PARTS, bool SIGNED>
GEODIFF_BLOCK void sum_block_bytes(const uint8_t* Xi, int steps, const ByteGroup& w, float* A, int64_t lda,
                                   LinesAhead& lines) {
    typedef typename V::Vec Vec;
    constexpr int kSlots = QB * PARTS, CB = V::sum_vectors;
    LinesAhead ahead = lines;
    for (int first = 0; first < 4; first += CB, Xi += CB * V::bytes, A += CB * V::bytes / 4) {
        ahead.begin_block();
        Vec acc[kSlots][CB];
        GEODIFF_UNROLL for (int s = 0; s < kSlots; ++s) GEODIFF_UNROLL for (int c = 0; c < CB; ++c) acc[s][c] =
            start_of_sum<V, SIGNED>(w.total[s]);
        // Of many queries sums lie beyond L2: products of a whole tile hide their way.
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < CB; ++c)
            __builtin_prefetch(A + q * lda + c * V::bytes / 4, 1, 3);
        const int8_t* p = w.digits;
        for (int i = 0; i < steps; ++i, p += kSlots * 4) {
            ahead.step();
            Vec x[CB];
            GEODIFF_UNROLL for (int c = 0; c < CB; ++c) x[c] = V::load(Xi + (i * 4 + c) * V::bytes);
            V::template each_slot<kSlots>(p, [&](int s, auto y) GEODIFF_INLINE_LAMBDA {
                GEODIFF_UNROLL for (int c = 0; c < CB; ++c) V::template weigh<SIGNED>(acc[s][c], x[c], y);
            });
        }
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < CB; ++c)
            V::template fold<PARTS>(&acc[q * PARTS][c], CB, w.quantum[q], w.rescale[q], A + q * lda + c * V::bytes / 4);
    }
    lines = ahead;
}

// Four rows of one register's columns, interleaved; zero from `len` columns on unless all of them are known to be
// there.
template <class V, bool SIGNED, bool WHOLE>
GEODIFF_INLINE void load_four(const uint8_t* X, int64_t ldx, int rows, int64_t len, typename V::Vec* out) {
    typename V::Vec v[4];
    GEODIFF_UNROLL for (int i = 0; i < 4; ++i) {
        const uint8_t* row = X + (i < rows ? i : rows - 1) * ldx;  // the weight of a row that is not there is zero
        v[i] = WHOLE ? V::load(row) : V::first_of(row, len);
    }
    V::interleave(v, out);
    if constexpr (!V::template raw<SIGNED>()) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) out[j] = V::centred(out[j]);
}

// Four rows; where the next tile has fewer, nothing comes of it.
GEODIFF_INLINE void prefetch_four(const uint8_t* next, int64_t ldx) {
    for (int i = 0; i < 4; ++i) __builtin_prefetch(next + i * ldx, 0, 2);
}

// One or two queries alone: interleaved rows are used once, straight from the registers they are made in. Rows of some
// registers of columns, added to `acc`.
template <class V, int SLOTS, bool SIGNED, bool WHOLE, int FIRST>
GEODIFF_INLINE void few_block_bytes(const uint8_t* X, int64_t ldx, int R, int64_t len, const int8_t* p,
                                    typename V::Vec (*acc)[4], const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    constexpr int CB = V::few_vectors;
    Vec a[SLOTS][CB];
    GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < CB; ++j) a[s][j] =
        acc[s][FIRST + j];
    const auto add = [&](int rows) GEODIFF_INLINE_LAMBDA {
        Vec x[4];
        load_four<V, SIGNED, WHOLE>(X, ldx, rows, len, x);
        V::template each_slot<SLOTS>(p, [&](int s, auto y) GEODIFF_INLINE_LAMBDA {
            GEODIFF_UNROLL for (int j = 0; j < CB; ++j) V::template weigh<SIGNED>(a[s][j], x[FIRST + j], y);
        });
    };
    int r = 0;
    for (; prefetch && r + 4 <= R; r += 4, p += SLOTS * 4, X += 4 * ldx, prefetch += 4 * ldx) {
        prefetch_four(prefetch, ldx);
        add(4);
    }
    for (; r + 4 <= R; r += 4, p += SLOTS * 4, X += 4 * ldx) add(4);
    if (r < R) add(R - r);
    GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < CB; ++j) acc[s][FIRST + j] =
        a[s][j];
}

template <class V, int SLOTS, bool SIGNED, bool WHOLE, int FIRST>
GEODIFF_BLOCK void few_part_bytes(const uint8_t* X, int64_t ldx, int R, int64_t len, const int8_t* p,
                                  typename V::Vec (*acc)[4], const uint8_t* prefetch) {
    few_block_bytes<V, SLOTS, SIGNED, WHOLE, FIRST>(X, ldx, R, len, p, acc, prefetch);
}

// A cache line of a few rows at a time, where a register holds less than a line: rows a multiple of 1 KiB apart share
// so few lines of L1 that a whole column of them does not fit.
template <class V, int SLOTS, int PARTS, bool SIGNED, bool WHOLE>
GEODIFF_BLOCK void sum_few_bytes(const uint8_t* X, int64_t ldx, int R, int64_t len, const geodiff::WeightDigits& w,
                                 float* A, int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    constexpr int kParts = int(kPad / V::bytes), kRows = 16;
    Vec acc[kParts][SLOTS][4];
    GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s)
        GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[part][s][j] = start_of_sum<V, SIGNED>(w.total[s]);
    const int8_t* digits = static_cast<const int8_t*>(w.digits);
    if constexpr (kParts == 1 && V::few_vectors == 4) {
        few_block_bytes<V, SLOTS, SIGNED, WHOLE, 0>(X, ldx, R, len, digits, acc[0], prefetch);
    } else {
        for (int first = 0; first < R; first += kRows) {
            const int rows = R - first < kRows ? R - first : kRows;
            const int8_t* p = digits + first * SLOTS;
            for (int part = 0; part < kParts; ++part) {
                const uint8_t* column = X + first * ldx + part * V::bytes;
                const int64_t rest = len - part * V::bytes;
                const uint8_t* next = prefetch && part == 0 ? prefetch + first * ldx : nullptr;
                few_part_bytes<V, SLOTS, SIGNED, WHOLE, 0>(column, ldx, rows, rest, p, acc[part], next);
                if constexpr (V::few_vectors < 4)
                    few_part_bytes<V, SLOTS, SIGNED, WHOLE, 2>(column, ldx, rows, rest, p, acc[part], nullptr);
            }
        }
    }
    for (int part = 0; part < kParts; ++part, A += V::bytes)
        GEODIFF_UNROLL for (int q = 0; q < SLOTS / PARTS; ++q) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
            V::template fold<PARTS>(&acc[part][q * PARTS][j], 4, w.quantum[q], w.rescale[q],
                                    A + q * lda + j * V::bytes / 4);
}

// All groups of queries against interleaved columns of one register's width.
template <class V, int PARTS, bool SIGNED>
inline void sum_groups_bytes(const uint8_t* Xi, int steps, const geodiff::WeightDigits& w, float* A, int64_t lda,
                             LinesAhead& lines) {
    const int64_t group_bytes = int64_t(steps) * 4 * w.group * PARTS;
    for (int g = 0; g < w.groups; ++g) {
        if (!w.active[g]) continue;
        const int q = g * w.group;
        const ByteGroup group{static_cast<const int8_t*>(w.digits) + g * group_bytes, w.total + q * PARTS,
                              w.rescale + q, w.quantum + q};
        with_constant<V::sum_group / PARTS + 1>(w.group, [&](auto queries) {
            constexpr int QB = decltype(queries)::value;
            if constexpr (QB > 0) sum_block_bytes<V, QB, PARTS, SIGNED>(Xi, steps, group, A + q * lda, lda, lines);
        });
    }
}

template <class V, bool SIGNED, bool WHOLE>
inline void sum_columns_bytes(const uint8_t* X, int64_t ldx, int R, int64_t len, const geodiff::WeightDigits& w,
                              float* A, int64_t lda, const uint8_t* prefetch) {
    if (w.parts > 1 && w.groups == 1 && w.group * w.parts <= 4) {
        switch (w.group * w.parts) {
            case 2:
                return sum_few_bytes<V, 2, 2, SIGNED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
            case 3:
                return sum_few_bytes<V, 3, 3, SIGNED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
            default:
                return sum_few_bytes<V, 4, 2, SIGNED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
        }
    }
    constexpr int kParts = int(kPad / V::bytes);
    alignas(64) uint8_t Xi[kParts][geodiff::kMaxTileRows * V::bytes];
    const int steps = (R + 3) / 4;
    for (int r = 0; r < R; r += 4, X += 4 * ldx) {
        GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) {
            typename V::Vec x[4];
            const int64_t at = part * V::bytes;
            load_four<V, SIGNED, WHOLE>(X + at, ldx, R - r, len - at, x);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) V::store(Xi[part] + (r + j) * V::bytes, x[j]);
        }
    }
    LinesAhead lines(prefetch, ldx, R, active_groups(w) * kParts * 4 / V::sum_vectors);
    for (int part = 0; part < kParts; ++part, A += V::bytes)
        if (w.parts == 1)
            sum_groups_bytes<V, 1, SIGNED>(Xi[part], steps, w, A, lda, lines);
        else if (w.parts == 2)
            sum_groups_bytes<V, 2, SIGNED>(Xi[part], steps, w, A, lda, lines);
        else
            sum_groups_bytes<V, 3, SIGNED>(Xi[part], steps, w, A, lda, lines);
}

template <class V, bool SIGNED>
inline void sum_tile_bytes(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                           int64_t lda, const uint8_t* prefetch) {
    for (int64_t c = 0; c < d; c += kPad) {  // a cache line of every row
        const uint8_t* next = prefetch ? prefetch + c : nullptr;
        if (!V::free_masks && d - c >= kPad)
            sum_columns_bytes<V, SIGNED, true>(X + c, ldx, R, d - c, w, A + c, lda, next);
        else
            sum_columns_bytes<V, SIGNED, false>(X + c, ldx, R, d - c, w, A + c, lda, next);
    }
}

template <class V>
void sum_bytes(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
               const uint8_t* prefetch) {
    if (w.balanced)
        sum_tile_bytes<V, true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_bytes<V, false>(X, ldx, R, d, w, A, lda, prefetch);
}

template <class V>
inline geodiff::IntegerProducts byte_products() {
    static_assert(kPad % V::bytes == 0);
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 8;
    p.layout.weight_rows = 4;
    p.layout.dot_group = V::dot_group;
    p.layout.sum_group = V::sum_group;
    p.layout.worth = 4;
    p.layout.free_to = 8;
    p.layout.shaped_from = 17;
    p.layout.lanes_from = 3;
    p.layout.small_to = 16;
    p.layout.tile = 552 << 10;
    p.layout.crowded_tile = 736 << 10;
    p.layout.row_unit = 24;  // at most 6 in the first product, 4 in the second, 8 in the softmax
    for (int i = 0; i < int(kPad); ++i) p.layout.column_of_slot[i] = uint8_t(V::column_of_slot(i));
    p.place = place_digits<int8_t>;
    p.round = round_weights_of<int8_t, 4>;
    p.dot = dot_bytes<V>;
    p.dot_listed = dot_listed_bytes<V>;
    add_lanes<V, ByteLanes<V>>(p);
    p.sum = sum_bytes<V>;
    p.peak = peak_integer<V, 4, (V::registers > 16 ? 4 : 2)>;
    return p;
}

}  // namespace
