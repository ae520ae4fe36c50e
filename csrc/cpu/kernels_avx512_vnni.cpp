// AVX-512 with VNNI: the float kernels of AVX-512 and exact 8-bit integer products for uint8 data.
#define GEODIFF_VB 64
#define GEODIFF_RB 4
#define GEODIFF_QB 6
#define GEODIFF_SQ 6
#define GEODIFF_SC 4
#include "few_queries.h"
#include "int8_vnni.h"

namespace geodiff {

const Kernels* kernels_avx512_vnni() {
    static const Kernels table = {"avx512_vnni", true,    widen,    dot_f32, dot_f64,  sum_f32,
                                  dot_few,       sum_few, dot_u8,   sum_u8,  kF,       int(kFold) / kF,
                                  GEODIFF_SQ,    softmax, distance, axpy,    row_stats};
    return &table;
}

}  // namespace geodiff
