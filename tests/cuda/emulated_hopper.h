// What csrc/cuda/hopper.h has, on the emulator. Copies by the memory engine poison their target and happen when their
// barrier is asked for; products happen, and read shared memory, when they are waited for: the latest a GPU may.
#pragma once

#include "emulator.h"

#define __grid_constant__

namespace geodiff::cuda {

struct Barrier {
    uint8_t count, pending;
    uint16_t phase;
    int32_t bytes;  // announced and not there yet
};
static_assert(sizeof(Barrier) == 8);

}  // namespace geodiff::cuda

namespace emulated {

struct Bulk {  // `bytes` from `from`, or the tile at a place of `map`, or the value itself
    uint8_t* to;
    const uint8_t* from;
    unsigned bytes;
    const geodiff::cuda::TensorMap* map;
    int column, row;
    uint4 value;
};
inline std::map<geodiff::cuda::Barrier*, std::vector<Bulk>> under_way;

inline void turn_over(geodiff::cuda::Barrier* b) {
    if (b->pending != 0 || b->bytes != 0) return;
    ++b->phase;
    b->pending = b->count;
}

inline void deliver(geodiff::cuda::Barrier* b) {
    const auto found = under_way.find(b);
    if (found == under_way.end()) return;
    for (const Bulk& copy : std::exchange(found->second, {})) {
        ++progress;
        if (copy.map == nullptr) {
            std::memcpy(copy.to, copy.from == nullptr ? static_cast<const void*>(&copy.value) : copy.from, copy.bytes);
        } else {
            Matrix from;
            std::memcpy(&from, copy.map->bytes, sizeof from);
            for (int r = 0; r < from.together; ++r)
                for (int k = 0; k < geodiff::cuda::kTile; ++k) {
                    const int64_t row = copy.row + r, column = copy.column + k;
                    const bool inside = row < from.n && column < from.d;
                    copy.to[geodiff::cuda::swizzled(r, k)] = inside ? from.rows[row * from.d + column] : 0;
                }
        }
        b->bytes -= int(copy.bytes);
        turn_over(b);
    }
}

template <class T>
T* at_peer(T* mine, size_t rank) {
    if ((*cluster)[rank].left) throw std::logic_error("a block has left whose memory another one writes");
    return const_cast<T*>(geodiff::cuda::of_peer(mine, int(rank)));
}

}  // namespace emulated

namespace geodiff::cuda {

inline void init(Barrier* b, int count) { *b = {uint8_t(count), uint8_t(count), 0, 0}; }
inline void fence_init() {}
inline void arrive(Barrier* b) {
    if (b->pending == 0) throw std::logic_error("more arrivals than a barrier expects");
    --b->pending;
    ++emulated::progress;
    emulated::turn_over(b);
}
inline void arrive_expecting(Barrier* b, unsigned bytes) {
    b->bytes += int(bytes);
    arrive(b);
}
inline void arrive_at(Barrier* b, int rank) { arrive(emulated::at_peer(b, size_t(rank))); }
inline void wait(Barrier* b, unsigned parity) {
    emulated::deliver(b);
    while ((b->phase & 1) == (parity & 1)) {
        if (_setjmp(emulated::current->resume) == 0) _longjmp(emulated::scheduler, 1);
        emulated::deliver(b);
    }
}
inline void copy_tile(uint8_t* to, const TensorMap* from, int column, int row, Barrier* b) {
    if (uintptr_t(to) % 1024 != 0) throw std::logic_error("a swizzled tile starts at a multiple of 1024");
    emulated::Matrix matrix;
    std::memcpy(&matrix, from->bytes, sizeof matrix);
    const auto bytes = unsigned(matrix.together * kTile);
    std::memset(to, 0xcd, bytes);
    emulated::under_way[b].push_back({to, nullptr, bytes, from, column, row, {}});
}
inline void copy_bytes(uint8_t* to, const uint8_t* from, unsigned bytes, Barrier* b) {
    std::memset(to, 0xcd, bytes);
    emulated::under_way[b].push_back({to, from, bytes, nullptr, 0, 0, {}});
}
inline void send(void* to, const uint4& value, Barrier* b, int rank) {
    auto* there = static_cast<uint8_t*>(emulated::at_peer(to, size_t(rank)));
    if (uintptr_t(there) % sizeof value != 0) throw std::logic_error("a misaligned store to another block");
    std::memset(there, 0xcd, sizeof value);
    emulated::under_way[emulated::at_peer(b, size_t(rank))].push_back(
        {there, nullptr, sizeof value, nullptr, 0, 0, value});
}
inline void fence_products() {}
inline void copy_to_both(uint8_t* to, const uint8_t* from, unsigned bytes, Barrier* b) {
    for (size_t rank = 0; rank < 2; ++rank) {
        uint8_t* there = emulated::at_peer(to, rank);
        std::memset(there, 0xcd, bytes);
        emulated::under_way[emulated::at_peer(b, rank)].push_back({there, from, bytes, nullptr, 0, 0, {}});
    }
}

template <int>
void fewer_registers() {}
template <int>
void more_registers() {}

inline void products_begin() {}
inline void products_end() { emulated::current->products.emplace_back(); }

// Does the products of all groups but the last `Left`.
template <int Left>
void products_wait() {
    auto& groups = emulated::current->products;
    const int g = emulated::lane() / 4, t = emulated::lane() % 4, first = emulated::warp() % 4 * 16 + g;
    for (size_t i = 0; i + 1 + Left < groups.size(); ++i) {
        for (const emulated::Product& one : groups[i]) {
            for (int at = 0; at < one.numbers; ++at) {
                const int half = at % 4 / 2, row = first + 8 * half, column = at / 4 * 8 + 2 * t + at % 2;
                unsigned sum = one.add ? unsigned(one.c[at]) : 0;  // wraps around
                for (int k = 0; k < 32; ++k) {
                    const uint8_t b = one.b[swizzled(column, one.kb + k)];
                    if (one.a != nullptr)
                        sum += unsigned(int(one.a[swizzled(row, one.ka + k)]) * int(int8_t(b)));
                    else
                        sum += unsigned(int(one.rows[half][k]) * int(b));
                }
                one.c[at] = int(sum);
            }
        }
        groups[i].clear();
    }
    if (groups.size() > Left + 1) groups.erase(groups.begin(), groups.end() - (Left + 1));
}

template <int M>
void product(int (&c)[M], const uint8_t* a, int ka, const uint8_t* b, int kb, int add) {
    emulated::current->products.back().push_back({c, M, a, ka, b, kb, add != 0, {}});
}

template <class First, int M>
void product_of_registers(int (&c)[M], const uint4& a, const uint8_t* b, int kb) {
    uint4 all[32];
    emulated::from_all(a, all);
    emulated::Product one{c, M, nullptr, 0, b, kb, true, {}};
    const int g = emulated::lane() / 4;
    for (int t = 0; t < 4; ++t) {
        const uint4& of = all[4 * g + t];
        const unsigned words[4] = {of.x, of.y, of.z, of.w};
        for (int i = 0; i < 4; ++i)
            for (int k = 0; k < 4; ++k) one.rows[i % 2][i / 2 * 16 + 4 * t + k] = First(words[i] >> 8 * k);
    }
    emulated::current->products.back().push_back(one);
}
template <int M>
void product(int (&c)[M], const uint4& a, const uint8_t* b, int kb) {
    product_of_registers<int8_t>(c, a, b, kb);
}
template <int M>
void product_of_bytes(int (&c)[M], const uint4& a, const uint8_t* b, int kb) {
    product_of_registers<uint8_t>(c, a, b, kb);
}

template <int M>
void settled(int (&)[M]) {}

}  // namespace geodiff::cuda
