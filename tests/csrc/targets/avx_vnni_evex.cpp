// The loops of AVX-VNNI with AVX-512's form of the product: their arithmetic is tested where only that one runs.
#include "../../../csrc/cpu/isa/vec/avx2.h"
#include "../../../csrc/cpu/isa/vec/bytes_ymm.h"
// The loops come after the vectors they are written in.
#include "../../../csrc/cpu/isa/loops/byte_products.h"
#include "../../../csrc/cpu/isa/loops/float_table.h"

namespace geodiff::targets {

const Table& avx_vnni_evex() {
    static const IntegerProducts integers = byte_products<BytesYmm<false>>();
    static const Table table = [] {
        Table t = float_table("avx_vnni_evex");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
