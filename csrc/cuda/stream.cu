// One pass over uint8 rows for a few queries: logits, softmax and weighted sum of a tile while it is in shared memory.
//
// A cluster of blocks shares every tile of 32 rows: each block holds its slice of the columns, and the blocks add up
// their shares of the dot products over distributed shared memory. Both products are integer products on the tensor
// cores: bytes with the four base-256 digits of the queries, then with those of the weights. They are exact, so the
// result does not depend on the order of additions, nor on how many blocks there are per cluster.
#include <cmath>

#include "kernels.h"
#include "layout.h"
#include "online.h"

namespace geodiff::cuda {
namespace {

constexpr unsigned kCentre = 0x80808080u;  // u ^ 128 is u - 128 as a signed byte

// An int32 in float64 by way of its bits: conversions run at a quarter of the speed of additions.
__device__ __forceinline__ double exact_double(int v) {
#ifdef GEODIFF_CUDA_EMULATED
    return v;
#else
    return __hiloint2double(0x43300000, v ^ int(0x80000000)) - 4503601774854144.0;  // 2^52 + 2^31
#endif
}

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

// dots += <digits of slot, row> over this block's columns, at dot_place; warps take turns along the columns.
template <int Mmas>
__device__ void first_product(const uint4* digits, int64_t all_steps, int64_t first_step, int64_t steps,
                              const uint8_t* tile, int64_t stride, int* dots) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int sum[Mmas][4][4] = {};
    for (int64_t s = warp; s < steps; s += kWarps) {
        unsigned b[4][2];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const auto* word = reinterpret_cast<const unsigned*>(tile + (n * 8 + g) * stride + s * 32);
            b[n][0] = word[t] ^ kCentre;
            b[n][1] = word[t + 4] ^ kCentre;
        }
#pragma unroll
        for (int m = 0; m < Mmas; ++m) {
            const uint4 a = digits[(m * all_steps + first_step + s) * 32 + lane];
#pragma unroll
            for (int n = 0; n < 4; ++n) mma_s8(sum[m][n], a, b[n][0], b[n][1]);
        }
    }
    if (warp >= steps) return;
#pragma unroll
    for (int m = 0; m < Mmas; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i)  // integer additions commute: the result is the same in any order
                atomicAdd(dots + dot_place(m * 16 + g + i / 2 * 8, n * 8 + 2 * t + i % 2), sum[m][n][i]);
}

// sums[q][column] = rescale[q] sums[q][column] + quantum[q] sum_r weight[q][r] v[r][column]
template <int Mmas>
__device__ void second_product(const int8_t* weights, const double* rescale, const double* quantum, const uint8_t* tile,
                               int64_t stride, int64_t groups, double* sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const bool odd = g & 1, low = g & 2;
    for (int64_t group = warp; group < groups; group += kWarps) {
        unsigned b[2][4];  // [half of the rows][column 4g + j]
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                b[half][i] =
                    reinterpret_cast<const unsigned*>(tile + (half * 16 + 4 * t + i) * stride + group * 32)[g] ^
                    kCentre;
            transpose_bytes(b[half]);
        }
#pragma unroll
        for (int m = 0; m < Mmas; ++m) {
            const auto* word = reinterpret_cast<const unsigned*>(weights) + m * 16 * (kRows / 4);
            const uint4 a{word[g * 8 + t], word[(g + 8) * 8 + t], word[g * 8 + t + 4], word[(g + 8) * 8 + t + 4]};
            int v[4][4] = {};  // [column j][c]: columns 8t + j and 8t + 4 + j of slots g, g, then of slots g + 8
#pragma unroll
            for (int j = 0; j < 4; ++j) mma_s8(v[j], a, b[0][j], b[1][j]);
            // The four digits of a query lie in lanes that differ in the two low bits of g. Lanes swap halves until
            // each holds all digits of its own four sums.
            int pair[2][4];  // digits 0, 1 (or 2, 3) together, at columns j = 2 odd + k
#pragma unroll
            for (int k = 0; k < 2; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int mine = odd ? v[2 + k][i] : v[k][i];
                    const int got = __shfl_xor_sync(kWholeWarp, odd ? v[k][i] : v[2 + k][i], 4);
                    pair[k][i] = odd ? got * 256 + mine : mine * 256 + got;
                }
            double* out = sums + (group * Mmas + m) * 128;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int mine = low ? pair[1][i] : pair[0][i];
                const int got = __shfl_xor_sync(kWholeWarp, low ? pair[0][i] : pair[1][i], 8);
                const double value = exact_double(low ? got : mine) * 65536 + exact_double(low ? mine : got);
                const int q = m * kQueriesPerMma + g / 4 + i / 2 * 2;
                out[i * 32 + lane] = out[i * 32 + lane] * rescale[q] + quantum[q] * value;
            }
        }
    }
}

// Where second_product keeps column `k` (below 32) of query `q` (below 4): the sum i * 32 + lane of its group of 128.
__device__ int place_of(int q, int k) {
    const int t = k / 8, i = q / 2 * 2 + k % 8 / 4, j = k % 4;
    const int g = q % 2 * 4 + j % 2 * 2 + j / 2;
    return i * 32 + g * 4 + t;
}

template <int Mmas>
__global__ void __launch_bounds__(kThreads) stream_kernel(Call c) {
    constexpr int Q = Mmas * kQueriesPerMma;
    const Problem& p = c.problem;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
    const int64_t part = blockIdx.x / unsigned(c.cluster), first_query = int64_t(blockIdx.y) * Q;
    const int64_t column = rank * c.slice, steps = c.slice / 32, all_steps = steps * c.cluster;
    const int64_t stride = tile_stride(c.slice);
    const StreamShared at = stream_shared(c.slice, Q, c.stages);
    unsigned char* shared = shared_memory();
    auto* sums = reinterpret_cast<double*>(shared + at.sums);
    auto* parts = reinterpret_cast<int64_t*>(shared + at.parts);
    auto* states = reinterpret_cast<Online*>(shared + at.states);
    auto* rescale = reinterpret_cast<double*>(shared + at.factors);
    auto* quantum = rescale + Q;
    auto* active = reinterpret_cast<int*>(quantum + Q);
    auto* dots = reinterpret_cast<int*>(shared + at.dots);
    auto* weights = reinterpret_cast<int8_t*>(shared + at.weights);
    const uint4* digits = static_cast<const uint4*>(c.work.digits) + first_query / kQueriesPerMma * all_steps * 32;

    for (int64_t i = threadIdx.x; i < c.slice * Q; i += kThreads) sums[i] = 0;
    for (int i = threadIdx.x; i < Q * kDigits * kDotStride; i += kThreads) dots[i] = 0;
    for (int i = threadIdx.x; i < Q; i += kThreads) states[i] = nothing();

    const Range range = share(p.n, part, c.parts);
    for (int s = 0; s < c.stages; ++s) {
        const int64_t first = range.begin + int64_t(s) * kRows;
        if (first < range.end) copy_tile(c, first, range.end, column, shared + at.tiles + s * kRows * stride);
        __pipeline_commit();
    }
    int64_t turn = 0;
    for (int64_t first = range.begin; first < range.end; first += kRows, ++turn) {
        uint8_t* tile = shared + at.tiles + turn % c.stages * kRows * stride;
        if (c.stages == 2)
            __pipeline_wait_prior(1);
        else
            __pipeline_wait_prior(0);
        __syncthreads();
        first_product<Mmas>(digits, all_steps, column / 32, steps, tile, stride, dots);
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
            const int64_t row = first + lane;
            const bool exists = row < range.end && first_query + q < p.batch;
            int64_t dot = 0;
            for (int r = 0; r < c.cluster; ++r) dot += of_peer(mine, r)[q * kRows + lane];
            const double half_norm = exists ? p.half_norm[row] : 0;
            const Query& query = c.work.queries[first_query + q];
            double l = exists ? (query.step * double(dot) - half_norm) * query.inv_sigma2 : -INFINITY;
            const double bias = exists && p.bias ? p.bias[(first_query + q) * p.bias_stride + row] : 0;
            l += bias;
            Online state = states[q];
            double weight, scale;
            const bool any = take_tile(l, half_norm, bias, p.bias, row, p.cut, state, weight, scale);
            int64_t whole = 0;
            double unit = 1;
            if (any) {
                int exponent;
                frexp(warp_max(weight), &exponent);  // weights < 2^exponent
                unit = ldexp(1.0, exponent - 30);
                whole = int64_t(rint(weight / unit));
                state.sum_q += warp_sum(unit * double(whole));
                state.lost += warp_sum(fabs(weight - unit * double(whole)));
            }
            int8_t digit[kDigits];
            four_digits(whole, digit);
            for (int k = 0; k < kDigits; ++k) weights[(q * kDigits + k) * kRows + lane] = digit[k];
            __syncwarp();
            if (lane == 0) {
                states[q] = state;
                rescale[q] = scale;
                quantum[q] = unit;
                active[q] = any;
            }
        }
        __syncthreads();
        bool any = false;
        for (int q = 0; q < Q; ++q) any |= active[q] != 0;
        if (any) second_product<Mmas>(weights, rescale, quantum, tile, stride, steps, sums);
        __syncthreads();

        const int64_t next = first + int64_t(c.stages) * kRows;
        if (next < range.end) copy_tile(c, next, range.end, column, tile);
        __pipeline_commit();
    }
    cluster_sync();  // no block leaves while another may still read its shared memory
    if (rank == 0)
        for (int q = threadIdx.x; q < Q; q += kThreads) c.work.states[part * c.padded + first_query + q] = states[q];
    for (int q = 0; q < Q; ++q) {
        if (first_query + q >= p.batch) break;
        double* out = c.work.sums + (part * c.padded + first_query + q) * p.d;
        for (int64_t k = threadIdx.x; k < c.slice && column + k < p.d; k += kThreads)
            out[column + k] = sums[(k / 32 * Mmas + q / 4) * 128 + place_of(q % 4, int(k % 32))];
    }
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
