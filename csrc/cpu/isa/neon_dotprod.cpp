// Arm with dot products of bytes: NEON's floats, and exact 8-bit integer products for uint8 data.
#include "vec/bytes_dotprod.h"
#include "vec/neon.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& neon_dotprod() {
    static const IntegerProducts integers = byte_products<BytesDotprod>();
    static const Table table = [] {
        Table t = float_table("neon_dotprod");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
