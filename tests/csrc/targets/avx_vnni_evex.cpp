// The loops of AVX-VNNI with AVX-512's form of the product: their arithmetic is tested where only that one runs.
#include "../../../csrc/cpu/isa/vec/avx2.h"
#include "../../../csrc/cpu/isa/vec/bytes_ymm.h"
// The loops come after the vectors they are written in.
#include "../../../csrc/cpu/isa/loops/byte_products.h"
#include "../../../csrc/cpu/isa/loops/table_of.h"

namespace geodiff::targets {

const Table& avx_vnni_evex() { return table_of<byte_products<BytesYmm<false>>>("avx_vnni_evex"); }

}  // namespace geodiff::targets
