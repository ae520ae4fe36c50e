// One pass over uint8 rows for a few queries: logits, softmax and weighted sum of a tile while it is in shared memory.
//
// A cluster of blocks shares every tile of 32 rows: each block holds its slice of the columns, and the blocks add up
// their shares of the dot products over distributed shared memory. Both products are integer products on the tensor
// cores: bytes as they are stored with the four base-256 digits of the queries, then with those of the weights. They
// are exact, and their sums stay integers over many tiles (epoch.h), so the result does not depend on the order of
// additions, nor on how many blocks there are per cluster.
#include <cmath>

#include "epoch.h"
#include "kernels.h"
#include "layout.h"
#include "online.h"

namespace geodiff::cuda {
namespace {

// Starts copying rows [first, first + 32) of this block's columns; what lies outside becomes zeros.
template <int Bytes>
__device__ void copy_tile(const Call& c, int64_t first, int64_t end, int64_t column, uint8_t* to) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t d = c.problem.d, stride = tile_stride(c.slice);
    const auto* rows = static_cast<const uint8_t*>(c.problem.rows);
    for (int r = warp; r < kRows; r += kWarps) {
        const bool row = first + r < end;
        for (int64_t k = int64_t(lane) * Bytes; k < c.slice; k += 32 * Bytes) {
            const bool inside = row && column + k < d;  // whole units: Bytes divides d
            const uint8_t* from = inside ? rows + (first + r) * d + column + k : rows;
            if constexpr (Bytes == 1)
                to[r * stride + k] = inside ? *from : uint8_t(0);
            else
                __pipeline_memcpy_async(to + r * stride + k, from, Bytes, inside ? 0 : Bytes);
        }
    }
}

__device__ void copy_tile(const Call& c, int64_t first, int64_t end, int64_t column, uint8_t* to) {
    if (c.copy == 16)
        copy_tile<16>(c, first, end, column, to);
    else if (c.copy == 4)
        copy_tile<4>(c, first, end, column, to);
    else
        copy_tile<1>(c, first, end, column, to);
}

// dots += <digits of slot, row> over this block's columns, at dot_place. A warp has the slots of one mma, and those
// with the same slots take turns along the columns.
template <int Mmas>
__device__ void first_product(const uint4* digits, int all_steps, int first_step, int steps, const uint8_t* tile,
                              int stride, int* dots) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int m = threadIdx.x / 32 % Mmas, turn = threadIdx.x / 32 / Mmas;
    if (turn >= steps) return;
    const uint8_t* row = tile + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 16;
    const uint4* digit = digits + (int64_t(m) * all_steps + first_step) * 32 + lane;
    int sum[4][4] = {};
    for (int s = turn; s < steps; s += kWarps / Mmas) {
        const uint4 a = digit[s * 32];
#pragma unroll
        for (int n = 0; n < 4; n += 2) {
            const uint4 b = load_matrices(row + n * 8 * stride + s * 32);
            mma_s8_u8(sum[n], a, b.x, b.y);
            mma_s8_u8(sum[n + 1], a, b.z, b.w);
        }
    }
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)  // integer additions commute: the result is the same in any order
            atomicAdd(dots + dot_place(m * 16 + g + i / 2 * 8, n * 8 + 2 * t + i % 2), sum[n][i]);
}

// sums[q][column] += 2^shift[q] sum_r weight[q][r] u[r][column], at sum_place
template <int Mmas>
__device__ void second_product(const uint8_t* weights, const int* shift, const uint8_t* tile, int stride, int groups,
                               int64_t* sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = lane % 4;
    uint4 b[Mmas];                   // of query 4 m + t: digits 0 and 1, then 2 and 3
    unsigned high[Mmas], low[Mmas];  // what they count
#pragma unroll
    for (int m = 0; m < Mmas; ++m) {
        b[m] = load_matrices(weights + (m * 32 + lane) * 16);
        low[m] = 1u << shift[m * kQueriesPerMma + t];
        high[m] = low[m] << 16;
    }
    const uint8_t* from = tile + lane * stride + warp * 32;
    auto* at = reinterpret_cast<ulonglong2*>(sums) + sum_place<Mmas>(warp, 0, 0, lane);
    int left = (groups - warp + kWarps - 1) / kWarps;
#pragma unroll Mmas == 1 ? 2 : 1
    for (; left > 0; --left, from += kWarps * 32, at += kWarps * 2 * Mmas * 32) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 a = turned_columns(from + half * 16);
#pragma unroll
            for (int m = 0; m < Mmas; ++m) {
                int first[4] = {}, last[4] = {};
                mma_u8(first, a, b[m].x, b[m].y);
                mma_u8(last, a, b[m].z, b[m].w);
                ulonglong2 sum = at[(half * Mmas + m) * 32];
                add_product(sum.x, unsigned(first[0] * 256 + first[1]), high[m]);
                add_product(sum.y, unsigned(first[2] * 256 + first[3]), high[m]);
                add_product(sum.x, unsigned(last[0] * 256 + last[1]), low[m]);
                add_product(sum.y, unsigned(last[2] * 256 + last[3]), low[m]);
                at[(half * Mmas + m) * 32] = sum;
            }
        }
    }
}

// Writes sums of the queries that `moved` down, those of the threads that add to them, and begins them again.
template <int Mmas>
__device__ void write_down(const Call& c, int64_t part, int64_t first_query, int64_t column, const int* moved,
                           const Move* moves, int64_t* sums) {
    const Problem& p = c.problem;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int m = 0; m < Mmas; ++m) {
        const int q = m * kQueriesPerMma + t;
        if (!moved[q] || first_query + q >= p.batch) continue;
        const Move move = moves[q];
        double* out = c.work.sums + (part * c.padded + first_query + q) * p.d;
        for (int64_t group = threadIdx.x / 32; group < c.slice / 32; group += kWarps)
            for (int half = 0; half < 2; ++half)
                for (int i = 0; i < 2; ++i) {
                    int64_t& sum = sums[sum_place<Mmas>(group, half, m, lane) * 2 + i];
                    const int64_t k = column + group * 32 + half * 16 + 2 * g + i;
                    if (k < p.d) {
                        const double before = move.keep == 0 ? 0 : move.keep * out[k];
                        out[k] = before + move.gain * double(sum - 128 * move.used);
                    }
                    sum = 0;
                }
    }
}

template <int Mmas>
__global__ void __launch_bounds__(kThreads, 2) stream_kernel(Call c) {
    constexpr int Q = Mmas * kQueriesPerMma;
    const Problem& p = c.problem;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
    const int64_t part = blockIdx.x / unsigned(c.cluster), first_query = int64_t(blockIdx.y) * Q;
    const int64_t column = rank * c.slice;
    const int steps = int(c.slice / 32), all_steps = steps * c.cluster, stride = int(tile_stride(c.slice));
    const StreamShared at = stream_shared(c.slice, Q, c.stages);
    unsigned char* shared = shared_memory();
    auto* sums = reinterpret_cast<int64_t*>(shared + at.sums);
    auto* parts = reinterpret_cast<int64_t*>(shared + at.parts);
    auto* states = reinterpret_cast<Online*>(shared + at.states);
    auto* epochs = reinterpret_cast<Epoch*>(shared + at.epochs);
    auto* moves = reinterpret_cast<Move*>(shared + at.moves);
    auto* queries = reinterpret_cast<Query*>(shared + at.queries);
    auto* active = reinterpret_cast<int*>(shared + at.flags);
    auto *moved = active + Q, *shifts = moved + Q;
    auto* dots = reinterpret_cast<int*>(shared + at.dots);
    auto* weights = shared + at.weights;
    const uint4* digits = static_cast<const uint4*>(c.work.digits) + first_query / kQueriesPerMma * all_steps * 32;

    for (int64_t i = threadIdx.x; i < c.slice * Q; i += kThreads) sums[i] = 0;
    for (int i = threadIdx.x; i < Q * kDigits * kDotStride; i += kThreads) dots[i] = 0;
    for (int i = threadIdx.x; i < Q; i += kThreads) {
        states[i] = nothing();
        epochs[i] = no_epoch();
        queries[i] = c.work.queries[first_query + i];
    }

    const Range range = share(p.n, part, c.parts);
    for (int s = 0; s < c.stages; ++s) {
        const int64_t first = range.begin + int64_t(s) * kRows;
        if (first < range.end) copy_tile(c, first, range.end, column, shared + at.tiles + s * kRows * stride);
        __pipeline_commit();
    }
    int64_t turn = 0;
    for (int64_t first = range.begin; first < range.end; first += kRows, ++turn) {
        uint8_t* tile = shared + at.tiles + turn % c.stages * kRows * stride;
        const int64_t row = first + lane;
        const double half_norm = row < range.end ? p.half_norm[row] : 0;  // here, so that nobody waits for it later
        if (c.stages == 2)
            __pipeline_wait_prior(1);
        else
            __pipeline_wait_prior(0);
        __syncthreads();
        first_product<Mmas>(digits, all_steps, rank * steps, steps, tile, stride, dots);
        __syncthreads();

        // Two buffers: the one written in a turn was last read by the cluster before the barrier of the turn between.
        int64_t* mine = parts + turn % 2 * Q * kRows;
        for (int i = threadIdx.x; i < Q * kRows; i += kThreads) {
            int64_t whole = 0;
#pragma unroll
            for (int k = 0; k < kDigits; ++k) {
                int& digit = dots[dot_place(i / kRows * kDigits + k, i % kRows)];
                whole = whole * 256 + digit;
                digit = 0;
            }
            mine[i] = whole;
        }
        cluster_sync();

        for (int q = warp; q < Q; q += kWarps) {  // every block of the cluster does the same here
            const bool exists = row < range.end && first_query + q < p.batch && sees(p, first_query + q, row);
            int64_t dot = -queries[q].offset;
            for (int r = 0; r < c.cluster; ++r) dot += of_peer(mine, r)[q * kRows + lane];
            double l = exists ? (queries[q].step * double(dot) - half_norm) * queries[q].inv_sigma2 : -INFINITY;
            const double bias = exists && p.bias ? p.bias[(first_query + q) * p.bias_stride + row] : 0;
            l += bias;
            Online state = states[q];
            Epoch epoch = epochs[q];
            const double before = state.max;
            double weight, rescale;
            const bool any = take_tile({l, half_norm, bias, row}, p.bias, p.cut, state, weight, rescale);
            bool over = false;
            int shift = 0;
            Move move{};
            unsigned whole = 0;
            if (any) {
                over = is_over(epoch, before, state.max, p.cut, move);
                whole = whole_weight(epoch, weight, shift);
            }
            for (int k = 0; k < kDigits; ++k)
                weights[weight_place(q, k, lane)] = uint8_t(whole >> 8 * (kDigits - 1 - k));
            __syncwarp();
            if (lane == 0) {
                states[q] = state;
                epochs[q] = epoch;
                moves[q] = move;
                active[q] = any;
                moved[q] = over;
                shifts[q] = shift;
            }
        }
        __syncthreads();
        bool any = false, over = false;
        for (int q = 0; q < Q; ++q) {
            any |= active[q] != 0;
            over |= moved[q] != 0;
        }
        if (over) write_down<Mmas>(c, part, first_query, column, moved, moves, sums);
        if (any) second_product<Mmas>(weights, shifts, tile, stride, steps, sums);
        __syncthreads();

        const int64_t next = first + int64_t(c.stages) * kRows;
        if (next < range.end) copy_tile(c, next, range.end, column, tile);
        __pipeline_commit();
    }
    cluster_sync();  // no block leaves while another may still read its shared memory
    for (int q = threadIdx.x; q < Q; q += kThreads) {
        Online state = states[q];
        Epoch epoch = epochs[q];
        moves[q] = turn_over(epoch, state.max, true);
        moved[q] = true;
        state.sum_q = epoch.sum_q;
        state.lost = epoch.lost;
        if (rank == 0) c.work.states[part * c.padded + first_query + q] = state;
    }
    __syncthreads();
    write_down<Mmas>(c, part, first_query, column, moved, moves, sums);
}

}  // namespace

int resident(const Machine& machine, int queries, int cluster, int64_t shared) {
    const auto kernel = queries == kQueriesPerMma ? stream_kernel<1> : stream_kernel<4>;
    return resident_clusters(machine, kernel, cluster, kThreads, size_t(shared));
}

bool streams_in_clusters() { return compiled_for_clusters(stream_kernel<1>); }

void stream(const Call& call, int queries, uintptr_t stream) {
    const size_t shared = size_t(stream_shared(call.slice, queries, call.stages).total);
    const Grid grid{unsigned(call.parts * call.cluster), unsigned(call.padded / queries), 1, call.cluster};
    if (queries == kQueriesPerMma)
        launch("stream", stream_kernel<1>, grid, kThreads, shared, stream, call);
    else
        launch("stream", stream_kernel<4>, grid, kThreads, shared, stream, call);
}

}  // namespace geodiff::cuda
