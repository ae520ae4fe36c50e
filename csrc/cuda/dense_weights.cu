// Between the products: weights as integers, and the sums over the weights. One warp per query and part of the rows.
#include <cmath>

#include "dense.h"
#include "kernels.h"
#include "layout.h"
#include "online.h"

namespace geodiff::cuda {
namespace {

constexpr int kPieces = 32;                           // of an octave
constexpr double kPieceOfLog = 0x1.62e42fefa39efp-6;  // log 2 / kPieces
constexpr double kRounder = 0x1.8p52;                 // a number below 2^31, added to it, is rounded in the low word

// exp(t) for t in [-700, 0], exactly 1 for 0: 2^(n / 32) by its table, and the rest by a series that stops at r^4,
// |r| <= log 2 / 64. Its error, 2e-12 at most, is a quarter of kWeightError.
__device__ __forceinline__ double exp_of(double t, const double* table) {
    const double rounded = fma(t, 1 / kPieceOfLog, kRounder);
    const int n = __double2loint(rounded);
    const double r = fma(rounded - kRounder, -kPieceOfLog, t);
    const double series = fma(r, fma(r, fma(r, fma(r, 1.0 / 24, 1.0 / 6), 0.5), 1.0), 1.0);
    const double p = table[n & (kPieces - 1)] * series;
    return __hiloint2double(__double2hiint(p) + (n >> 5) * (1 << 20), __double2loint(p));
}

// What this lane has of a tile's logits, in the order of row_at: two and two lie side by side.
__device__ __forceinline__ void four_of(const double* logits, int lane, double (&out)[4]) {
    const auto low = *reinterpret_cast<const double2*>(logits + row_at(lane, 0));
    const auto high = *reinterpret_cast<const double2*>(logits + row_at(lane, 2));
    out[0] = low.x;
    out[1] = low.y;
    out[2] = high.x;
    out[3] = high.y;
}

template <int Q>
__global__ void __launch_bounds__(kThreads, 3) weights_kernel(const __grid_constant__ Dense a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    auto* table = reinterpret_cast<double*>(shared_memory());
    if (threadIdx.x < kPieces) table[threadIdx.x] = exp2(double(threadIdx.x) / kPieces);
    __syncthreads();
    const int lane = threadIdx.x % 32;
    const int64_t part = blockIdx.x, q = int64_t(blockIdx.y) * kWeighed + threadIdx.x / 32;
    if (q >= p.batch) return;  // nobody reads what the sums make of it
    const int64_t group = q / Q;
    Online s = nothing();
    const long long top = a.work.top[q];
    const double max = top == kNoTop ? 0 : __longlong_as_double(ordered(top));
    s.best = INT64_MAX;
    long long used = 0;  // sum of the integers
    double lost = 0;     // in their unit
    const double* logits = a.work.logits + q * a.layout.stride;
    const double* bias = p.bias ? p.bias + q * p.bias_stride : nullptr;
    uint8_t* to = a.work.weights + group * a.layout.row_tiles * Group<Q>::digit_bytes;
    const int64_t end = a.layout.row_tiles * (part + 1) / c.parts;
    const int64_t begin = a.layout.row_tiles * part / c.parts;
    double next[4];
    if (begin < end) four_of(logits + begin * kTile, lane, next);
    for (int64_t tile = begin; tile < end; ++tile) {
        double t[4];
        unsigned words[4] = {};
        bool counts[4], any = false;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            t[i] = next[i] - max;
            counts[i] = t[i] >= -p.cut && tile * kTile + row_at(lane, i) < p.n;
            any |= counts[i];
        }
        if (tile + 1 < end) four_of(logits + (tile + 1) * kTile, lane, next);
        if (__ballot_sync(kWholeWarp, any)) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t row = tile * kTile + row_at(lane, i);
                const double weight = counts[i] ? exp_of(t[i], table) : 0;
                const double rounded = fma(weight, kMostWeight, 0x1p52);
                words[i] = unsigned(__double2loint(rounded));
                used += words[i];
                lost += fabs(fma(weight, kMostWeight, 0x1p52 - rounded));
                s.sum += weight;
                s.sum_l += weight > 0 ? weight * t[i] : 0;
                s.sum_2 += weight * weight;
                if (row < p.n) s.sum_h += weight * p.half_norm[row];
                if (bias && weight > 0) s.sum_b += weight * bias[row];
                if (counts[i] && t[i] == 0 && row < s.best) s.best = row;
            }
            if (__ballot_sync(kWholeWarp, (words[0] | words[1] | words[2] | words[3]) != 0) && lane == 0)
                a.work.active[group * a.layout.row_tiles + tile] = 1;
            transpose_bytes(words);  // one word for each digit, the lowest first
        }
#pragma unroll
        for (int i = 0; i < kDigits; ++i)
            *reinterpret_cast<unsigned*>(to + tile * Group<Q>::digit_bytes +
                                         swizzled(slot_of(int(q % Q), kDigits - 1 - i), 4 * lane)) = words[i];
    }
    s.sum = warp_sum(s.sum);
    s.sum_l = warp_sum(s.sum_l);
    s.sum_2 = warp_sum(s.sum_2);
    s.sum_h = warp_sum(s.sum_h);
    if (bias) s.sum_b = warp_sum(s.sum_b);
    s.sum_q = warp_sum(double(used)) * kWeightUnit;
    s.lost = warp_sum(lost) * kWeightUnit;
    const double best = -warp_max(s.best == INT64_MAX ? -INFINITY : -double(s.best));  // the lowest of equals
    s.best = best < INFINITY ? int64_t(best) : -1;
    if (s.sum > 0) s.max = max;
    if (lane == 0) c.work.states[part * c.padded + q] = s;
}

}  // namespace

void dense_weights(const Dense& a, uintptr_t stream) {
    const Grid grid{unsigned(a.call.parts), unsigned((a.call.problem.batch + kWeighed - 1) / kWeighed), 1, 1};
    launch("dense_weights", a.layout.group == 64 ? weights_kernel<64> : weights_kernel<16>, grid, kThreads,
           kPieces * sizeof(double), stream, a);
}

}  // namespace geodiff::cuda
