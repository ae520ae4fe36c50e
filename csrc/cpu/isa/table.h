// The inner loops, one table of them per instruction set. Everything outside this folder is free of instruction sets.
//
// Shapes: R rows of a tile, nq query vectors, d columns (dp: d rounded up to `kPad` columns).
#pragma once

#include <cstdint>

#include "../../common/stored.h"
#include "local_table.h"
#include "subset_table.h"
#include "vector_table.h"

namespace geodiff {

constexpr int64_t kPad = 64;         // columns are padded to this many elements, with zeros
constexpr int64_t kTail = 2 * kPad;  // columns that rows may have in another place, or in two: see RowTail
constexpr int kMaxTileRows = 256;
constexpr int64_t kFold = 64;       // columns summed in float32, one by one
constexpr int64_t kFoldBlocks = 4;  // such sums added in float32 before they move to float64
constexpr int64_t kFewFold = 256;   // the same for few queries, whose sums run in lanes beside each other
constexpr int kDotQueries = 64;     // most queries of one call of a first product in floating point

inline int64_t padded(int64_t d) { return (d + kPad - 1) / kPad * kPad; }

// Running state of one query's online softmax; `max` is the largest logit seen, sums are relative to it.
struct Online {
    double max = -1e308;  // m
    double sum = 0;       // sum p,         p = exp(l - m)
    double sum_l = 0;     // sum p (l - m)  -> entropy
    double sum_2 = 0;     // sum p^2        -> effective sample size
    double sum_h = 0;     // sum p h, h = |v|^2/2 as a rule  -> trace of the posterior covariance
    double sum_q = 0;  // sum of the weights as the second product sees them (rounded to integers on the integer path)
    double noise = 0;  // variance carried by that rounding
};

// How numbers and rows lie for the integer products.
struct IntegerLayout {
    int digit_bits;                // of a digit, which is stored in as many bits: base 2^digit_bits
    int weight_rows;               // rows whose digits of one weight lie side by side
    int columns_together = kPad;   // of one vector of query digits, before as many of the next of its group
    int dot_group;                 // most query digits that the first product holds in registers
    int sum_group;                 // most weight digits that the second product holds in registers
    int row_unit;                  // rows of a full tile are a multiple of every register block's
    int dot_asks_from = 0;         // queries from which the first and the second product ask for rows to come; for
    int sum_asks_from = 0;         // fewer the processor's own prefetcher is faster
    int small_to = 8;              // queries that want small tiles, which keep memory busy all the time
    int64_t tile, crowded_tile;    // bytes of the rows of a tile for more, and for more than kDotQueries
    int worth;                     // digits of a number up to which these products beat those in float32; with more,
    int dot_to, sum_to;            // the first and the second product do up to so many queries
    int free_to;                   // queries for which memory sets the pace, not the digits of weights
    int apart_from = 0;            // digits of the coarser from which two kinds of weights in a pass pay
    int from = 0;                  // queries from which these products are the faster ones of two: see Table::many
    double prunes_to = 0.5;        // of the mean square by which rows lie apart, that coordinates may leave open for
                                   // more than `free_to`; for those 0.5
    int shaped_from;               // queries from which a digit less is worth the principal coordinates
    int lanes_from;                // queries from which lanes beat products in float32 and settled logits
    int side_by_side;              // queries in lanes beside each other, in `dot_lanes`, `nearest` and `left`
    bool lane_pairs = true;        // the columns of a dword of one lane lie beside each other, else lanes of a column
    int bias;                      // unsigned digits are stored less this, where only signed numbers can be multiplied
    uint8_t column_of_slot[kPad];  // the column that the second product keeps at each place, in each block of kPad
    bool sums_in_blocks = false;   // of as many columns, in each of which the sums of all queries lie beside each other

    int digits(int bits) const { return (bits + digit_bits - 1) / digit_bits; }
};

// Vectors of digits, in `groups` of `group` <= dot_group.
struct QueryDigits {
    int groups, group;
    int64_t columns;       // padded(d), and as many more as rows have in a tail
    const void* digits;    // [groups][columns/64][64/t][group][t], t = columns_together
    const int64_t* total;  // [groups*group]   sum of the digits
};

// Weights of a tile as integers: p = quantum * (d0 B^(parts-1) + d1 B^(parts-2) + ...), B = 2^digit_bits. One factor of
// the products is unsigned and the other signed. Softmax weights are never negative: their digits are unsigned, which
// holds a weight twice as finely as balanced ones; weights of either sign have balanced digits.
struct WeightDigits {
    bool balanced;
    int groups, group, parts;  // queries in groups of `group` <= sum_group / parts
    const void* digits;        // [groups][ceil(R/weight_rows)][group][parts][weight_rows]
    const uint8_t* active;     // [groups]   0: no query of the group takes anything from this tile
    const int32_t* total;      // [groups*group][parts]   sum of the digits over the rows of the tile
    const float* rescale;      // [groups*group]
    const float* quantum;      // [groups*group]
};

// Weights and the sums that they go into.
struct WeightSums {
    WeightDigits w;
    float* A;
    int64_t lda;
};

// Where the digits of one weight of a tile go, and how it becomes an integer.
struct WeightPlace {
    double units;     // the largest weight as an integer; of OneQuerySum, the largest sum of two
    const float* up;  // [R] uniform: up with the probability of the fraction
    int parts;
    int32_t bias;    // of unsigned digits
    int64_t step;    // digits from weight_rows rows of it to the next
    void* digits;    // of row 0
    int32_t* total;  // [parts]  sums of the digits

    // What rounding takes from each weight, as one more balanced digit in units of quantum / rest_units; null: not
    // wanted
    void* rest = nullptr;
    int64_t rest_step = 0;
    int32_t* rest_total = nullptr;
    double rest_units = 0;
    const float* rest_up = nullptr;
    const float* size = nullptr;  // [R] which the rounding's variance is weighted with
};

struct RoundedWeights {
    float quantum;           // what one unit is worth
    double total, variance;  // of the integers; of their rounding
    // Where there is a digit of the rest: the same, each row's times its size; and the variance of the rest's own
    // rounding.
    double sized = 0, rest_variance = 0;
};

// Rows X + list[i] ldx of a tile, `count` of them.
struct ListedRows {
    const uint8_t* X;
    int64_t ldx;
    const int32_t* list;
    int count;
};

// R rows of `width` <= kTail columns, a multiple of 4, and as many more in another place if `half[1]` is not null. Rows
// lie `stride` bytes apart; columns past these are read as any number.
struct ShortRows {
    const uint8_t* half[2];
    int64_t stride, width;
    int R;
};

// What rows have in other places, behind their columns.
struct RowTail {
    const uint8_t* half[2] = {};  // [R, kTail] each; the second null where there are no more than kTail, both for none

    int64_t columns() const { return half[1] ? 2 * kTail : half[0] ? kTail : 0; }
    ShortRows rows(int R) const { return {{half[0], half[1]}, kTail, kTail, R}; }
};

// Principal coordinates of R rows and what they leave out: see passes/prune.h.
struct CoordinateRows {
    RowTail coordinates;
    const float *outside, *rounded, *half;  // [R]
    int R;
};

// Rows of `bytes` bytes that are brought to L2 meanwhile.
struct RowsToBring {
    const uint8_t* const* rows = nullptr;
    int count = 0;
    int64_t bytes = 0;
};

// Queries as digits of 16 bits together, in `groups` of `side_by_side` lanes.
struct LaneQueries {
    int groups;
    int parts;           // digits that are not 0: the later ones may all be
    const void* digits;  // [groups][columns/u][16/digit_bits][side_by_side][u], u = 32 / digit_bits of them in a dword,
                         // or [..][u][side_by_side] without `lane_pairs`
    const int32_t* start;  // [groups][16/digit_bits][side_by_side]  what a sum of v = u - 128 starts at if u are
                           // multiplied
};

// The same of the coordinates of queries, and what is wanted of them. All numbers [groups*side_by_side].
struct CoordinateQueries {
    LaneQueries in_lanes;
    const float *scale, *outside, *along, *least;
};

// The second product for one query by itself, with weights of fewer bits than a digit has.
struct OneQuerySum {
    int bits = 0;        // of a weight, about; 0: there is none
    double most_of_two;  // the largest sum of the weights of rows 2 i and 2 i + 1 as integers: WeightPlace::units
    uint8_t column_of_slot[kPad];  // as in IntegerLayout
    // As those of IntegerProducts; of WeightPlace and WeightDigits what one query with positive weights and no rests
    // needs. The digits are what `sum` wants them to be, in 16 bits a row.
    RoundedWeights (*round)(const double* p, int R, const WeightPlace& to);
    void (*sum)(const uint8_t* X, int64_t ldx, int R, int64_t d, const WeightDigits& w, float* A,
                const uint8_t* prefetch);
};

// Exact products of uint8 rows with integers: see products/digits.h.
struct IntegerProducts {
    IntegerLayout layout;
    OneQuerySum one_query;
    // Weights p[0..R) of one query as digits.
    RoundedWeights (*round)(const double* p, int R, bool balanced, const WeightPlace& to);
    // x[0..d) as digits; returns the length of what was rounded away. Columns d..padded(d) are zero.
    double (*place)(const double* x, int64_t d, const DigitRounding& how, const DigitPlace& to);
    // S[q*lds + r] = <v_r, q_q>, an exact integer, v = u - 128, for every vector of digits. `prefetch`: as for `sum`.
    void (*dot)(const uint8_t* X, int64_t ldx, const RowTail& tail, int R, const QueryDigits& queries, int64_t d,
                double* S, int64_t lds, const uint8_t* prefetch);
    // S[i] = <v_r, q> for the rows r of a list and one vector of digits of `dot`'s, whose blocks of 64 columns lie
    // `stride` digits apart.
    void (*dot_listed)(const ListedRows& rows, const void* q, int64_t stride, int64_t total, int64_t d, double* S);
    // S[q*lds + r] = <v_r, q_q> for the first `count` queries, an exact integer: the digits to the base 2^digit_bits,
    // and 0 for those that are not there.
    void (*dot_lanes)(const ShortRows& rows, const LaneQueries& queries, int count, double* S, int64_t lds);
    // A[q] = rescale[q] A[q] + quantum[q] sum_r digits(p_r) v_r; columns of A in the order of `column_of_slot`. A[q] is
    // at A + q*lda, or, with `sums_in_blocks`, its columns from kPad b on are at A + b*lda + q*kPad. `prefetch` (or
    // null) is the next tile, brought to L2 meanwhile.
    void (*sum)(const uint8_t* X, int64_t ldx, int R, int64_t d, const WeightDigits& w, float* A, int64_t lda,
                const uint8_t* prefetch);
    // The same of two kinds of weights, neither balanced, for which rows are laid out once; the finer have more digits
    // than the coarser, three at most. Null: two calls are as good.
    void (*sum_both)(const uint8_t* X, int64_t ldx, int R, int64_t d, const WeightSums& coarser,
                     const WeightSums& finer);
    // With p = scale sum_j (b_j - 128) g_j, b the coordinates of a row and g those of a query:
    // the largest p - half and its row, about: the first digit and kTail coordinates, and `best` up to what all rows
    // have in common. best[] and row[] as the queries.
    void (*nearest)(const CoordinateRows& rows, const CoordinateQueries& queries, float* best, int32_t* row);
    // the rows with p + outside_r outside_q + rounded_r along_q - half_r >= least_q, in order: list [.., ld], count.
    void (*left)(const CoordinateRows& rows, const CoordinateQueries& queries, int32_t* list, int64_t ld,
                 int32_t* count, const RowsToBring& bring);
    // The products in registers alone, so many rounds of a loop; returns the multiply-adds done.
    int64_t (*peak)(int64_t rounds);
};

// How the float32 products sum.
struct FloatLayout {
    int lanes;      // queries side by side in a packed vector of `dot_f32`; half as many in one of `dot_f64`
    int sum_group;  // queries of a register block of `sum_f32`
    int few;        // most queries that `dot_few` and `sum_few` take
    int few_lanes;  // `dot_few` sums column k of each kFewFold in lane k % few_lanes
};

// The products in float32 for many queries, of numbers cut into pieces that registers of rows multiply. Of rows whose
// longest is of a length between these, so that pieces of what matters are neither too large nor too small for the
// format.
struct FloatTiles {
    static constexpr double least = 1e-12, largest = 1e12;
    int from_wide, from_exact;  // queries from which they are faster than those of Table; of rows that are one piece
    int64_t chunk;              // columns summed in float32 before sums move to float64; of these, `step` at a time
    int64_t step;
    int64_t (*packed_bytes)(int64_t queries, int64_t d);  // zero at first
    // x[0..d) in float32, as the i-th of packed queries
    void (*pack)(const double* x, int64_t d, int64_t i, void* packed);
    // As Table::dot_f32, for any number of packed queries
    void (*dot)(const void* X, DType dtype, int64_t d, int R, const void* packed, int nq, double* S, int64_t lds);
    int64_t (*room_bytes)(int64_t queries);
    // As Table::sum_f32, for R <= kMaxTileRows; `room` for so many queries
    void (*sum)(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                float* A, int64_t lda, const void* prefetch, void* room);

    int64_t from(DType dtype) const {  // short rows of bytes gain nothing
        return dtype == DType::u8 ? INT64_MAX : dtype == DType::bf16 ? from_exact : from_wide;
    }
};

// Sums of `parts` digits to such a base, `lds` apart, whose last one counts `weight`.
struct DigitSums {
    const double* at;
    int64_t lds;
    int parts;
    double weight, base;
};

struct Reach {
    double lower, upper;
};

struct Table {
    const char* name = nullptr;
    FloatLayout floats{};
    const FloatTiles* float_tiles = nullptr;    // null: none
    const IntegerProducts* integers = nullptr;  // null: uint8 rows take the float32 products
    // Other products for many queries, or null. They have as many bits in a digit, as much worth and the same order of
    // columns, but none of the products of lanes and of listed rows, which are those of `integers` for any number.
    const IntegerProducts* many = nullptr;
    const IntegerProducts* integers_for(int64_t queries) const {
        return many && queries >= many->layout.from ? many : integers;
    }

    // The products in floating point take R rows as stored, d values each, and widen them as they go.
    // S[q*lds + r] = <v_r, q_q> for nq <= kDotQueries, summed in float32 and folded into float64 every kFold *
    // kFoldBlocks columns. Q: [vectors of queries][d][lanes], lanes past nq arbitrary.
    void (*dot_f32)(const void* X, DType dtype, int64_t d, int R, const float* Q, int nq, double* S,
                    int64_t lds) = nullptr;
    // The same product wholly in float64, for logits that float32 cannot hold to the contract
    void (*dot_f64)(const void* X, DType dtype, int64_t d, int R, const double* Q, int nq, double* S,
                    int64_t lds) = nullptr;
    // A[q*lda + k] = rescale[q] A + sum_r P[q*ldp + r] v_r, up to padded(d) columns. `prefetch` (or null): the next R
    // rows, brought to L2 meanwhile
    void (*sum_f32)(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale,
                    int nq, float* A, int64_t lda, const void* prefetch) = nullptr;

    // The two for nq <= floats.few, Q: [nq][ldq], zero up to padded(d): widened in registers, where packing queries
    // side by side would leave lanes empty.
    void (*dot_few)(const void* X, DType dtype, int64_t d, int R, const float* Q, int64_t ldq, int nq, double* S,
                    int64_t lds) = nullptr;
    void (*sum_few)(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale,
                    int nq, float* A, int64_t lda, const void* prefetch) = nullptr;

    // w[r] = p[r] in float32; returns their sum
    double (*to_floats)(const double* p, int R, float* w) = nullptr;
    // l[r] = factor from[r] (null: 0) + offset + weight (s_0[r] base^(parts-1) + s_1[r] base^(parts-2) + ...), digit by
    // digit from the last; s_k lie lds apart. `from` may be l.
    void (*join_digits)(const DigitSums& sums, const double* from, double factor, double offset, int R,
                        double* l) = nullptr;
    // l[r] = (l[r] - half_norm[r]) inverse + prior[r] (null: 0)
    void (*to_logits)(const double* half_norm, double inverse, const double* prior, int R, double* l) = nullptr;

    // The largest l[r] - e[r] and the largest l[r] + e[r], with e[r] = row_error away[r] + base_error
    Reach (*reach)(const double* l, const float* away, double row_error, double base_error, int R) = nullptr;
    // sum exp(l[r] + e[r] - top) of those rows for which l[r] + e[r] < least; none of these is above `top`
    double (*below)(const double* l, const float* away, double row_error, double base_error, double least, double top,
                    int R) = nullptr;

    // p = exp(l - m) and the running sums; returns false, touching nothing but the state, if no row of the tile can
    // matter. `rescale` is what older partial sums must be multiplied with.
    bool (*softmax)(const double* l, const double* half_norm, int R, double cut, Online* state, double* p,
                    double* rescale) = nullptr;
    bool (*softmax_f32)(const double* l, const float* half_norm, int R, double cut, Online* state, float* w,
                        double* rescale) = nullptr;

    // sum_k (x_k - v_k)^2, sum_k x_k v_k and acc += w v, in float64
    double (*distance)(const double* x, const void* row, DType dtype, int64_t d) = nullptr;
    double (*inner)(const double* x, const void* row, DType dtype, int64_t d) = nullptr;
    void (*axpy)(double w, const void* row, DType dtype, int64_t d, double* acc) = nullptr;
    // |v|^2 in float64; the sum of the row into acc; false if the row holds NaN or Inf
    bool (*row_stats)(const void* row, DType dtype, int64_t d, double* norm2, double* acc) = nullptr;

    // Products of float32 in registers alone, as IntegerProducts::peak
    int64_t (*peak)(int64_t rounds) = nullptr;

    VectorLoops vectors{};  // see vector_table.h
    // Local denoisers: see local_table.h
    LocalLoops<float> local_f32{};
    LocalLoops<double> local_f64{};
    SubsetLoops subset{};  // see subset_table.h
};

}  // namespace geodiff
