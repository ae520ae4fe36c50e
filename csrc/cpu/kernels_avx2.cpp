// AVX2 + FMA + F16C: 16 registers of 8 floats, 12 of them accumulators.
#define GEODIFF_VB 32
#define GEODIFF_RB 3
#define GEODIFF_QB 4
#define GEODIFF_SQ 4
#define GEODIFF_SC 3
#include "few_queries.h"

namespace geodiff {

const Kernels* kernels_avx2() {
    static const Kernels table = {"avx2",     false,   widen,    dot_f32, dot_f64,  sum_f32,
                                  dot_few,    sum_few, nullptr,  nullptr, kF,       int(kFold) / kF,
                                  GEODIFF_SQ, softmax, distance, axpy,    row_stats};
    return &table;
}

}  // namespace geodiff
