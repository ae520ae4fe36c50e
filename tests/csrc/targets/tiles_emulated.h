// The operations of vec/tiles_amx.h in plain C++: the same loops, tested where no AMX runs.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct TilesEmulated {
    static constexpr int rows = 16, bytes = 64;

    static void open(const int (&rows_of_x)[2], int columns_of_y) {
        all() = {};
        for (int i = 0; i < 2; ++i) all().rows_of_x[i] = rows_of_x[i];
        all().columns = columns_of_y;
    }
    static void close() { all().columns = 0; }

    template <int I>
    static void load_x(const void* p, int64_t stride) {
        load(all().x[I], p, stride, all().rows_of_x[I], bytes);
    }
    template <int J>
    static void load_y(const void* p, int64_t stride) {
        load(all().y[J], p, stride, rows, 4 * all().columns);
    }
    template <int I, int J>
    static void clear() {
        std::memset(all().sum[I][J], 0, sizeof all().sum[I][J]);
    }
    template <int I, int J>
    static void store(void* p, int64_t stride) {
        for (int r = 0; r < all().rows_of_x[I]; ++r)
            std::memcpy(static_cast<char*>(p) + r * stride, all().sum[I][J][r], size_t(4 * all().columns));
    }
    template <bool SIGNED_X, int I, int J>
    static void dot() {
        const Registers& now = all();
        for (int r = 0; r < now.rows_of_x[I]; ++r)
            for (int c = 0; c < now.columns; ++c) {
                uint32_t sum = uint32_t(now.sum[I][J][r][c]);  // wraps as the instruction does
                for (int k = 0; k < bytes; ++k) {
                    const uint8_t x = now.x[I][r][k];
                    const int32_t factor = SIGNED_X ? int32_t(int8_t(x)) : int32_t(x);
                    sum += uint32_t(factor * int32_t(int8_t(now.y[J][k / 4][4 * c + k % 4])));
                }
                all().sum[I][J][r][c] = int32_t(sum);
            }
    }
    static void turn(const int32_t* in, int64_t stride, int32_t* out) {
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < rows; ++c)
                std::memcpy(out + c * rows + r, reinterpret_cast<const char*>(in) + r * stride + 4 * c, 4);
    }

  private:
    struct Registers {
        int rows_of_x[2], columns;
        uint8_t x[2][16][64], y[2][16][64];
        int32_t sum[2][2][16][16];
    };
    static Registers& all() {
        static thread_local Registers registers{};
        return registers;
    }
    static void load(uint8_t (*to)[64], const void* p, int64_t stride, int count, int length) {
        for (int r = 0; r < count; ++r) std::memcpy(to[r], static_cast<const uint8_t*>(p) + r * stride, size_t(length));
    }
};

}  // namespace
