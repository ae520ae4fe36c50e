// Registers of 16 rows of 64 bytes and the products of two of them (AMX, int8 and bfloat16): what loops/tile_products.h
// and loops/float_tiles.h are written in.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "macros.h"

namespace {

// Two registers of factors x and two of factors y; a sum of each pair of them: sum[i][j] += x_i y_j, x_i of so many
// rows and 64 columns, y_j of 64 rows, four of which share a row of dwords: dword c of row k holds rows 4 k to 4 k + 3
// of its column c. Written as assembly, since the intrinsics take no parameters of templates as registers.
struct TilesAmx {
    static constexpr int rows = 16, bytes = 64;

    // From here to `close` registers have these shapes: x_i of rows_of_x[i] rows, y_j of so many columns. All are zero.
    static GEODIFF_INLINE void open(const int (&rows_of_x)[2], int columns_of_y) {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, none[14] = {};
            uint16_t row_bytes[16] = {};
            uint8_t rows[16] = {};
        } shapes;
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) shape(shapes, 2 * i + j, rows_of_x[i], 4 * columns_of_y);
            shape(shapes, kX + i, rows_of_x[i], bytes);
            shape(shapes, kY + i, rows, 4 * columns_of_y);
        }
        asm volatile("ldtilecfg %0" : : "m"(shapes));
    }
    // A thread that has left registers in use is switched from and to with all their 8 KiB.
    static GEODIFF_INLINE void close() { asm volatile("tilerelease"); }

    template <int I>
    static GEODIFF_INLINE void load_x(const void* p, int64_t stride) {
        load<kX + I>(p, stride);
    }
    template <int J>
    static GEODIFF_INLINE void load_y(const void* p, int64_t stride) {
        load<kY + J>(p, stride);
    }
    template <int I, int J>
    static GEODIFF_INLINE void clear() {
        asm volatile("tilezero %%tmm%c0" : : "i"(2 * I + J));
    }
    template <int I, int J>
    static GEODIFF_INLINE void store(void* p, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(2 * I + J) : "memory");
    }
    // Of u8 or s8 x and s8 y
    template <bool SIGNED_X, int I, int J>
    static GEODIFF_INLINE void dot() {
        if constexpr (SIGNED_X)
            asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(2 * I + J), "i"(kX + I), "i"(kY + J));
        else
            asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(2 * I + J), "i"(kX + I), "i"(kY + J));
    }
    // Of bfloat16, two of a row of x and of a column of y in a dword, summed in float32.
    template <int I, int J>
    static GEODIFF_INLINE void dot_bfloats() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(2 * I + J), "i"(kX + I), "i"(kY + J));
    }
    // The upper half of each dword of a, then those of b.
    template <class V>
    static GEODIFF_INLINE V upper_halves(V a, V b) {
        alignas(64) static const uint16_t odd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                     33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
        return V(_mm512_permutex2var_epi16(__m512i(a), _mm512_load_si512(odd), __m512i(b)));
    }

    // 16 rows of 16 dwords, `stride` bytes apart, turned over: out[c][r] = in[r][c]
    static GEODIFF_INLINE void turn(const int32_t* in, int64_t stride, int32_t* out) {
        __m512i a[16], b[16];
        for (int r = 0; r < 16; ++r) a[r] = _mm512_loadu_si512(reinterpret_cast<const char*>(in) + r * stride);
        for (int r = 0; r < 16; r += 2) {
            b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
            b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
        }
        for (int r = 0; r < 16; r += 4)  // a[r + i]: columns 4 lane + i of rows r to r + 3
            for (int i = 0; i < 2; ++i) {
                a[r + 2 * i] = _mm512_unpacklo_epi64(b[r + i], b[r + i + 2]);
                a[r + 2 * i + 1] = _mm512_unpackhi_epi64(b[r + i], b[r + i + 2]);
            }
        for (int i = 0; i < 4; ++i) {  // lanes, which are rows r to r + 3 of a column each
            const __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x44),
                          high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xee);
            const __m512i low2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x44),
                          high2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xee);
            _mm512_storeu_si512(out + i * 16, _mm512_shuffle_i32x4(low, low2, 0x88));
            _mm512_storeu_si512(out + (4 + i) * 16, _mm512_shuffle_i32x4(low, low2, 0xdd));
            _mm512_storeu_si512(out + (8 + i) * 16, _mm512_shuffle_i32x4(high, high2, 0x88));
            _mm512_storeu_si512(out + (12 + i) * 16, _mm512_shuffle_i32x4(high, high2, 0xdd));
        }
    }

  private:
    static constexpr int kX = 4, kY = 6;  // the first registers of either; those before are sums

    template <class Shapes>
    static GEODIFF_INLINE void shape(Shapes& shapes, int tile, int rows_of_it, int bytes_of_row) {
        shapes.rows[tile] = uint8_t(rows_of_it);
        shapes.row_bytes[tile] = uint16_t(bytes_of_row);
    }
    template <int TILE>
    static GEODIFF_INLINE void load(const void* p, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(TILE) : "memory");
    }
};

}  // namespace
