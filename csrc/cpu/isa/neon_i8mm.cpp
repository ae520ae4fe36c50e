// Arm with products of matrices of bytes: NEON's floats, and exact 8-bit integer products for uint8 data.
#include "vec/matrices_neon.h"
#include "vec/neon.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"
#include "loops/matrix_products.h"

namespace geodiff::targets {

const Table& neon_i8mm() {
    static const IntegerProducts integers = matrix_products<MatricesNeon>();
    static const Table table = [] {
        Table t = float_table("neon_i8mm");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
