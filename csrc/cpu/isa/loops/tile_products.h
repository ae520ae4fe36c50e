// The two products in exact 8-bit integers, by products of registers that hold 16 rows of 64 bytes: one instruction for
// 16,384 multiply-adds. T: the operations of vec/tiles_amx.h.
//
// The first product takes rows of data as they are stored, 16 to a register, and digits of 16 vectors that were placed
// four columns of each beside each other. The second takes digits of weights, 16 slots of 64 rows, and rows that are
// interleaved for one block of columns, which stays in L1 while every query uses it. Blocks are 2 x 2 registers, so
// that there are as many loads as products: a load takes half as long, and a sum four products later is there.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "../table.h"
#include "../vec/constants.h"
#include "query_digits.h"
#include "row_ends.h"
#include "rows_ahead.h"
#include "weight_digits.h"

namespace {

constexpr int kDword = 4;                           // columns or rows of a dword
constexpr int kTilesAskFrom = 56;                   // as in IntegerLayout::dot_asks_from
constexpr int64_t kTileColumns = int64_t(1) << 15;  // that an int32 sums without overflow, and twice a tail

// Groups of so few queries that their sums lie in L2, from where L1 does not get them by itself. Those of more come
// from L3, one block of columns after the other, which the processor sees coming.
constexpr int kNearGroups = 2;

// f(i, j), as constants of the compiler, for the registers of a block.
template <int XS, int YS, class F>
GEODIFF_INLINE void each_pair(F&& f) {
    each_constant<XS>([&](auto i) GEODIFF_INLINE_LAMBDA { each_constant<YS>([&](auto j) { f(i, j); }); });
}

// Sums of a block: [row of x][column of y].
template <class T>
struct BlockSums {
    alignas(64) int32_t at[2 * T::rows][2 * T::rows] = {};

    template <int XS, int YS>
    GEODIFF_INLINE void take() {
        each_pair<XS, YS>([&](auto i, auto j) GEODIFF_INLINE_LAMBDA {
            T::template store<i, j>(&at[i * T::rows][j * T::rows], sizeof at[0]);
        });
    }
};

// One or two groups of vectors of digits, `apart` bytes from each other, and where their products with rows go.
struct TileGroups {
    const int8_t* digits;
    const int64_t* total;  // [groups * group]: sums over rows as stored start at -128 of it
    int groups, group;
    int64_t apart;
    double* S;
    int64_t lds;
};

// S (+)= the sums of `rows` rows and two groups of vectors, query by query.
template <class T>
inline void spread_tiles(const BlockSums<T>& sums, int rows, const TileGroups& to, bool add) {
    for (int j = 0; j < to.groups; ++j)
        for (int r = 0; r < rows; r += T::rows) {
            alignas(64) int32_t turned[T::rows][T::rows];
            T::turn(&sums.at[r][j * T::rows], sizeof sums.at[0], turned[0]);
            const int there = std::min(rows - r, T::rows);
            for (int i = 0; i < to.group; ++i) {
                const int64_t q = j * to.group + i;
                const double start = -128.0 * double(to.total[q]);  // v = u - 128
                double* S = to.S + q * to.lds + r;
                if (there == T::rows && !add)
                    for (int k = 0; k < T::rows; ++k) S[k] = start + double(turned[i][k]);
                else
                    for (int k = 0; k < there; ++k) S[k] = (add ? S[k] : start) + double(turned[i][k]);
            }
        }
}

// Sums of <u_r, q_q> over whole blocks of columns and then those of `ends`, of XS registers of rows and YS groups of
// vectors of digits.
template <class T, int XS, int YS>
GEODIFF_BLOCK void dot_block_tiles(const uint8_t* X, int64_t ldx, const TileGroups& groups, int64_t blocks,
                                   const RowEnds& ends, LinesAhead& lines, BlockSums<T>& sums) {
    const int64_t line = kDword * groups.group, apart = groups.apart, next = kPad * groups.group;
    const int steps = int(std::max<int64_t>(blocks, 1));
    LinesAhead ahead = lines;
    ahead.begin_block_of(steps);
    const int8_t* Q = groups.digits;
    each_pair<XS, YS>([&](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template clear<i, j>(); });
    for (int part = 0; part <= RowEnds::parts;
         X = ends.part[part].at, ldx = ends.part[part].stride, blocks = ends.part[part].blocks, ++part)
        for (; blocks > 0; --blocks, X += kPad, Q += next) {
            each_constant<XS>([&](auto i) GEODIFF_INLINE_LAMBDA { T::template load_x<i>(X + i * T::rows * ldx, ldx); });
            each_constant<YS>([&](auto j) GEODIFF_INLINE_LAMBDA { T::template load_y<j>(Q + j * apart, line); });
            each_pair<XS, YS>([&](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template dot<false, i, j>(); });
            ahead.step_of_block();
        }
    sums.template take<XS, YS>();
    lines = ahead;
}

// `rows` rows and all groups. `ahead`: as many rows, or null.
template <class T, int XS>
inline void dot_rows_tiles(const uint8_t* X, int64_t ldx, int rows, const uint8_t* ahead, TileGroups groups,
                           int64_t blocks, const RowEnds& ends, bool add) {
    LinesAhead lines(ahead, kPad, int(rows * ldx / kPad), (groups.groups + 1) / 2);
    BlockSums<T> sums;
    for (int left = groups.groups; left > 0; left -= 2) {
        groups.groups = std::min(left, 2);
        if (left > 1)
            dot_block_tiles<T, XS, 2>(X, ldx, groups, blocks, ends, lines, sums);
        else
            dot_block_tiles<T, XS, 1>(X, ldx, groups, blocks, ends, lines, sums);
        spread_tiles(sums, rows, groups, add);
        groups.digits += 2 * groups.apart;
        groups.total += 2 * groups.group;
        groups.S += 2 * groups.group * groups.lds;
    }
}

// V: the operations of vec/bytes_vnni.h.
template <class T, class V>
void dot_tiles(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const geodiff::QueryDigits& queries,
               int64_t d, double* S, int64_t lds, const uint8_t* next) {
    constexpr int kRows = 2 * T::rows;
    RowEndsRoom room;
    const RowEnds ends = room.fill<V>(X, ldx, tail, R, d);
    const int8_t* digits = static_cast<const int8_t*>(queries.digits);
    const int group = queries.group;
    TileGroups all{digits, queries.total, queries.groups, group, group * queries.columns, S, lds};
    int open = 0;                                    // rows that registers are shaped for
    for (int64_t k = 0; k < d; k += kTileColumns) {  // as a rule once
        const bool last = d - k <= kTileColumns;
        const int64_t blocks = (last ? d - k : kTileColumns) / kPad;
        all.digits = digits + k * group;
        for (int r = 0; r < R; r += kRows) {
            const int rows = std::min(R - r, kRows);
            if (rows != open) T::open({std::min(rows, T::rows), std::max(rows - T::rows, 1)}, group);
            open = rows;
            const uint8_t *row = X + r * ldx + k, *ahead = next && k == 0 ? next + r * ldx : nullptr;
            const RowEnds end = last ? ends.from(r) : RowEnds{};
            all.S = S + r;
            if (rows > T::rows)
                dot_rows_tiles<T, 2>(row, ldx, rows, ahead, all, blocks, end, k > 0);
            else
                dot_rows_tiles<T, 1>(row, ldx, rows, ahead, all, blocks, end, k > 0);
        }
    }
    T::close();
}

// Sums of XS registers of slots and two of columns, left in registers. digits: [steps][slots][64 rows]; Y: two blocks,
// `apart` bytes from each other, of [steps][16][16 columns][4 rows].
template <class T, int XS, bool SIGNED>
GEODIFF_BLOCK void sum_block_tiles(const int8_t* digits, int64_t slots, const uint8_t* Y, int64_t apart, int steps,
                                   LinesAhead& lines) {
    constexpr int64_t kTile = T::rows * T::bytes;
    LinesAhead ahead = lines;
    ahead.begin_block_of(steps);
    each_pair<XS, 2>([&](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template clear<i, j>(); });
    for (int step = 0; step < steps; ++step, digits += slots * T::bytes, Y += kTile) {
        each_constant<XS>([&](auto i) GEODIFF_INLINE_LAMBDA { T::template load_x<i>(digits + i * kTile, T::bytes); });
        each_constant<2>([&](auto j) GEODIFF_INLINE_LAMBDA { T::template load_y<j>(Y + j * apart, T::bytes); });
        each_pair<XS, 2>([&](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template dot<SIGNED, i, j>(); });
        ahead.step_of_block();
    }
    lines = ahead;
}

// Weights of one kind and their sums. Those of a block are on their way to those of its queries while registers hold
// the next block's.
template <class T, class V, int PARTS, bool SIGNED>
class TileSums {
  public:
    TileSums(const geodiff::WeightDigits& w, float* A, int64_t lda)
        : w_(w), A_(A), lda_(lda), slots_(w.group * PARTS) {}

    int blocks() const { return 2 * active_groups(w_); }
    void open() const { T::open({std::min(slots_, T::rows), std::max(slots_ - T::rows, 1)}, T::rows); }

    // Of 64 columns from c on; Y: [16 columns], `apart` bytes from each other.
    GEODIFF_INLINE void over(int64_t c, const uint8_t* Y, int64_t apart, int steps, LinesAhead& ahead) {
        for (int g = 0; g < w_.groups; ++g) {
            if (!w_.active[g]) continue;
            const int8_t* digits = static_cast<const int8_t*>(w_.digits) + g * steps * slots_ * T::bytes;
            for (int half = 0; half < 2; ++half) {
                float* A = A_ + c / kPad * lda_ + half * 2 * T::rows;
                if (w_.groups <= kNearGroups) bring(g, A);
                const uint8_t* columns = Y + half * 2 * apart;
                if (slots_ > T::rows) {
                    sum_block_tiles<T, 2, SIGNED>(digits, slots_, columns, apart, steps, ahead);
                    take<2>(g, A);
                } else {
                    sum_block_tiles<T, 1, SIGNED>(digits, slots_, columns, apart, steps, ahead);
                    take<1>(g, A);
                }
            }
        }
    }
    GEODIFF_INLINE void fold() const {
        if (!to_) return;
        for (int i = 0, q = g_ * w_.group; i < w_.group; ++i, ++q) GEODIFF_UNROLL for (int j = 0; j < 2; ++j) {
                typename V::Vec parts[PARTS];
                GEODIFF_UNROLL for (int part = 0; part < PARTS; ++part) parts[part] =
                    V::load(&sums_.at[i * PARTS + part][j * T::rows]);
                V::template fold<PARTS>(parts, 1, w_.quantum[q], w_.rescale[q], to_ + q * kPad + j * T::rows);
            }
    }

  private:
    // Registers are about to hold those of group g, which go to A.
    GEODIFF_INLINE void bring(int g, const float* A) const {
        for (int i = 0, q = g * w_.group; i < w_.group; ++i, ++q)
            for (int j = 0; j < 2; ++j) __builtin_prefetch(A + q * kPad + j * T::rows, 1, 3);
    }
    // They do.
    template <int XS>
    GEODIFF_INLINE void take(int g, float* A) {
        fold();
        sums_.template take<XS, 2>();
        g_ = g;
        to_ = A;
    }

    const geodiff::WeightDigits& w_;
    float* const A_;
    const int64_t lda_;
    const int slots_;
    BlockSums<T> sums_;
    int g_ = 0;
    float* to_ = nullptr;
};

// 64 columns of R rows, four rows of a column to a dword: [16 columns][steps][16][16 columns][4 rows].
template <class T, class V>
inline void interleave_tiles(const uint8_t* X, int64_t ldx, int R, int64_t len, uint8_t* Y, int64_t apart) {
    static_assert(V::bytes == kPad && T::bytes == kPad);
    for (int r = 0; r < R; r += kDword, X += kDword * ldx, Y += V::bytes) {
        typename V::Vec x[4], y[4];
        GEODIFF_UNROLL for (int i = 0; i < 4; ++i) {  // the weight of a row that is not there is zero
            x[i] = V::centred(V::first_of(X + std::min(i, R - r - 1) * ldx, len));
        }
        V::interleave(x, y);
        GEODIFF_UNROLL for (int j = 0; j < 4; ++j) V::store(Y + j * apart, y[j]);
    }
}

// Asks for the next columns of each row, which the processor does not see coming; not for the next tile, which its own
// prefetcher brings while the first product reads it.
template <class T, class V, class... Kinds>
inline void sum_kinds(const uint8_t* X, int64_t ldx, int R, int64_t d, Kinds... kinds) {
    constexpr int64_t kApart = geodiff::kMaxTileRows * T::rows;
    alignas(64) uint8_t Y[4 * kApart];
    const int steps = (R + T::bytes - 1) / T::bytes, blocks = (kinds.blocks() + ...);
    const int64_t there = (R + kDword - 1) / kDword * int64_t(V::bytes), all = steps * int64_t(T::rows * T::bytes);
    for (int j = 0; j < 4; ++j) std::memset(Y + j * kApart + there, 0, size_t(all - there));
    if constexpr (sizeof...(Kinds) == 1) (kinds.open(), ...);
    for (int64_t c = 0; c < d; c += kPad) {
        interleave_tiles<T, V>(X + c, ldx, R, d - c, Y, kApart);
        const bool more = c + kPad < d;
        LinesAhead ahead(more ? X + c + kPad : nullptr, ldx, R, blocks);
        const auto over = [&](auto& kind) GEODIFF_INLINE_LAMBDA {
            if constexpr (sizeof...(Kinds) > 1) kind.open();
            kind.over(c, Y, kApart, steps, ahead);
        };
        (over(kinds), ...);
    }
    (kinds.fold(), ...);
    T::close();
}

template <class T, class V>
void sum_tiles(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
               const uint8_t* /*prefetch*/) {
    with_constant<4>(w.parts, [&](auto parts) {
        if (w.balanced)
            sum_kinds<T, V>(X, ldx, R, d, TileSums<T, V, parts, true>(w, A, lda));
        else
            sum_kinds<T, V>(X, ldx, R, d, TileSums<T, V, parts, false>(w, A, lda));
    });
}

template <class T, class V>
void sum_both_tiles(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightSums& coarser,
                    const geodiff::WeightSums& finer) {
    with_constant<3>(coarser.w.parts, [&](auto few) {
        with_constant<4>(finer.w.parts, [&](auto more) {
            if constexpr (0 < few && few < more)
                sum_kinds<T, V>(X, ldx, R, d, TileSums<T, V, few, false>(coarser.w, coarser.A, coarser.lda),
                                TileSums<T, V, more, false>(finer.w, finer.A, finer.lda));
        });
    });
}

template <class T>
int64_t peak_tiles(int64_t rounds) {
    [[maybe_unused]] alignas(64) static const uint8_t factors[4][T::rows * T::bytes] = {};
    T::open({T::rows, T::rows}, T::rows);
    for (int64_t i = 0; i < rounds; ++i) {
        each_constant<2>([&](auto j) GEODIFF_INLINE_LAMBDA {
            T::template load_x<j>(factors[j], T::bytes);
            T::template load_y<j>(factors[2 + j], T::bytes);
        });
        each_pair<2, 2>([&](auto x, auto y) GEODIFF_INLINE_LAMBDA { T::template dot<false, x, y>(); });
    }
    T::close();
    return rounds * 4 * T::rows * T::rows * T::bytes;
}

// For many queries. V: the operations of vec/bytes_vnni.h.
template <class T, class V>
inline geodiff::IntegerProducts tile_products() {
    geodiff::IntegerProducts p{};
    p.layout.digit_bits = 8;
    p.layout.weight_rows = T::bytes;
    p.layout.columns_together = kDword;
    p.layout.dot_group = T::rows;
    p.layout.sum_group = 2 * T::rows;
    p.layout.from = 3;  // fewer wait for memory alone
    p.layout.small_to = 0;
    p.layout.dot_asks_from = kTilesAskFrom;
    p.layout.sum_asks_from = std::numeric_limits<int>::max();
    p.layout.worth = 4;
    p.layout.free_to = 8;
    p.layout.apart_from = 64;  // few of a kind leave registers of digits half empty
    p.layout.prunes_to = 0.4;
    p.layout.shaped_from = std::numeric_limits<int>::max();  // a digit takes less than coordinates and rows drawn
    p.layout.tile = p.layout.crowded_tile = 552 << 10;
    p.layout.row_unit = T::bytes;
    for (int i = 0; i < int(kPad); ++i) p.layout.column_of_slot[i] = uint8_t(V::column_of_slot(i));
    p.layout.sums_in_blocks = true;
    p.place = place_digits<int8_t, kDword>;
    p.round = round_weights_of<int8_t, T::bytes>;
    p.dot = dot_tiles<T, V>;
    p.sum = sum_tiles<T, V>;
    p.sum_both = sum_both_tiles<T, V>;
    p.peak = peak_tiles<T>;
    return p;
}

}  // namespace
