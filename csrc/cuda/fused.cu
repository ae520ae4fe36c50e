// The fused pass: the roles of its warps, as fused.h describes them.
#include <cmath>
#include <cstring>

#include "dense_pipeline.h"
#include "fused_ring.h"
#include "fused_weights.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

// Registers of a thread: sums of more tiles take more of them when they are written down.
template <int Q>
struct Registers {
    static constexpr int adding = Q == 4 ? 184 : 176, multiplying = Q == 4 ? 56 : 72, weighing = 88;
    static_assert(adding * kAdding + (multiplying + weighing) * 128 <= 65536);
};

template <int Q>
__device__ void copy(const Dense& a, const FewPlaces<Q>& at, PieceRing<Q>& ring) {
    using F = Few<Q>;
    constexpr unsigned digits = F::tiles * F::digit_bytes;
    arrive_expecting(at.digits_full(), digits);
    copy_bytes(at.digits(), a.work.digits + at.rank * int64_t(digits), digits, at.digits_full());
    for (int64_t tile = at.begin; tile < at.end; ++tile)
        for (int piece = 0; piece < F::pieces_of_tile; ++piece)
            ring.fill(&a.rows, at.rank * F::columns + piece * kBoxes * kTile, int(a.begin + tile * kFewRows));
}

// c[4 j + i] as in dense_logits.cu: query 4 i + t has its digits in c[8 i + 0, 1, 4, 5] for row g, two further on for
// row g + 8. These two are sent together, and one lane of a warp that weighs has both (few_row).
template <int Q>
__device__ void multiply(const FewPlaces<Q>& at, PieceRing<Q>& ring) {
    using F = Few<Q>;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    wait(at.digits_full(), 0);
    for (int64_t t = 0; t < at.end - at.begin; ++t) {
        int c[2 * Q];
        for (int piece = 0; piece < F::pieces_of_tile; ++piece) {
            ring.take();
            products_begin();
            const uint8_t* digits = at.digits() + piece * kBoxes * F::digit_bytes;
#pragma unroll
            for (int k = 0; k < kBoxes; ++k)
#pragma unroll
                for (int step = 0; step < 4; ++step)
                    product(c, ring.box(k), step * 32, digits + k * F::digit_bytes, step * 32,
                            piece > 0 || k > 0 || step > 0);
            products_end();
            ring.advance();
        }
        products_wait<0>();
        settled(c);
        at.wait_for_room(t);
        if (threadIdx.x % 128 == 0) {
            if (at.owned > 0) arrive_expecting(at.dots_full(t), unsigned(at.owned * at.cluster * kFewRows) * 8);
            arrive_expecting(at.weights_full(t), unsigned(at.live) * (kWeightBytes + sizeof(Order)));
        }
#pragma unroll
        for (int i = 0; i < Q / 4; ++i) {
            const int q = 4 * i + lane % 4;
            if (q >= at.live) continue;
            const int* of = c + 8 * i;
            const int64_t two[2] = {joined_digits(of[0], of[1], of[4], of[5]),
                                    joined_digits(of[2], of[3], of[6], of[7])};
            const uint4 sent{unsigned(two[0]), unsigned(two[0] >> 32), unsigned(two[1]), unsigned(two[1] >> 32)};
            send(at.dots(t, q % at.per, at.rank) + (warp * 8 + lane / 4) * 2, sent, at.dots_full(t), at.owner(q));
        }
    }
}

// Sends what lane 2 r and lane 2 r + 1 have of `order` to block r.
__device__ void send_order(const Order& order, Order* to, Barrier* b, int cluster) {
    const int lane = threadIdx.x % 32;
    uint4 halves[2];
    memcpy(halves, &order, sizeof order);
    if (lane / 2 < cluster)
        send(reinterpret_cast<uint4*>(to) + lane % 2, lane % 2 == 0 ? halves[0] : halves[1], b, lane / 2);
}

template <int Q>
__device__ void weigh(const Dense& a, const FewPlaces<Q>& at, int warp) {
    const Problem& p = a.call.problem;
    const int lane = threadIdx.x % 32;
    if (warp >= at.owned) return;
    uint8_t* staged = at.staged(warp);
    for (int o = warp; o < at.owned; o += kWeighing) at.share(o) = nothing_seen();
    for (int64_t t = 0; t < at.end - at.begin; ++t) {
        const int64_t first = (at.begin + t) * kFewRows;
        TwoRows rows{};
        int64_t number[2];
        for (int i = 0; i < 2; ++i) {
            number[i] = first + few_row(lane, i);
            rows.half_norm[i] = number[i] < p.n ? p.half_norm[number[i]] : 0;
        }
        wait(at.dots_full(t), at.phase(t));
        for (int o = warp; o < at.owned; o += kWeighing) {
            const int q = at.rank * at.per + o;
            const Query& query = a.call.work.queries[q];
            int64_t dot[2] = {-query.offset, -query.offset};
#pragma unroll 1
            for (int from = 0; from < at.cluster; ++from) {
                const int64_t* sent = at.dots(t, o, from) + 2 * lane;
                dot[0] += sent[0];
                dot[1] += sent[1];
            }
            for (int i = 0; i < 2; ++i) {
                const bool exists = number[i] < p.n && sees(p, q, number[i]);
                rows.bias[i] = exists && p.bias ? p.bias[q * p.bias_stride + number[i]] : 0;
                const double l = (query.step * double(dot[i]) - rows.half_norm[i]) * query.inv_sigma2;
                rows.logit[i] = exists ? l + rows.bias[i] : -INFINITY;
            }
            unsigned whole[2];
            const Order order = weigh(rows, first, p.bias, p.cut, at.share(o), whole);
            // Row g of 16 is byte g % 2 of word g / 2, row g + 8 two bytes further on: as row_at has it.
            for (int k = 0; k < kDigits; ++k)
                for (int i = 0; i < 2; ++i)
                    staged[k * kFewRows + lane / 2 * 4 + lane % 2 + 2 * i] = uint8_t(whole[i] >> 8 * (kDigits - 1 - k));
            __syncwarp();
            const int digit = lane % 16 / 4, byte = lane % 4 * 16;
            const uint4 sixteen = *reinterpret_cast<const uint4*>(staged + digit * kFewRows + byte);
            Barrier* full = at.weights_full(t);
            uint8_t* there = at.weights() + swizzled(slot_of(q, digit), int(t % kAhead) * kFewRows + byte);
            for (int to = lane / 16; to < at.cluster; to += 2) send(there, sixteen, full, to);
            send_order(order, at.orders(t) + q, full, at.cluster);
            __syncwarp();
        }
    }
    for (int o = warp; o < at.owned; o += kWeighing) {
        const int q = at.rank * at.per + o;
        Online state;
        send_order(finish(at.share(o), state), at.last_orders() + q, at.last_full(), at.cluster);
        if (lane == 0) a.call.work.states[at.part * a.call.padded + q] = state;
    }
}

__device__ __forceinline__ int64_t joined_bytes(int a, int b, int c, int d) {
    return ((int64_t(unsigned(a)) * 256 + unsigned(b)) * 256 + unsigned(c)) * 256 + unsigned(d);
}

// Writes the sums of the queries down whose epoch is over, and begins them again.
template <int Q>
__device__ void write_down(const Dense& a, const FewPlaces<Q>& at, const Order* orders, int column,
                           int (&sums)[Few<Q>::tiles][2 * Q]) {
    const Problem& p = a.call.problem;
#pragma unroll
    for (int i = 0; i < Q / 4; ++i) {
        const int q = 4 * i + int(threadIdx.x % 4);
        if (q >= at.live || !orders[q].over) continue;
        const Order order = orders[q];
        double* out = a.call.work.sums + (at.part * a.call.padded + q) * p.d;
        const int64_t less = 128 * order.used;
#pragma unroll
        for (int k = 0; k < Few<Q>::tiles; ++k) {
            int* of = sums[k] + 8 * i;
            if (k % kBoxes == 0) asm volatile("" ::: "memory");  // few at a time: registers do not hold what all read
            if (column + k * kTile < p.d) {
                auto* two = reinterpret_cast<double2*>(out + column + k * kTile);
                double2 sum{0, 0};
                if (order.keep != 0) {
                    sum = *two;
                    sum = {order.keep * sum.x, order.keep * sum.y};
                }
                sum.x += order.gain * double(joined_bytes(of[0], of[1], of[4], of[5]) - less);
                sum.y += order.gain * double(joined_bytes(of[2], of[3], of[6], of[7]) - less);
                *two = sum;
            }
#pragma unroll
            for (int n = 0; n < 8; ++n) of[n] = 0;
        }
    }
}

template <int Q>
__device__ void add_up(const Dense& a, const FewPlaces<Q>& at, PieceRing<Q>& ring) {
    using F = Few<Q>;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int from = warp % 4 * 32 + warp / 4 * 16;  // columns of this warp, 16 of every box
    const int column = at.rank * F::columns + from + lane / 4 * 2;
    const int place = swizzled(lane, from);
    int sums[F::tiles][2 * Q] = {};  // of two columns, and of queries 4 i + lane % 4
    for (int64_t t = 0; t < at.end - at.begin; ++t) {
        wait(at.weights_full(t), at.phase(t));
        const Order* orders = at.orders(t);
        bool adds = false, over = false;
        for (int q = 0; q < at.live; ++q) {
            adds |= orders[q].adds != 0;
            over |= orders[q].over != 0;
        }
        if (over) write_down<Q>(a, at, orders, column, sums);
        fence_products();  // weights came as stores
#pragma unroll
        for (int piece = 0; piece < F::pieces_of_tile; ++piece) {
            ring.take();
            if (adds) {
                uint4 v[kBoxes][2];
#pragma unroll
                for (int k = 0; k < kBoxes; ++k)
#pragma unroll
                    for (int step = 0; step < 2; ++step)
                        v[k][step] = turned_columns(ring.box(k) + place + step * 32 * kTile);
                products_begin();
#pragma unroll
                for (int k = 0; k < kBoxes; ++k)
#pragma unroll
                    for (int step = 0; step < 2; ++step)
                        product_of_bytes(sums[piece * kBoxes + k], v[k][step], at.weights(),
                                         int(t % kAhead) * kFewRows + step * 32);
                products_end();
                products_wait<0>();
            }
            ring.release();
        }
#pragma unroll
        for (int k = 0; k < F::tiles; ++k) settled(sums[k]);
        if (lane == 0) arrive(at.added(t));
    }
    wait(at.last_full(), 0);
    write_down<Q>(a, at, at.last_orders(), column, sums);
}

template <int Q>
__global__ void __launch_bounds__(kFewThreads, 1) fused_kernel(const __grid_constant__ Dense a) {
    const FewPlaces<Q> at(a, shared_memory());
    PieceRing<Q> ring(at);
    const int warp = threadIdx.x / 32, beyond = warp - kAdding / 32;
    if (beyond < 0) {
        more_registers<Registers<Q>::adding>();
        add_up<Q>(a, at, ring);
    } else if (beyond < 4) {
        fewer_registers<Registers<Q>::multiplying>();
        multiply<Q>(at, ring);
    } else {
        fewer_registers<Registers<Q>::weighing>();
        if (beyond > 4) {
            weigh<Q>(a, at, beyond - 5);
        } else if (threadIdx.x % 32 == 0) {
            arrive_expecting(at.last_full(), unsigned(at.live) * sizeof(Order));
            copy<Q>(a, at, ring);
        }
    }
    // Whatever is sent to a block, some warp of it waits for: it may leave before the others.
}

int64_t shared_of(const FewShape& at) {
    return at.queries == 4   ? Few<4>::shared(at.cluster, at.stages)
           : at.queries == 8 ? Few<8>::shared(at.cluster, at.stages)
                             : Few<16>::shared(at.cluster, at.stages);
}

auto kernel_of(int queries) {
    return queries == 4 ? fused_kernel<4> : queries == 8 ? fused_kernel<8> : fused_kernel<16>;
}

}  // namespace

FewShape few_shape(int64_t batch, int64_t columns, int64_t shared) {
    for (FewShape at{4, 1, 0}; at.queries <= 16; at.queries *= 2) {
        if (at.queries < batch) continue;
        const int tiles = kFewTiles / at.queries;
        for (at.cluster = 1; at.cluster * tiles * kTile < columns;) at.cluster *= 2;
        for (at.stages = kMostStages; shared_of(at) > shared;) --at.stages;
        if (at.cluster <= 8 && at.stages > tiles / kBoxes) return at;
    }
    return {};
}

int fused_resident(const Machine& machine, const FewShape& at) {
    return resident_clusters(machine, kernel_of(at.queries), at.cluster, kFewThreads, size_t(shared_of(at)));
}

void fused(const Dense& a, uintptr_t stream) {
    const FewShape at{a.layout.group, a.layout.cluster, a.layout.stages};
    const Grid grid{unsigned(a.call.parts * at.cluster), 1, 1, at.cluster};
    launch("fused", kernel_of(at.queries), grid, kFewThreads, size_t(shared_of(at)), stream, a);
}

}  // namespace geodiff::cuda
