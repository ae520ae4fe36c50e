// AVX-512 with VNNI: the float kernels of AVX-512 and exact 8-bit integer products for uint8 data.
#include "vec/avx512.h"
#include "vec/bytes_vnni.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& avx512_vnni() { return table_of<byte_products<BytesVnni>>("avx512_vnni"); }

}  // namespace geodiff::targets
