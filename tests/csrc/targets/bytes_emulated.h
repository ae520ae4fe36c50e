// The operations of vec/bytes_vnni.h in plain C++, at any width: the same loops, tested where no VNNI runs.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

template <int BYTES, int REGISTERS>
struct BytesEmulated {
    struct Vec {
        uint8_t b[BYTES];
    };
    static constexpr int bytes = BYTES, registers = REGISTERS, sums_held = REGISTERS / 4 * 3;
    static constexpr int dot_group = REGISTERS / 4, sum_group = sums_held / 2, sum_vectors = 2;
    static constexpr int few_vectors = REGISTERS / 8;
    static constexpr bool free_masks = REGISTERS > 16, unsigned_rows = true;
    template <bool SIGNED_DIGITS>
    static constexpr bool raw() {
        return SIGNED_DIGITS;
    }

    static int32_t dword(const Vec& v, int i) {
        int32_t out;
        std::memcpy(&out, v.b + 4 * i, 4);
        return out;
    }
    static void set_dword(Vec& v, int i, int32_t value) { std::memcpy(v.b + 4 * i, &value, 4); }

    static Vec zero() { return Vec{}; }
    static Vec set1(int32_t value) {
        Vec v;
        for (int i = 0; i < BYTES / 4; ++i) set_dword(v, i, value);
        return v;
    }
    static Vec load(const void* p) {
        Vec v;
        std::memcpy(v.b, p, BYTES);
        return v;
    }
    static void store(void* p, const Vec& v) { std::memcpy(p, v.b, BYTES); }
    static Vec first_of(const uint8_t* p, int64_t n) {
        Vec v{};
        std::memcpy(v.b, p, size_t(n < 0 ? 0 : n < BYTES ? n : BYTES));
        return v;
    }

    static void dot(Vec& acc, const Vec& x, const Vec& y) {
        for (int i = 0; i < BYTES / 4; ++i) {
            uint32_t sum = uint32_t(dword(acc, i));  // wraps as the instruction does
            for (int j = 4 * i; j < 4 * i + 4; ++j) sum += uint32_t(int32_t(x.b[j]) * int32_t(int8_t(y.b[j])));
            set_dword(acc, i, int32_t(sum));
        }
    }
    static Vec row(const Vec& stored) { return stored; }
    template <bool SIGNED_DIGITS>
    static void weigh(Vec& acc, const Vec& rows, const Vec& digits) {
        if (SIGNED_DIGITS)
            dot(acc, rows, digits);
        else
            dot(acc, digits, rows);
    }
    template <int SLOTS, class F>
    static void each_slot(const int8_t* p, F&& f) {
        for (int s = 0; s < SLOTS; ++s) f(s, broadcast4(p + 4 * s));
    }
    static Vec broadcast4(const int8_t* four) {
        Vec v;
        for (int i = 0; i < BYTES; ++i) v.b[i] = uint8_t(four[i % 4]);
        return v;
    }
    static Vec centred(Vec v) {
        for (uint8_t& b : v.b) b ^= 128;
        return v;
    }

    static void interleave(const Vec* rows, Vec* out) {
        for (int slot = 0; slot < BYTES; ++slot)
            for (int r = 0; r < 4; ++r)
                out[slot / (BYTES / 4)].b[slot % (BYTES / 4) * 4 + r] = rows[r].b[column_of_slot(slot)];
    }
    static int64_t column_of_slot(int64_t slot) {
        constexpr int64_t kLanes = BYTES / 16, kDwords = BYTES / 4;
        const int64_t j = slot / kDwords % 4, lane = slot / 4 % kLanes, i = slot % 4;
        return slot / BYTES * BYTES + 16 * lane + 4 * j + i;
    }

    static void sums(const Vec* a, int32_t* out) {
        for (int k = 0; k < dot_group; ++k) {
            uint32_t sum = 0;
            for (int i = 0; i < BYTES / 4; ++i) sum += uint32_t(dword(a[k], i));
            out[k] = int32_t(sum);
        }
    }
    template <int PARTS>
    static void fold(const Vec* d, int stride, float quantum, float rescale, float* a) {
        for (int i = 0; i < BYTES / 4; ++i) {
            float total = float(dword(d[0], i));
            for (int j = 1; j < PARTS; ++j) total = total * 256.0f + float(dword(d[j * stride], i));
            a[i] = quantum * total + rescale * a[i];
        }
    }
};

}  // namespace
