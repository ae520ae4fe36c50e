// Which row a draw takes, the same on every processor.
#pragma once

#ifdef __CUDACC__
#define GEODIFF_EVERYWHERE __host__ __device__
#else
#define GEODIFF_EVERYWHERE
#endif

namespace geodiff {

// The first entry at which the running sum of p[0..n) exceeds `target`; the last that is not 0 if rounding ends short.
template <class Index>
GEODIFF_EVERYWHERE inline Index first_beyond(const double* p, Index n, double target) {
    double sum = 0;
    Index last = 0;
    for (Index i = 0; i < n; ++i) {
        if (p[i] == 0) continue;
        sum += p[i];
        last = i;
        if (sum > target) break;
    }
    return last;
}

}  // namespace geodiff
