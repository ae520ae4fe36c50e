// Any 64-bit Arm: NEON's floats, and exact 16-bit integer products for uint8 data.
#include "vec/neon.h"

#include "vec/halves_neon.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"
#include "loops/half_products.h"

namespace geodiff::targets {

const Table& neon() {
    static const IntegerProducts integers = half_products<HalvesNeon>();
    static const Table table = [] {
        Table t = float_table("neon");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
