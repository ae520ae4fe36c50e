// The first product of one vector of digits with some rows of a tile: what is left of it where bounds have told most
// rows apart (passes/prune.h). A few rows at a time, which share what is loaded of the digits.
#pragma once

#include <algorithm>

#include "../table.h"
#include "../vec/constants.h"

namespace {

using geodiff::kPad;
using geodiff::ListedRows;

// The last columns of some rows, with zeros behind them.
template <int ROWS>
struct LastColumns {
    alignas(64) uint8_t bytes[ROWS][kPad];

    template <class V>
    void fill(const uint8_t* const* rows, int64_t from, int64_t rest) {
        for (int r = 0; r < ROWS; ++r)
            for (int64_t i = 0; i < kPad; i += V::bytes)
                V::store(bytes[r] + i, V::first_of(rows[r] + from + i, rest - i));
    }
};

// Each row of the list, ROWS together, and half as many where they are the last; the last row again where rows do not
// fill a block. f(rows, first, how many, ROWS or half as many)
template <int ROWS, class F>
inline void each_few(const ListedRows& rows, F&& f) {
    const auto some = [&](int i, auto size) GEODIFF_INLINE_LAMBDA {
        const uint8_t* at[size];
        for (int r = 0; r < size; ++r) at[r] = rows.X + rows.list[std::min(i + r, rows.count - 1)] * rows.ldx;
        f(at, i, std::min<int>(size, rows.count - i), size);
    };
    int i = 0;
    for (; rows.count - i > ROWS / 2; i += ROWS) some(i, Constant<ROWS>());
    for (; i < rows.count; i += ROWS / 2) some(i, Constant<ROWS / 2>());
}

template <class V, int ROWS>
GEODIFF_BLOCK void listed_bytes(const uint8_t* const* rows, int64_t from, const int8_t* q, int64_t stride,
                                int64_t blocks, typename V::Vec* sums) {
    typename V::Vec acc[ROWS];
    GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) acc[r] = sums[r];
    for (; blocks > 0; --blocks, from += kPad, q += stride)
        GEODIFF_UNROLL for (int64_t i = 0; i < kPad; i += V::bytes) {
            const auto y = V::load(q + i);
            GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) V::dot(acc[r], V::row(V::load(rows[r] + from + i)), y);
        }
    GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) sums[r] = acc[r];
}

// V as for loops/byte_products.h.
template <class V>
void dot_listed_bytes(const ListedRows& rows, const void* digits, int64_t stride, int64_t total, int64_t d, double* S) {
    constexpr int64_t kChunk = int64_t(1) << 16;  // columns: an int32 cannot overflow, see loops/byte_products.h
    const int64_t whole = d / kPad * kPad, rest = d - whole;
    const double start = V::unsigned_rows ? -128.0 * double(total) : 0.0;  // v = u - 128
    each_few<V::dot_group>(rows, [&](const uint8_t* const* at, int first, int count, auto size) GEODIFF_INLINE_LAMBDA {
        constexpr int kRows = size;
        for (int r = 0; r < count; ++r) S[first + r] = start;
        for (int64_t k = 0; k < d; k += kChunk) {
            const int8_t* q = static_cast<const int8_t*>(digits) + k / kPad * stride;
            const int64_t blocks = (std::min(whole, k + kChunk) - k) / kPad;
            typename V::Vec acc[V::dot_group];  // as many as are summed together
            GEODIFF_UNROLL for (int r = 0; r < V::dot_group; ++r) acc[r] = V::zero();
            listed_bytes<V, kRows>(at, k, q, stride, blocks, acc);
            if (rest > 0 && k + kChunk > whole) {
                LastColumns<kRows> last;
                last.template fill<V>(at, whole, rest);
                const uint8_t* ends[kRows];
                for (int r = 0; r < kRows; ++r) ends[r] = last.bytes[r];
                listed_bytes<V, kRows>(ends, 0, q + blocks * stride, stride, 1, acc);
            }
            alignas(64) int32_t sums[(V::dot_group + 15) / 16 * 16];
            V::sums(acc, sums);
            for (int r = 0; r < count; ++r) S[first + r] += double(sums[r]);
        }
    });
}

template <class V, int ROWS>
GEODIFF_BLOCK void listed_halves(const uint8_t* const* rows, int64_t from, const int16_t* q, int64_t stride,
                                 int64_t blocks, double* sums) {
    typename V::Vec acc[4];  // as many as are summed together
    GEODIFF_UNROLL for (int r = 0; r < 4; ++r) acc[r] = V::zero();
    for (; blocks > 0; --blocks, from += kPad, q += stride)
        GEODIFF_UNROLL for (int64_t i = 0; i < kPad; i += V::columns) {
            const auto y = V::digits(q + i);
            GEODIFF_UNROLL for (int r = 0; r < ROWS; ++r) V::dot(acc[r], V::widen(rows[r] + from + i), y);
        }
    GEODIFF_UNROLL for (int i = 0; i < 4; i += 4) V::sums4(acc + i, sums + i);
}

// V as for loops/half_products.h; CHUNK: columns that a dword sums without overflow.
template <class V, int64_t CHUNK>
void dot_listed_halves(const ListedRows& rows, const void* digits, int64_t stride, int64_t total, int64_t d,
                       double* S) {
    constexpr int kMost = 4;
    static_assert(CHUNK % kPad == 0);
    const int64_t whole = d / kPad * kPad, rest = d - whole;
    const double start = -128.0 * double(total);  // v = u - 128
    each_few<kMost>(rows, [&](const uint8_t* const* at, int first, int count, auto size) GEODIFF_INLINE_LAMBDA {
        constexpr int kRows = size;
        const int16_t* q = static_cast<const int16_t*>(digits);
        double sums[kMost], all[kMost] = {};
        for (int64_t k = 0; k < whole; k += CHUNK, q += CHUNK / kPad * stride) {
            listed_halves<V, kRows>(at, k, q, stride, (std::min(whole, k + CHUNK) - k) / kPad, sums);
            for (int r = 0; r < kRows; ++r) all[r] += sums[r];
        }
        if (rest > 0) {
            LastColumns<kRows> last;
            last.template fill<V>(at, whole, rest);
            const uint8_t* ends[kRows];
            for (int r = 0; r < kRows; ++r) ends[r] = last.bytes[r];
            q = static_cast<const int16_t*>(digits) + whole / kPad * stride;
            listed_halves<V, kRows>(ends, 0, q, stride, 1, sums);
            for (int r = 0; r < kRows; ++r) all[r] += sums[r];
        }
        for (int r = 0; r < count; ++r) S[first + r] = start + all[r];
    });
}

}  // namespace
