// Queries made ready for the dense pass: centred, and as integers of four base-256 digits times a step of their own.
#include <cmath>

#include "block.h"
#include "dense.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

// The bytes of balanced digits of an integer, the lowest first: adding half of the base carries where a digit is
// negative.
__device__ __forceinline__ unsigned balanced(int value) { return unsigned(value + 0x00808080) ^ 0x00808080u; }

// A block is alone with its query: as many threads as it may have, of which each looks at its own columns twice.
constexpr int kPrepareWarps = 32, kPrepareThreads = kPrepareWarps * 32;

template <class Real>
__global__ void __launch_bounds__(kPrepareThreads) dense_prepare_kernel(const __grid_constant__ Dense a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const int64_t q = blockIdx.x, d = p.d;
    const bool exists = q < p.batch;  // the others fill the last group up, with zeros
    const auto* given = static_cast<const Real*>(p.x) + q * d;
    double* x = c.work.centred + q * d;
    double top = 0, sums[3] = {};  // of squares, of squares of what the integers leave, of the integers
    if (exists)
        for (int64_t k = int64_t(threadIdx.x) * 4; k < d; k += kPrepareThreads * 4) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {  // d is a multiple of 16
                const double v = double(given[k + i]) * p.unit - p.shift;
                x[k + i] = v;
                top = fmax(top, fabs(v));
                sums[0] += v * v;
            }
        }
    top = block_max<kPrepareWarps>(top, scratch);
    const double step = fmax(top, 1e-300) / double(kTopDigits), inverse = 1 / step;
    const int group = a.layout.group, column_of = int(q % group);
    uint8_t* digits = a.work.digits + q / group * a.layout.column_tiles * group * kDigits * kTile;
    for (int64_t k = int64_t(threadIdx.x) * 4; k < a.layout.column_tiles * kTile; k += kPrepareThreads * 4) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const double v = exists && k < d ? x[k + i] : 0;
            const double whole = fmin(fmax(rint(v * inverse), -double(kTopDigits)), double(kTopDigits));
            const double left = fma(-whole, step, v);
            sums[1] += left * left;
            sums[2] += whole;  // exact: below 2^31 each
            words[i] = balanced(int(whole));
        }
        transpose_bytes(words);  // one word for each digit, the lowest first
        uint8_t* tile = digits + k / kTile * group * kDigits * kTile;
#pragma unroll
        for (int i = 0; i < kDigits; ++i)
            *reinterpret_cast<unsigned*>(tile + swizzled(slot_of(column_of, kDigits - 1 - i), int(k % kTile))) =
                words[i];
    }
    block_sums<kPrepareWarps>(sums, scratch);
    if (threadIdx.x != 0) return;
    const double sigma = exists ? p.sigma[q] * p.unit : 1;
    c.work.queries[q] =
        Query{1 / (sigma * sigma), step, sqrt(sums[1]) * (1 + 1e-12), sqrt(sums[0]), 128 * int64_t(sums[2])};
    a.work.top[q] = kNoTop;
    if (exists) c.result.path[q] = -1;
}

}  // namespace

void dense_prepare(const Dense& a, uintptr_t stream) {
    const Grid grid{unsigned(a.call.padded), 1, 1, 1};
    launch("dense_prepare", a.call.problem.single ? dense_prepare_kernel<float> : dense_prepare_kernel<double>, grid,
           kPrepareThreads, 3 * (kPrepareWarps + 1) * sizeof(double), stream, a);
}

}  // namespace geodiff::cuda
