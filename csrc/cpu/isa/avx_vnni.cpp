// AVX-VNNI: AVX2's floats, and exact 8-bit integer products for uint8 data in 256-bit vectors.
#include "vec/avx2.h"
#include "vec/bytes_ymm.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& avx_vnni() {
    static const IntegerProducts integers = byte_products<BytesYmm<true>>();
    static const Table table = [] {
        Table t = float_table("avx_vnni");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
