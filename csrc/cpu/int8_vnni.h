// The two products in exact 8-bit integers (AVX-512 VNNI): u8 data times s8 query or weight digits, summed in int32.
//
// Both read the data as stored. The first product walks along d, so rows need no rearranging. The second contracts over
// rows: four rows are interleaved byte-wise for one block of 64 columns at a time, which stays in L1 while every query
// uses it.
#pragma once

#include <immintrin.h>

#include "kernels_generic.h"

namespace {

// acc += u8 x . s8 y, four products to a dword. Written as assembly because GCC's intrinsic takes the accumulator by
// copy: 24 of them then need 48 registers and spill (seen in GCC 12; the loops below must hold no stack access).
inline void dot_accumulate(__m512i& acc, __m512i x, __m512i y) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(y));
}

// Four bytes, repeated in every dword. Loaded once for all registers of columns: as the memory operand of each product,
// which is shorter, the loads rather than the products would set the pace (measured: 5 % of 256 queries' time).
inline __m512i broadcast_four(const int8_t* four) {
    typedef int8_t Four[4];
    __m512i out;
    asm("vpbroadcastd %1, %0" : "=v"(out) : "m"(*reinterpret_cast<const Four*>(four)));
    return out;
}

// acc += four rows of a column times four digits of a weight, one of them u8 and the other s8: see `WeightDigits`.
template <bool SIGNED>
inline void weigh(__m512i& acc, __m512i rows, __m512i digits) {
    if constexpr (SIGNED)
        dot_accumulate(acc, rows, digits);
    else
        dot_accumulate(acc, digits, rows);
}

// Sums 8 registers of 16 int32 lanes into 8 int32. 26 instructions instead of 8 x 8.
inline __m256i sum_lanes_8(const __m512i* a) {
    __m512i b[4], c[2];
    GEODIFF_UNROLL for (int i = 0; i < 4; ++i) b[i] =
        _mm512_add_epi32(_mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]), _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
    GEODIFF_UNROLL for (int i = 0; i < 2; ++i) c[i] =
        _mm512_add_epi32(_mm512_unpacklo_epi64(b[2 * i], b[2 * i + 1]), _mm512_unpackhi_epi64(b[2 * i], b[2 * i + 1]));
    // c[i] holds in each 128-bit lane the partial sums of four registers, in order.
    const __m512i lo = _mm512_shuffle_i64x2(c[0], c[1], 0x44), hi = _mm512_shuffle_i64x2(c[0], c[1], 0xee);
    const __m512i s = _mm512_add_epi32(lo, hi);  // lanes: c0, c0, c1, c1
    const __m512i t = _mm512_add_epi32(s, _mm512_shuffle_i64x2(s, s, 0xb1));
    return _mm512_castsi512_si256(_mm512_shuffle_i64x2(t, t, 0x08));
}

template <int RB, int QB>
inline void dot_block_u8(const uint8_t* X, int64_t ldx, const int8_t* Q, int64_t len, int32_t* S, int64_t lds,
                         bool add) {
    __m512i acc[RB][8];
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) GEODIFF_UNROLL for (int q = 0; q < QB; ++q) acc[r][q] =
        _mm512_setzero_si512();
    int64_t k = 0;
    for (; k + 64 <= len; k += 64, Q += QB * 64) {
        __m512i x[RB];
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) x[r] = _mm512_loadu_si512(X + r * ldx + k);
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) {
            const __m512i y = _mm512_load_si512(Q + q * 64);
            GEODIFF_UNROLL for (int r = 0; r < RB; ++r) dot_accumulate(acc[r][q], x[r], y);
        }
    }
    if (k < len) {  // never read past the last row: the rest of the 64 bytes is masked off
        const __mmask64 mask = ~0ull >> (64 - (len - k));
        GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
            const __m512i x = _mm512_maskz_loadu_epi8(mask, X + r * ldx + k);
            GEODIFF_UNROLL for (int q = 0; q < QB; ++q) dot_accumulate(acc[r][q], x, _mm512_load_si512(Q + q * 64));
        }
    }
    GEODIFF_UNROLL for (int r = 0; r < RB; ++r) {
        GEODIFF_UNROLL for (int q = QB; q < 8; ++q) acc[r][q] = _mm512_setzero_si512();
        int32_t sums[8];
        _mm256_storeu_si256((__m256i*)sums, sum_lanes_8(acc[r]));
        for (int q = 0; q < QB; ++q) S[q * lds + r] = (add ? S[q * lds + r] : 0) + sums[q];
    }
}

constexpr int64_t kDotChunk = 4096;  // 8 query vectors of this length: 32 KiB, resident in L1 while rows stream by

template <int QB>
inline void dot_group_u8(const uint8_t* X, int64_t ldx, int R, const int8_t* Q, int64_t d, int32_t* S, int64_t lds) {
    constexpr int RB = QB <= 4 ? 6 : 3;
    for (int64_t k = 0; k < d; k += kDotChunk, Q += kDotChunk * QB) {
        const int64_t len = d - k < kDotChunk ? d - k : kDotChunk;
        int r = 0;
        for (; r + RB <= R; r += RB) dot_block_u8<RB, QB>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
        for (; r < R; ++r) dot_block_u8<1, QB>(X + r * ldx + k, ldx, Q, len, S + r, lds, k > 0);
    }
}

void dot_u8(const uint8_t* X, int64_t ldx, int R, const int8_t* Q, int64_t dq, int groups, int group, int64_t d,
            int32_t* S, int64_t lds) {
    for (int g = 0; g < groups; ++g, Q += group * dq, S += group * lds) switch (group) {
            case 1:
                dot_group_u8<1>(X, ldx, R, Q, d, S, lds);
                break;
            case 2:
                dot_group_u8<2>(X, ldx, R, Q, d, S, lds);
                break;
            case 3:
                dot_group_u8<3>(X, ldx, R, Q, d, S, lds);
                break;
            case 4:
                dot_group_u8<4>(X, ldx, R, Q, d, S, lds);
                break;
            case 5:
                dot_group_u8<5>(X, ldx, R, Q, d, S, lds);
                break;
            case 6:
                dot_group_u8<6>(X, ldx, R, Q, d, S, lds);
                break;
            case 7:
                dot_group_u8<7>(X, ldx, R, Q, d, S, lds);
                break;
            default:
                dot_group_u8<8>(X, ldx, R, Q, d, S, lds);
                break;
        }
}

// a[0..16) = rescale a + quantum (d0 256^(PARTS-1) + ... ), the digits of query q in column register c.
template <int PARTS, int COLUMNS>
inline void fold(const __m512i (*acc)[COLUMNS], int q, int c, float quantum, float rescale, float* a) {
    __m512 total = _mm512_cvtepi32_ps(acc[q * PARTS][c]);
    GEODIFF_UNROLL for (int j = 1; j < PARTS; ++j) total =
        _mm512_fmadd_ps(total, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(acc[q * PARTS + j][c]));
    _mm512_storeu_ps(
        a, _mm512_fmadd_ps(_mm512_set1_ps(quantum), total, _mm512_mul_ps(_mm512_set1_ps(rescale), _mm512_loadu_ps(a))));
}

// A[q][cols] = rescale[q] A + quantum[q] * sum_r digit(p_r) v_r, for one group and 64 interleaved columns.
template <int QB, int PARTS, bool SIGNED>
inline void sum_block_u8(const uint8_t* Xi, int steps, const int8_t* P, const int32_t* offset, const float* rescale,
                         const float* quantum, float* A, int64_t lda) {
    for (int half = 0; half < 2; ++half, Xi += 128, A += 32) {
        __m512i acc[QB * PARTS][2];
        GEODIFF_UNROLL for (int s = 0; s < QB * PARTS; ++s) acc[s][0] = acc[s][1] = _mm512_set1_epi32(offset[s]);
        const int8_t* p = P;
        for (int i = 0; i < steps; ++i, p += QB * PARTS * 4) {
            const __m512i x0 = _mm512_load_si512(Xi + i * 256), x1 = _mm512_load_si512(Xi + i * 256 + 64);
            GEODIFF_UNROLL for (int s = 0; s < QB * PARTS; ++s) {
                const __m512i y = broadcast_four(p + s * 4);
                weigh<SIGNED>(acc[s][0], x0, y);
                weigh<SIGNED>(acc[s][1], x1, y);
            }
        }
        GEODIFF_UNROLL for (int q = 0; q < QB; ++q) GEODIFF_UNROLL for (int c = 0; c < 2; ++c)
            fold<PARTS>(acc, q, c, quantum[q], rescale[q], A + q * lda + c * 16);
    }
}

// Four rows of 64 columns, as u8 or for unsigned weights centred to s8, -> four registers whose dwords hold one column
// of the four rows each. Dword (4 lane + i) of register j is column 16 lane + 4 j + i: the accumulators keep that
// order, and `column_of_slot` undoes it at the end.
template <bool SIGNED>
inline void interleave(const __m512i* rows, __m512i* out) {
    const __m512i ab0 = _mm512_unpacklo_epi8(rows[0], rows[1]), ab1 = _mm512_unpackhi_epi8(rows[0], rows[1]);
    const __m512i cd0 = _mm512_unpacklo_epi8(rows[2], rows[3]), cd1 = _mm512_unpackhi_epi8(rows[2], rows[3]);
    out[0] = _mm512_unpacklo_epi16(ab0, cd0);
    out[1] = _mm512_unpackhi_epi16(ab0, cd0);
    out[2] = _mm512_unpacklo_epi16(ab1, cd1);
    out[3] = _mm512_unpackhi_epi16(ab1, cd1);
    if constexpr (!SIGNED)
        GEODIFF_UNROLL for (int j = 0; j < 4; ++j) out[j] = _mm512_xor_si512(out[j], _mm512_set1_epi8(-128));
}

// Four rows from r of one block of columns; `mask` cuts off what lies past d. Only the first half of the next tile is
// prefetched: the first product then reads the rest from memory, and memory is busy through both products.
inline void load_four(const uint8_t* X, int64_t ldx, int R, int r, __mmask64 mask, const uint8_t* prefetch,
                      __m512i* v) {
    GEODIFF_UNROLL for (int i = 0; i < 4; ++i) {
        const int row = r + i < R ? r + i : R - 1;  // weights past R are zero; only the address must be valid
        v[i] = _mm512_maskz_loadu_epi8(mask, X + row * ldx);
        if (prefetch && 2 * row < R) _mm_prefetch((const char*)(prefetch + row * ldx), _MM_HINT_T1);
    }
}

// One or two queries alone: interleaved rows are used once, straight from the registers they are made in.
template <int SLOTS, int PARTS, bool SIGNED>
inline void sum_few_u8(const uint8_t* X, int64_t ldx, int R, __mmask64 mask, const geodiff::WeightDigits& w, float* A,
                       int64_t lda, const uint8_t* prefetch) {
    __m512i acc[SLOTS][4];
    GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) GEODIFF_UNROLL for (int j = 0; j < 4; ++j) acc[s][j] =
        _mm512_set1_epi32(w.offset[s]);
    const int8_t* p = w.digits;
    for (int r = 0; r < R; r += 4, p += SLOTS * 4) {
        __m512i v[4], x[4];
        load_four(X, ldx, R, r, mask, prefetch, v);
        interleave<SIGNED>(v, x);
        GEODIFF_UNROLL for (int s = 0; s < SLOTS; ++s) {
            const __m512i y = broadcast_four(p + s * 4);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) weigh<SIGNED>(acc[s][j], x[j], y);
        }
    }
    GEODIFF_UNROLL for (int q = 0; q < SLOTS / PARTS; ++q) GEODIFF_UNROLL for (int j = 0; j < 4; ++j)
        fold<PARTS>(acc, q, j, w.quantum[q], w.rescale[q], A + q * lda + j * 16);
}

template <int PARTS, bool SIGNED>
inline void sum_group_u8(int queries, const uint8_t* Xi, int steps, const int8_t* P, const int32_t* offset,
                         const float* rescale, const float* quantum, float* A, int64_t lda) {
    switch (queries) {
        case 1:
            sum_block_u8<1, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
            break;
        case 2:
            sum_block_u8<2, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
            break;
        case 3:
            sum_block_u8<3, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
            break;
        case 4:
            sum_block_u8<4, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
            break;
        default:
            if constexpr (PARTS == 2) {
                if (queries == 5)
                    sum_block_u8<5, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
                else
                    sum_block_u8<6, PARTS, SIGNED>(Xi, steps, P, offset, rescale, quantum, A, lda);
            }
    }
}

template <bool SIGNED>
inline void sum_tile_u8(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A,
                        int64_t lda, const uint8_t* prefetch) {
    alignas(64) uint8_t Xi[geodiff::kMaxTileRows * 64];
    const int steps = (R + 3) / 4;
    const int64_t group_bytes = int64_t(steps) * 4 * w.group * w.parts;
    for (int64_t c = 0; c < d; c += 64) {
        const __mmask64 mask = d - c >= 64 ? ~0ull : ~0ull >> (64 - (d - c));
        const uint8_t* next = prefetch ? prefetch + c : nullptr;
        if (w.groups == 1 && w.group * w.parts <= 4) {
            switch (w.group * w.parts) {
                case 2:
                    sum_few_u8<2, 2, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
                case 3:
                    sum_few_u8<3, 3, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
                default:
                    sum_few_u8<4, 2, SIGNED>(X + c, ldx, R, mask, w, A + c, lda, next);
                    break;
            }
            continue;
        }
        for (int r = 0; r < 4 * steps; r += 4) {
            __m512i v[4], x[4];
            load_four(X + c, ldx, R, r, mask, next, v);
            interleave<SIGNED>(v, x);
            GEODIFF_UNROLL for (int j = 0; j < 4; ++j) _mm512_store_si512(Xi + r * 64 + j * 64, x[j]);
        }
        for (int g = 0; g < w.groups; ++g) {
            if (!w.active[g]) continue;
            const int q = g * w.group;
            const int8_t* P = w.digits + g * group_bytes;
            const int32_t* offset = w.offset + q * w.parts;
            if (w.parts == 2)
                sum_group_u8<2, SIGNED>(w.group, Xi, steps, P, offset, w.rescale + q, w.quantum + q, A + q * lda + c,
                                        lda);
            else
                sum_group_u8<3, SIGNED>(w.group, Xi, steps, P, offset, w.rescale + q, w.quantum + q, A + q * lda + c,
                                        lda);
        }
    }
}

void sum_u8(const uint8_t* X, int64_t ldx, int R, int64_t d, const geodiff::WeightDigits& w, float* A, int64_t lda,
            const uint8_t* prefetch) {
    if (w.either_sign)
        sum_tile_u8<true>(X, ldx, R, d, w, A, lda, prefetch);
    else
        sum_tile_u8<false>(X, ldx, R, d, w, A, lda, prefetch);
}

}  // namespace
