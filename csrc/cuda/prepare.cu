// Queries made ready: centred, and as integers of four base-256 digits times a step of their own.
#include <cmath>

#include "block.h"
#include "kernels.h"
#include "layout.h"

namespace geodiff::cuda {
namespace {

struct Prepare {
    Call call;
    bool integer;
};

template <class Real>
__global__ void __launch_bounds__(kThreads) prepare_kernel(Prepare a) {
    const Call& c = a.call;
    const Problem& p = c.problem;
    auto* scratch = reinterpret_cast<double*>(shared_memory());
    const int64_t q = blockIdx.x, d = p.d;
    const bool exists = q < p.batch;  // the others fill the last group up, with zeros
    double top = 0, square = 0;
    if (exists)
        for (int64_t k = threadIdx.x; k < d; k += kThreads) {
            const double x = double(static_cast<const Real*>(p.x)[q * d + k]) * p.unit - p.shift;
            c.work.centred[q * d + k] = x;
            top = fmax(top, fabs(x));
            square += x * x;
        }
    if (exists && threadIdx.x == 0) c.result.path[q] = -1;
    if (!a.integer) return;
    top = block_max(top, scratch);
    square = block_sum(square, scratch);
    const double step = fmax(top, 1e-300) / double(kTopDigits);
    const int64_t columns = c.slice * c.cluster, steps = columns / 32;
    auto* digits = static_cast<int8_t*>(c.work.digits);
    double rest = 0, total = 0;
    for (int64_t k = threadIdx.x; k < columns; k += kThreads) {
        const double scaled = exists && k < d ? c.work.centred[q * d + k] / step : 0;
        const double whole = fmin(fmax(rint(scaled), -double(kTopDigits)), double(kTopDigits));
        rest += (scaled - whole) * (scaled - whole);
        total += whole;  // exact: below 2^31 each
        int8_t digit[kDigits];
        four_digits(int64_t(whole), digit);
        for (int i = 0; i < kDigits; ++i) digits[digit_address(q, i, k, steps)] = digit[i];
    }
    rest = block_sum(rest, scratch);
    total = block_sum(total, scratch);
    if (threadIdx.x == 0) {
        const double sigma = exists ? p.sigma[q] * p.unit : 1;
        c.work.queries[q] = Query{1 / (sigma * sigma), step, sqrt(rest) * step, sqrt(square), 128 * int64_t(total)};
    }
}

}  // namespace

void prepare(const Call& call, bool integer, uintptr_t stream) {
    const Grid grid{unsigned(call.padded), 1, 1, 1};
    const auto kernel = call.problem.single ? prepare_kernel<float> : prepare_kernel<double>;
    launch("prepare", kernel, grid, kThreads, kWarps * sizeof(double), stream, Prepare{call, integer});
}

}  // namespace geodiff::cuda
