// Both products in float32 by products of registers that hold 16 rows of 32 bfloat16: a number is the sum of up to
// three of these, nearest first, and the product of two such is exact in float32. T: the operations of vec/tiles_amx.h.
//
// Of the products of two pieces those below 2^-24 of the first are left out, and small ones are added up before it, so
// that sums err as those of float32 do. Pieces of queries are made once a call; of rows, for 32 of them and some
// columns (the first product), or for all of a tile and 64 columns (the second), which every query then uses.
#pragma once

#include <algorithm>
#include <cstring>

#include "../table.h"
#include "../vec/constants.h"
#include "tile_products.h"
#include "widen.h"

namespace {

constexpr int kPieces = 3;           // of a float32
constexpr int64_t kStep = 32;        // columns or rows of a register
constexpr int64_t kRegister = 1024;  // bytes
constexpr int64_t kFoldSteps = 16;   // whose pieces, of 32 rows and all queries, are in L2 together
constexpr int64_t kFoldColumns = kFoldSteps * kStep;
constexpr int64_t kMostSteps = geodiff::kMaxTileRows / kStep;
typedef uint32_t VecU __attribute__((vector_size(Shape::bytes)));

template <DType D>
constexpr int kPiecesOf = D == DType::f32   ? 3
                          : D == DType::f16 ? 2
                                            : 1;

inline int64_t steps_of(int64_t n) { return (n + kStep - 1) / kStep; }

// The pieces of a vector of numbers that have no more, each in the upper halves of its lanes.
template <int PIECES>
GEODIFF_INLINE void cut(VecF x, VecU (&piece)[PIECES]) {
    GEODIFF_UNROLL for (int i = 0; i < PIECES; ++i) {
        std::memcpy(&piece[i], &x, sizeof x);
        if (i == PIECES - 1) break;
        piece[i] = (piece[i] + 0x8000u) & 0xffff0000u;
        VecF of_it;
        std::memcpy(&of_it, &piece[i], sizeof x);
        x -= of_it;
    }
}

// Columns [k, k + kF) of a row of d; zeros from d on.
template <DType D>
GEODIFF_INLINE VecF there(const void* row, int64_t k, int64_t d) {
    if (k + kF <= d) return wide<D>(row, k);
    return k < d ? wide_tail<D>(row, k, d) : VecF{};
}

// Which products of pieces of x and of y are made, but for that of the first two; each shares a factor with the one
// before it, as far as possible.
struct PieceProducts {
    int count, x[5], y[5];
};
template <int X, int Y>
constexpr PieceProducts small_products() {
    constexpr int kX[] = {0, 1, 1, 2, 0}, kY[] = {1, 1, 0, 0, 2};
    PieceProducts p{};
    for (int i = 0; i < 5; ++i)
        if (kX[i] < X && kY[i] < Y) {
            p.x[p.count] = kX[i];
            p.y[p.count++] = kY[i];
        }
    return p;
}

// Rows of pieces, of which a register takes 32 numbers of 16 rows: [rows][steps][pieces][32].
struct PieceRows {
    const char* at;
    int64_t stride;  // bytes; one line more than a row has, so that rows do not all lie in the same places of a cache
};
template <int PIECES>
constexpr int64_t row_stride(int64_t steps) {
    return (steps * PIECES + 1) * 64;
}

// Registers hold sums of 32 rows of x, of X pieces, and 16 or 32 columns of y over `steps` steps. y: one or two of
// [steps][Y pieces], `apart` bytes from each other.
template <class T, int X, int Y, int YS>
GEODIFF_BLOCK void multiply_pieces(const PieceRows& x, const char* y, int64_t apart, int64_t steps) {
    const auto load_x = [&](int64_t step, int piece) GEODIFF_INLINE_LAMBDA {
        const char* at = x.at + (step * X + piece) * T::bytes;
        T::template load_x<0>(at, x.stride);
        T::template load_x<1>(at + T::rows * x.stride, x.stride);
    };
    const auto load_y = [&](int64_t step, int piece) GEODIFF_INLINE_LAMBDA {
        const char* at = y + (step * Y + piece) * kRegister;
        each_constant<YS>([&](auto j) GEODIFF_INLINE_LAMBDA { T::template load_y<j>(at + j * apart, T::bytes); });
    };
    const auto products = [] GEODIFF_INLINE_LAMBDA {
        each_pair<2, YS>([](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template dot_bfloats<i, j>(); });
    };
    each_pair<2, YS>([](auto i, auto j) GEODIFF_INLINE_LAMBDA { T::template clear<i, j>(); });
    constexpr PieceProducts kSmall = small_products<X, Y>();
    for (int64_t step = 0; step < steps; ++step)
        each_constant<kSmall.count>([&](auto n) GEODIFF_INLINE_LAMBDA {
            constexpr int kBefore = n > 0 ? n - 1 : 0;
            if (n == 0 || kSmall.x[n] != kSmall.x[kBefore]) load_x(step, kSmall.x[n]);
            if (n == 0 || kSmall.y[n] != kSmall.y[kBefore]) load_y(step, kSmall.y[n]);
            products();
        });
    for (int64_t step = 0; step < steps; ++step) {
        load_x(step, 0);
        load_y(step, 0);
        products();
    }
}

// `rows` rows of d numbers, `ldx` bytes apart, and zeros for others up to 32; columns from k on.
template <class T, DType D>
inline void rows_in_pieces(const char* X, int64_t ldx, int64_t d, int rows, int64_t k, int64_t steps, char* to,
                           int64_t stride) {
    constexpr int P = kPiecesOf<D>;
    for (int r = 0; r < 2 * T::rows; ++r) {
        const char* row = X + r * ldx;
        char* line = to + r * stride;
        for (int64_t step = 0; step < steps; ++step, line += P * T::bytes) {
            VecU first[P] = {}, second[P] = {};
            if (r < rows) {
                cut(there<D>(row, k + step * kStep, d), first);
                cut(there<D>(row, k + step * kStep + kF, d), second);
            }
            GEODIFF_UNROLL for (int p = 0; p < P; ++p) store(line + p * T::bytes, T::upper_halves(first[p], second[p]));
        }
    }
}

// S (+)= the sums of `rows` rows and `count` queries, query by query.
template <class T>
inline void spread_floats(const BlockSums<T>& sums, int rows, int count, double* S, int64_t lds, bool add) {
    for (int j = 0; j < count; j += T::rows)
        for (int r = 0; r < rows; r += T::rows) {
            alignas(64) int32_t turned[T::rows][T::rows];
            T::turn(&sums.at[r][j], sizeof sums.at[0], turned[0]);
            const int there = std::min(rows - r, T::rows);
            for (int i = 0; i < std::min(count - j, T::rows); ++i) {
                float part[T::rows];
                std::memcpy(part, turned[i], sizeof part);
                double* to = S + (j + i) * lds + r;
                if (there == T::rows && !add)
                    for (int k = 0; k < T::rows; ++k) to[k] = double(part[k]);
                else
                    for (int k = 0; k < there; ++k) to[k] = (add ? to[k] : 0) + double(part[k]);
            }
        }
}

int64_t packed_bytes(int64_t queries, int64_t d) { return (queries + 15) / 16 * steps_of(d) * kPieces * kRegister; }

// Query i: [vectors of 16 queries][steps][pieces][16 pairs of columns][16 queries][2]
void pack_pieces(const double* x, int64_t d, int64_t i, void* packed) {
    char* to = static_cast<char*>(packed) + i / 16 * steps_of(d) * kPieces * kRegister + i % 16 * kDword;
    for (int64_t k = 0; k < d; k += kF) {
        float part[kF] = {};
        for (int64_t c = k; c < std::min(k + kF, d); ++c) part[c - k] = float(x[c]);
        VecU piece[kPieces];
        cut(load<VecF>(part), piece);
        for (int p = 0; p < kPieces; ++p) {
            uint32_t lanes[kF];
            store(lanes, piece[p]);
            char* at = to + (k / kStep * kPieces + p) * kRegister + k % kStep / 2 * 64;
            for (int c = 0; c < kF; c += 2, at += 64) {
                const uint32_t both = lanes[c] >> 16 | lanes[c + 1];
                std::memcpy(at, &both, sizeof both);
            }
        }
    }
}

template <class T, DType D>
inline void dot_tile_pieces(const char* X, int64_t d, int R, const char* Q, int nq, double* S, int64_t lds) {
    constexpr int kRows = 2 * T::rows, P = kPiecesOf<D>;
    constexpr int64_t kStride = row_stride<P>(kFoldSteps);
    const int64_t all = steps_of(d), apart = all * kPieces * kRegister, ldx = d * kBytes<D>;
    alignas(64) char pieces[kRows * kStride];
    const PieceRows rows{pieces, kStride};
    BlockSums<T> sums;
    T::open({T::rows, T::rows}, T::rows);
    for (int64_t from = 0; from < all; from += kFoldSteps) {
        const int64_t steps = std::min(kFoldSteps, all - from);
        for (int r = 0; r < R; r += kRows) {
            const int some = std::min(R - r, kRows);
            rows_in_pieces<T, D>(X + r * ldx, ldx, d, some, from * kStep, steps, pieces, kStride);
            const char* y = Q + from * kPieces * kRegister;
            for (int q = 0; q < nq; q += kRows, y += 2 * apart) {
                if (nq - q > T::rows) {
                    multiply_pieces<T, P, kPieces, 2>(rows, y, apart, steps);
                    sums.template take<2, 2>();
                } else {
                    multiply_pieces<T, P, kPieces, 1>(rows, y, apart, steps);
                    sums.template take<2, 1>();
                }
                spread_floats(sums, some, std::min(nq - q, kRows), S + q * lds + r, lds, from > 0);
            }
        }
    }
    T::close();
}

template <class T>
void dot_pieces(const void* X, DType dtype, int64_t d, int R, const void* Q, int nq, double* S, int64_t lds) {
    for_dtype(dtype, [&](auto t) {
        dot_tile_pieces<T, decltype(t)::value>(static_cast<const char*>(X), d, R, static_cast<const char*>(Q), nq, S,
                                               lds);
    });
}

int64_t weight_bytes(int64_t queries) { return (queries + 31) / 32 * 32 * row_stride<kPieces>(kMostSteps); }

// Columns [c, c + 64) of R rows, two rows of a column to a dword: [4 registers of 16 columns][steps][pieces][16 pairs]
template <class T, DType D>
inline void columns_in_pieces(const char* X, int64_t d, int R, int64_t c, const char* prefetch, char* to) {
    constexpr int P = kPiecesOf<D>;
    const int64_t steps = steps_of(R), apart = steps * P * kRegister, row = d * kBytes<D>;
    const int64_t line = c * kBytes<D>, bytes = std::min(kPad, d - c) * kBytes<D>;
    for (int64_t r = 0; r < steps * kStep; r += 2) {
        char* at = to + r / kStep * P * kRegister + r % kStep / 2 * 64;
        for (int j = 0; j < kPad / kF; ++j, at += apart) {
            VecU even[P] = {}, odd[P] = {};
            if (r < R) cut(there<D>(X + r * row, c + j * kF, d), even);
            if (r + 1 < R) cut(there<D>(X + (r + 1) * row, c + j * kF, d), odd);
            GEODIFF_UNROLL for (int p = 0; p < P; ++p) store(at + p * kRegister, even[p] >> 16 | odd[p]);
        }
        if (!prefetch) continue;
        for (int64_t i = r; i < std::min<int64_t>(r + 2, R); ++i)
            for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(prefetch + i * row + line + byte, 0, 2);
    }
}

// Sums of 32 queries and 32 columns on their way to those of a call, while registers hold the next.
template <class T>
class FoldedFloats {
  public:
    FoldedFloats(const float* rescale, int64_t lda) : rescale_(rescale), lda_(lda) {}

    // Registers are about to hold those of `count` queries from the q-th on.
    GEODIFF_INLINE void bring(int q, int count, float* A) {
        next_q_ = q;
        next_count_ = count;
        next_ = A;
        for (int i = 0; i < count; ++i)
            for (int j = 0; j < 2; ++j) __builtin_prefetch(A + i * lda_ + j * T::rows, 1, 3);
    }
    // They do.
    template <int XS, int YS>
    GEODIFF_INLINE void take() {
        fold();
        sums_.template take<XS, YS>();
        q_ = next_q_;
        count_ = next_count_;
        A_ = next_;
    }
    GEODIFF_INLINE void fold() const {
        for (int i = 0; i < count_; ++i) GEODIFF_UNROLL for (int j = 0; j < 2; ++j) {
                float* a = A_ + i * lda_ + j * T::rows;
                store(a, load<VecF>(a) * rescale_[q_ + i] + load<VecF>(&sums_.at[i][j * T::rows]));
            }
    }

  private:
    const float* rescale_;
    const int64_t lda_;
    BlockSums<T> sums_;
    int q_ = 0, count_ = 0, next_q_ = 0, next_count_ = 0;
    float *A_ = nullptr, *next_ = nullptr;
};

template <class T, DType D>
inline void sum_tile_pieces(const char* X, int64_t d, int R, const char* weights, const float* rescale, int nq,
                            float* A, int64_t lda, const char* prefetch) {
    constexpr int kQueries = 2 * T::rows, P = kPiecesOf<D>;
    const int64_t steps = steps_of(R), stride = row_stride<kPieces>(steps), apart = steps * P * kRegister;
    alignas(64) char columns[kPad / T::rows * kMostSteps * P * kRegister];
    FoldedFloats<T> folded(rescale, lda);
    T::open({T::rows, T::rows}, T::rows);
    for (int64_t c = 0; c < d; c += kPad) {
        columns_in_pieces<T, D>(X, d, R, c, prefetch, columns);
        for (int q = 0; q < nq; q += kQueries)
            for (int half = 0; half < 2; ++half) {
                folded.bring(q, std::min(nq - q, kQueries), A + q * lda + c + half * kQueries);
                const PieceRows x{weights + q * stride, stride};
                const char* y = columns + half * 2 * apart;
                multiply_pieces<T, kPieces, P, 2>(x, y, apart, steps);
                folded.template take<2, 2>();
            }
    }
    folded.fold();
    T::close();
}

template <class T>
void sum_pieces(const void* X, DType dtype, int64_t d, int R, const float* P, int64_t ldp, const float* rescale, int nq,
                float* A, int64_t lda, const void* prefetch, void* room) {
    constexpr int kQueries = 2 * T::rows;
    const int64_t steps = steps_of(R), stride = row_stride<kPieces>(steps), of_query = ldp * int64_t(sizeof(float));
    for (int q = 0; q < nq; q += kQueries)  // weights are rows of R numbers
        rows_in_pieces<T, DType::f32>(reinterpret_cast<const char*>(P + q * ldp), of_query, R,
                                      std::min(nq - q, kQueries), 0, steps, static_cast<char*>(room) + q * stride,
                                      stride);
    for_dtype(dtype, [&](auto t) {
        sum_tile_pieces<T, decltype(t)::value>(static_cast<const char*>(X), d, R, static_cast<const char*>(room),
                                               rescale, nq, A, lda, static_cast<const char*>(prefetch));
    });
}

template <class T>
inline geodiff::FloatTiles float_tiles() {
    static_assert(kF == T::rows && T::bytes == 64);
    geodiff::FloatTiles f{};
    f.from_wide = 64;
    f.from_exact = 24;
    f.chunk = kFoldColumns;
    f.step = kStep;
    f.packed_bytes = packed_bytes;
    f.pack = pack_pieces;
    f.dot = dot_pieces<T>;
    f.room_bytes = weight_bytes;
    f.sum = sum_pieces<T>;
    return f;
}

}  // namespace
