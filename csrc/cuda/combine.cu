// A solver's step on the way out of an evaluation: one kernel, all that it needs in its argument, so that it can be
// recorded into a CUDA graph.
#include "combine.h"
#include "launch.h"
#include "types.h"

namespace geodiff::cuda {
namespace {

template <class Real>
__global__ void __launch_bounds__(kThreads) combine_kernel(Combined a) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= a.size) return;
    double sum = a.gain * a.mean[i];
#pragma unroll  // so that the argument is read where it lies
    for (int k = 0; k < kMostTerms; ++k)
        if (k < a.count) sum += a.factors[k] * double(static_cast<const Real*>(a.terms[k])[i]);
    static_cast<Real*>(a.out)[i] = Real(sum);
}

}  // namespace

void combine(const Combined& a, uintptr_t stream) {
    const Grid grid{unsigned((a.size + kThreads - 1) / kThreads), 1, 1, 1};
    launch("combine", a.single ? combine_kernel<float> : combine_kernel<double>, grid, kThreads, 0, stream, a);
}

}  // namespace geodiff::cuda
