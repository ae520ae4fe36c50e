// The two products in exact 16-bit integers: u8 data, widened, times digits of 16 bits, two products to a dword, summed
// in int32 modulo 2^32. V: the operations of vec/halves_avx2.h.
//
// Both read the data as stored. The first product walks along d and widens rows in registers. The second contracts over
// rows: two rows at a time are interleaved, as numbers of 16 bits, for one block of columns, which stays in L1 while
// every query uses it. The vector type says how many sums a block holds in registers.
#pragma once

#include "../table.h"
#include "../vec/constants.h"
#include "coordinate_bounds.h"
#include "listed_rows.h"
#include "peaks.h"
#include "query_digits.h"
#include "row_ends.h"
#include "rows_ahead.h"
#include "weight_digits.h"

namespace {

constexpr int kHalfBias = 1 << 15;  // unsigned digits are stored less this: see `start_of_halves`

// Columns that a dword sums without overflow, |u q| <= 255 2^15 each, with a tail behind them: a lane takes two of
// every V::columns. And no more than leave digits in L1.
template <class V>
constexpr int64_t kHalfChunk = (V::columns < 16 ? 128 * V::columns : 2048) - 2 * kTail;

// S[q*lds + r] (+)= <u_r, q_q> over whole blocks of columns, at most kHalfChunk, then those of `ends`. PREFETCH: the
// rows at `ahead`, as many as these.
template <class V, int RB, int QB, bool PREFETCH>
GEODIFF_BLOCK void dot_block_halves(const uint8_t* X, int64_t ldx, const uint8_t* ahead, const int16_t* Q,
                                    int64_t blocks, const RowEnds& ends, double* S, int64_t lds, bool add) {
    static_assert((kHalfChunk<V> + 2 * kTail) / V::columns * 2 * 255 * 32768 < (int64_t(1) << 31));
    typedef typename V::Vec Vec;
    constexpr int kSums = (RB * QB + 3) / 4 * 4;
    Vec acc[kSums];
    GEODIFF_UNROLL for (int i = 0; i < kSums; ++i) acc[i] = V::zero();
    for (int part = 0; part <= RowEnds::parts;
         X = ends.part[part].at, ldx = ends.part[part].stride, blocks = ends.part[part].blocks, ++part)
        for (; blocks > 0; --blocks, X += kPad, Q += kPad * QB) {
            if constexpr (PREFETCH) {
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) __builtin_prefetch(ahead + r * ldx, 0, 2);
                ahead += kPad;
            }
            GEODIFF_UNROLL for (int64_t i = 0; i < kPad; i += V::columns) {
                Vec x[RB];
                GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = V::widen(X + r * ldx + i);
                GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
                    const Vec y = V::digits(Q + q * kPad + i);
                    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) V::dot(acc[q * RB + r], x[r], y);
                }
            }
        }
    double sums[kSums];
    GEODIFF_UNROLL for (int i = 0; i < kSums; i += 4) V::sums4(acc + i, sums + i);
    for (int q = 0; q < QB; ++q)
        for (int r = 0; r < RB; ++r) S[q * lds + r] = (add ? S[q * lds + r] : 0) + sums[q * RB + r];
}

// Rows of a block for so many digits: as many as leave registers for them, for a vector of digits and for products.
template <class V>
constexpr int half_rows(int digits) {
    for (const int rows : {digits == 1 ? 4 : 6, 4, 3, 2})  // divisors of a tile's rows
        if (rows * digits <= V::sums && rows * (digits + 1) + 3 <= V::registers) return rows;
    return 1;
}

template <class V, int QB>
inline void dot_group_halves(const uint8_t* X, int64_t ldx, int R, const RowsAhead& prefetch, const int16_t* Q,
                             int64_t d, const RowEnds& ends, double* S, int64_t lds) {
    constexpr int RB = half_rows<V>(QB);
    for (int64_t k = 0; k < d; k += kHalfChunk<V>, Q += kHalfChunk<V> * QB) {
        const int64_t blocks = (d - k < kHalfChunk<V> ? d - k : kHalfChunk<V>) / kPad;
        const RowEnds last = d - k <= kHalfChunk<V> ? ends : RowEnds{};
        prefetch.each_block<RB>(X, ldx, R,
                                [&](int r, auto rows, auto prefetches, const uint8_t* ahead) GEODIFF_INLINE_LAMBDA {
                                    dot_block_halves<V, rows, QB, prefetches>(X + r * ldx + k, ldx, ahead + k, Q,
                                                                              blocks, last.from(r), S + r, lds, k > 0);
                                });
    }
}

template <class V>
void dot_halves(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const geodiff::QueryDigits& queries,
                int64_t d, double* S, int64_t lds, const uint8_t* next) {
    const int group = queries.group;
    const int64_t* total = queries.total;
    const int16_t* Q = static_cast<const int16_t*>(queries.digits);
    RowEndsRoom room;
    const RowEnds ends = room.fill<V>(X, ldx, tail, R, d);
    for (int g = 0; g < queries.groups; ++g, Q += group * queries.columns, S += group * lds, total += group) {
        with_constant<V::dot_group + 1>(group, [&](auto digits) {
            constexpr int QB = decltype(digits)::value;
            if constexpr (QB > 0) dot_group_halves<V, QB>(X, ldx, R, {next, g, queries.groups}, Q, d, ends, S, lds);
        });
        for (int q = 0; q < group; ++q) {  // v = u - 128
            const double shift = -128.0 * double(total[q]);
            for (int r = 0; r < R; ++r) S[q * lds + r] += shift;
        }
    }
}

// What the second product needs of one group's weights.
struct HalfGroup {
    const int16_t* digits;  // [steps][slots][2 rows]
    const int32_t* total;
    const float *rescale, *quantum;
};

// Where the sum of one slot of digits p starts, modulo 2^32: sum p v = sum p u - 128 sum p, and for unsigned digits,
// stored as p - 2^15, sum p u = sum (p - 2^15) u + 2^15 sum u. The result is exact: |sum p v| <= 256 65535 128 < 2^31.
template <class V>
inline typename V::Vec start_of_halves(int32_t total, typename V::Vec columns) {
    return V::add(V::set1(int32_t(uint32_t(total) * uint32_t(-128))), columns);
}

// A[q][columns] = rescale[q] A + quantum[q] sum_r digit(p_r) v_r, for one group and interleaved columns of one block;
// `columns`: what start_of_halves adds for each.
template <class V, int QB, int PARTS>
GEODIFF_BLOCK void sum_block_halves(const uint8_t* Xi, const uint8_t* columns, int steps, const HalfGroup& w, float* A,
                                    int64_t lda) {
    typedef typename V::Vec Vec;
    constexpr int kSlots = QB * PARTS, CB = V::sum_vectors;
    for (int first = 0; first < 4; first += CB, Xi += CB * V::bytes, columns += CB * V::bytes, A += CB * V::bytes / 4) {
        Vec acc[kSlots][CB];
        GEODIFF_UNROLL for (int s = 0; s < kSlots; ++s) GEODIFF_UNROLL for (int c = 0; c < CB; ++c) acc[s][c] =
            start_of_halves<V>(w.total[s], V::load(columns + c * V::bytes));
        // Of many queries sums lie beyond L2: products of a whole tile hide their way.
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < CB; ++c)
            __builtin_prefetch(A + q * lda + c * V::bytes / 4, 1, 3);
        const int16_t* p = w.digits;
        for (int i = 0; i < steps; ++i, p += kSlots * 2) {
            Vec x[CB];
            GEODIFF_UNROLL for (int c = 0; c < CB; ++c) x[c] = V::load(Xi + (i * 4 + c) * V::bytes);
            V::template each_slot<kSlots>(p, [&](int s, auto y) GEODIFF_INLINE_LAMBDA {
                GEODIFF_UNROLL for (int c = 0; c < CB; ++c) V::weigh(acc[s][c], x[c], y);
            });
        }
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < CB; ++c)
            V::template fold<PARTS>(&acc[q * PARTS][c], CB, w.quantum[q], w.rescale[q], A + q * lda + c * V::bytes / 4);
    }
}

// One register's columns of two rows; zero from `len` columns on, unless all of them are known to be there.
template <class V, bool WHOLE>
GEODIFF_INLINE typename V::Vec load_columns(const uint8_t* row, int64_t len) {
    return WHOLE ? V::load(row) : V::first_of(row, len);
}

// Sums over the rows of a block, as start_of_halves wants them: 2^15 sum u of unsigned digits.
template <class V>
inline void finish_columns(const typename V::Vec* sums, uint8_t* columns) {
    const int16_t ones[2] = {1, 1};
    GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
        typename V::Vec both = V::zero();
        V::template each_slot<1>(ones, [&](int, auto y) { V::weigh(both, sums[j], y); });  // at most 128 rows of 255
        V::store(columns + j * V::bytes, V::shifted15(both));
    }
}

// One or two slots alone: interleaved rows are used once, straight from the registers they are made in. COUNT registers
// of columns from FIRST on, of R rows, added to `acc` and, for unsigned digits, to `sums`. Every four rows AHEAD rows
// at `ahead` are asked for: a processor drops what it is asked for beyond what it can have on the way.
template <class V, int SLOTS, bool BIASED, bool WHOLE, int FIRST, int COUNT, int AHEAD>
GEODIFF_BLOCK void few_block_halves(const uint8_t* X, int64_t ldx, int R, int64_t len, const int16_t* p,
                                    typename V::Vec (*acc)[4], typename V::Vec* sums, const uint8_t* ahead) {
    typedef typename V::Vec Vec;
    Vec a[SLOTS][COUNT], s2[COUNT];
    GEODIFF_UNROLL for (int j = 0; j < COUNT; ++j) {
        s2[j] = sums[FIRST + j];
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) a[s][j] = acc[s][FIRST + j];
    }
    const auto add = [&](const uint8_t* first, const uint8_t* second) GEODIFF_INLINE_LAMBDA {
        const Vec u = load_columns<V, WHOLE>(first, len), v = load_columns<V, WHOLE>(second, len);
        Vec x[COUNT];
        V::template pairs<FIRST>(u, v, x);
        if constexpr (COUNT == 4) V::template pairs<2>(u, v, x + 2);
        V::template each_slot<SLOTS>(p, [&](int s, auto y) GEODIFF_INLINE_LAMBDA {
            GEODIFF_UNROLL for (int j = 0; j < COUNT; ++j) V::weigh(a[s][j], x[j], y);
        });
        if constexpr (BIASED) GEODIFF_UNROLL for (int j = 0; j < COUNT; ++j) V::add_halves_to(s2[j], x[j]);
        p += SLOTS * 2;
    };
    for (R = in_register(R); R >= 4; R -= 4, X += 4 * ldx, ahead += AHEAD * ldx) {
        GEODIFF_UNROLL for (int i = 0; i < AHEAD; ++i) __builtin_prefetch(ahead + i * ldx, 0, 2);
        add(X, X + ldx);
        add(X + 2 * ldx, X + 3 * ldx);
    }
    for (; R > 0; R -= 2, X += 2 * ldx) add(X, R > 1 ? X + ldx : X);  // the weight of a row that is not there is zero
    GEODIFF_UNROLL for (int j = 0; j < COUNT; ++j) {
        sums[FIRST + j] = s2[j];
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) acc[s][FIRST + j] = a[s][j];
    }
}

// A cache line of a few rows at a time: rows a multiple of 1 KiB apart share so few lines of L1 that a whole column of
// them does not fit.
template <class V, int SLOTS, int PARTS, bool BIASED, bool WHOLE>
inline void sum_few_halves(const uint8_t* X, int64_t ldx, int R, int64_t len, const geodiff::WeightDigits& w, float* A,
                           int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    constexpr int kParts = int(kPad / V::bytes), kRows = 16;
    constexpr int kBringing = kParts < 2 ? 1 : 2, kAhead = 4 / kBringing;  // parts, and rows
    constexpr int kCount = SLOTS == 1 ? 4 : 2;  // registers of columns at a time, with those of their sums
    Vec acc[kParts][SLOTS][4] = {}, sums[kParts][4] = {};
    for (int first = 0; first < R; first += kRows) {
        const int rows = R - first < kRows ? R - first : kRows;
        const int16_t* p = static_cast<const int16_t*>(w.digits) + first * SLOTS;
        for (int part = 0; part < kParts; ++part) {
            const uint8_t* column = X + first * ldx + part * V::bytes;
            const bool brings = prefetch && part < kBringing;
            const uint8_t* ahead = brings ? prefetch + (first + part * rows / 2) * ldx : column;
            const int64_t rest = len - part * V::bytes;
            few_block_halves<V, SLOTS, BIASED, WHOLE, 0, kCount, kAhead>(column, ldx, rows, rest, p, acc[part],
                                                                         sums[part], ahead);
            if constexpr (kCount < 4)
                few_block_halves<V, SLOTS, BIASED, WHOLE, 4 - kCount, kCount, 0>(column, ldx, rows, rest, p, acc[part],
                                                                                 sums[part], ahead);
        }
    }
    for (int part = 0; part < kParts; ++part, A += V::bytes) {
        uint8_t columns[4 * V::bytes];
        finish_columns<V>(sums[part], columns);
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[part][s][j] =
            V::add(acc[part][s][j], start_of_halves<V>(w.total[s], V::load(columns + j * V::bytes)));
        GEODIFF_UNROLL for (int q = 0; q < SLOTS / PARTS; ++q) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
            V::template fold<PARTS>(&acc[part][q * PARTS][j], 4, w.quantum[q], w.rescale[q],
                                    A + q * lda + j * V::bytes / 4);
    }
}

// All groups of queries against interleaved columns of one register's width.
template <class V>
inline void sum_groups_halves(const uint8_t* Xi, const uint8_t* columns, int steps, const geodiff::WeightDigits& w,
                              float* A, int64_t lda) {
    const int64_t group_digits = int64_t(steps) * 2 * w.group * w.parts;
    for (int g = 0; g < w.groups; ++g) {
        if (!w.active[g]) continue;
        const int q = g * w.group;
        const HalfGroup group{static_cast<const int16_t*>(w.digits) + g * group_digits, w.total + q * w.parts,
                              w.rescale + q, w.quantum + q};
        float* a = A + q * lda;
        if (w.parts == 1)
            with_constant<V::sum_group + 1>(w.group, [&](auto queries) {
                constexpr int QB = decltype(queries)::value;
                if constexpr (QB > 0) sum_block_halves<V, QB, 1>(Xi, columns, steps, group, a, lda);
            });
        else
            with_constant<V::sum_group / 2 + 1>(w.group, [&](auto queries) {
                constexpr int QB = decltype(queries)::value;
                if constexpr (QB > 0) sum_block_halves<V, QB, 2>(Xi, columns, steps, group, a, lda);
            });
    }
}

// Two rows at a time of one block of columns, interleaved for every query.
template <class V, bool BIASED, bool WHOLE>
inline void sum_columns_halves(const uint8_t* X, int64_t ldx, int R, int64_t len, const geodiff::WeightDigits& w,
                               float* A, int64_t lda, const uint8_t* prefetch) {
    typedef typename V::Vec Vec;
    const int slots = w.group * w.parts;
    if (w.groups == 1 && slots <= 2) {
        if (slots == 1) return sum_few_halves<V, 1, 1, BIASED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
        if (w.parts == 1) return sum_few_halves<V, 2, 1, BIASED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
        return sum_few_halves<V, 2, 2, BIASED, WHOLE>(X, ldx, R, len, w, A, lda, prefetch);
    }
    constexpr int kParts = int(kPad / V::bytes), kSteps = geodiff::kMaxTileRows / 2;
    alignas(64) uint8_t Xi[kParts][kSteps * 4 * V::bytes];
    alignas(64) uint8_t columns[4 * V::bytes];
    const int steps = (R + 1) / 2;
    Vec sums[kParts][4] = {};
    for (int i = 0; i < steps; ++i, X += 2 * ldx) {
        const int64_t next = 2 * i + 1 < R ? ldx : 0;  // the weight of a row that is not there is zero
        if (prefetch) {
            __builtin_prefetch(prefetch + 2 * i * ldx, 0, 2);
            __builtin_prefetch(prefetch + 2 * i * ldx + next, 0, 2);
        }
        GEODIFF_UNROLL for (int part = 0; part < kParts; ++part) {
            Vec x[4];
            const int64_t at = part * V::bytes;
            const Vec a = load_columns<V, WHOLE>(X + at, len - at), b = load_columns<V, WHOLE>(X + next + at, len - at);
            V::template pairs<0>(a, b, x);
            V::template pairs<2>(a, b, x + 2);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) {
                V::store(Xi[part] + (4 * i + j) * V::bytes, x[j]);
                if constexpr (BIASED) V::add_halves_to(sums[part][j], x[j]);
            }
        }
    }
    for (int part = 0; part < kParts; ++part) {
        finish_columns<V>(sums[part], columns);
        sum_groups_halves<V>(Xi[part], columns, steps, w, A + part * V::bytes, lda);
    }
}

template <class V, bool BIASED>
inline void sum_tile_halves(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                            int64_t lda, const uint8_t* prefetch) {
    for (int64_t c = 0; c < d; c += kPad) {  // a cache line of every row
        const uint8_t* next = prefetch ? prefetch + c : nullptr;
        if (d - c >= kPad)
            sum_columns_halves<V, BIASED, true>(X + c, ldx, R, d - c, w, A + c, lda, next);
        else
            sum_columns_halves<V, BIASED, false>(X + c, ldx, R, d - c, w, A + c, lda, next);
    }
}

template <class V>
void sum_halves(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
                const uint8_t* prefetch) {
    if (!w.balanced)
        sum_tile_halves<V, true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_halves<V, false>(X, ldx, R, d, w, A, lda, prefetch);
}

template <class V>
inline geodiff::IntegerProducts half_products() {
    static_assert(kPad % V::bytes == 0);
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 16;
    p.layout.weight_rows = 2;
    p.layout.dot_group = V::dot_group;
    p.layout.sum_group = V::sum_group;
    p.layout.worth = 1;  // csrc/cpu/SPEED.md, "AVX2"
    p.layout.dot_to = V::dot_to;
    p.layout.sum_to = V::sum_to;
    p.layout.shaped_from = 2;
    p.layout.lanes_from = 4;
    p.layout.row_unit = 24;  // kDotRows too: the first product may be in float32
    p.layout.small_to = 16;
    p.layout.tile = 384 << 10;
    p.layout.crowded_tile = 736 << 10;  // more than L2: sums that come from L3 for each tile cost more
    p.layout.bias = kHalfBias;
    for (int i = 0; i < int(kPad); ++i) p.layout.column_of_slot[i] = uint8_t(V::column_of_slot(i));
    p.place = place_digits<int16_t>;
    p.round = round_weights_of<int16_t, 2>;
    p.dot = dot_halves<V>;
    p.dot_listed = dot_listed_halves<V, kHalfChunk<V>>;
    p.layout.lane_pairs = V::adjacent_pairs;
    add_lanes<V, HalfLanes<V>>(p);
    p.sum = sum_halves<V>;
    p.peak = peak_integer<V, 2>;
    return p;
}

}  // namespace
