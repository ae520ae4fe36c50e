// AVX-512 F/BW/DQ/VL: 32 registers of 16 floats, 24 of them accumulators.
#define GEODIFF_VB 64
#define GEODIFF_RB 4
#define GEODIFF_QB 6
#define GEODIFF_SQ 6
#define GEODIFF_SC 4
#include "few_queries.h"

namespace geodiff {

const Kernels* kernels_avx512() {
    static const Kernels table = {"avx512",   false,   widen,    dot_f32, dot_f64,  sum_f32,
                                  dot_few,    sum_few, nullptr,  nullptr, kF,       int(kFold) / kF,
                                  GEODIFF_SQ, softmax, distance, axpy,    row_stats};
    return &table;
}

}  // namespace geodiff
