// AVX-VNNI: AVX2's floats, and exact 8-bit integer products for uint8 data in 256-bit vectors.
#include "vec/avx2.h"
#include "vec/bytes_ymm.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& avx_vnni() { return table_of<byte_products<BytesYmm<true>>>("avx_vnni"); }

}  // namespace geodiff::targets
