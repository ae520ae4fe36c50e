// Any processor: 128-bit vectors, which every x86-64 and Arm64 has; elsewhere the compiler takes them apart.
#define GEODIFF_VB 16
#define GEODIFF_RB 2
#define GEODIFF_QB 2
#define GEODIFF_SQ 2
#define GEODIFF_SC 2
#include "few_queries.h"

namespace geodiff {

const Kernels* kernels_portable() {
    static const Kernels table = {"portable", false,   widen,    dot_f32, dot_f64,  sum_f32,
                                  dot_few,    sum_few, nullptr,  nullptr, kF,       int(kFold) / kF,
                                  GEODIFF_SQ, softmax, distance, axpy,    row_stats};
    return &table;
}

}  // namespace geodiff
