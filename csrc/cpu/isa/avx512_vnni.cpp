// AVX-512 with VNNI: the float kernels of AVX-512 and exact 8-bit integer products for uint8 data.
#include "vec/avx512.h"
#include "vec/bytes_vnni.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& avx512_vnni() {
    static const IntegerProducts integers = byte_products<BytesVnni>();
    static const Table table = [] {
        Table t = float_table("avx512_vnni");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
