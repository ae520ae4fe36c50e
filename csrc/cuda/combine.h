// A solver's step on the way out of an evaluation.
#pragma once

#include <cstdint>

namespace geodiff::cuda {

constexpr int kMostTerms = 3;  // as many as any step has

// out[i] = gain mean[i] + sum_k factors[k] terms[k][i], i < size; terms and out are float if `single`, else double. out
// may be one of the terms.
struct Combined {
    const double* mean;
    const void* terms[kMostTerms];
    double factors[kMostTerms];
    double gain;
    void* out;
    int64_t size;
    int count;
    bool single;
};

// Puts the kernel on `stream`, on the current device.
void combine(const Combined& combined, uintptr_t stream);

}  // namespace geodiff::cuda
