// Between the products: weights as integers, and the sums over the weights. One warp per query and part of the rows.
#include <cmath>

#include "dense.h"
#include "kernels.h"
#include "online.h"

namespace geodiff::cuda {
namespace {

template <int Q>
__global__ void __launch_bounds__(kThreads) weights_kernel(const __grid_constant__ Dense a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    const int lane = threadIdx.x % 32;
    const int64_t part = blockIdx.x, q = int64_t(blockIdx.y) * kWeighed + threadIdx.x / 32;
    if (q >= p.batch) return;  // nobody reads what the sums make of it
    const int64_t group = q / Q;
    Online s = nothing();
    const long long top = a.work.top[q];
    const double max = top == kNoTop ? 0 : __longlong_as_double(ordered(top));
    s.best = INT64_MAX;
    const double* logits = a.work.logits + q * a.layout.stride;
    const double* bias = p.bias ? p.bias + q * p.bias_stride : nullptr;
    const int64_t end = a.layout.row_tiles * (part + 1) / c.parts;
    for (int64_t tile = a.layout.row_tiles * part / c.parts; tile < end; ++tile) {
        unsigned words[kDigits] = {};
        bool any = false;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int64_t row = tile * kTile + row_at(lane, i);
            const double t = row < p.n ? logits[row] - max : -INFINITY;
            if (!(t >= -p.cut)) continue;
            const double weight = exp(t);
            const auto whole = unsigned(rint(weight * kMostWeight));
            any |= whole > 0;
#pragma unroll
            for (int k = 0; k < kDigits; ++k) words[k] |= (whole >> (24 - 8 * k) & 255) << 8 * i;
            s.sum += weight;
            s.sum_l += weight * t;
            s.sum_2 += weight * weight;
            s.sum_h += weight * p.half_norm[row];
            if (bias) s.sum_b += weight > 0 ? weight * bias[row] : 0;
            const double used = kWeightUnit * double(whole);
            s.sum_q += used;
            s.lost += fabs(weight - used);
            if (t == 0 && row < s.best) s.best = row;
        }
        uint8_t* to = a.work.weights + (group * a.layout.row_tiles + tile) * Group<Q>::digit_bytes;
#pragma unroll
        for (int k = 0; k < kDigits; ++k)
            *reinterpret_cast<unsigned*>(to + swizzled(slot_of(int(q % Q), k), 4 * lane)) = words[k];
        if (any) a.work.active[group * a.layout.row_tiles + tile] = 1;
    }
    s.sum = warp_sum(s.sum);
    s.sum_l = warp_sum(s.sum_l);
    s.sum_2 = warp_sum(s.sum_2);
    s.sum_h = warp_sum(s.sum_h);
    s.sum_b = warp_sum(s.sum_b);
    s.sum_q = warp_sum(s.sum_q);
    s.lost = warp_sum(s.lost);
    const double best = -warp_max(s.best == INT64_MAX ? -INFINITY : -double(s.best));  // the lowest of equals
    s.best = best < INFINITY ? int64_t(best) : -1;
    if (s.sum > 0) s.max = max;
    if (lane == 0) c.work.states[part * c.padded + q] = s;
}

}  // namespace

void dense_weights(const Dense& a, uintptr_t stream) {
    const Grid grid{unsigned(a.call.parts), unsigned((a.call.problem.batch + kWeighed - 1) / kWeighed), 1, 1};
    launch("dense_weights", a.layout.group == 64 ? weights_kernel<64> : weights_kernel<16>, grid, kThreads, 0, stream, a);
}

}  // namespace geodiff::cuda
