// AVX2: floats, and exact 16-bit integer products for uint8 data.
#include "vec/avx2.h"

#include "vec/halves_avx2.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"
#include "loops/half_products.h"

namespace geodiff::targets {

const Table& avx2() {
    static const IntegerProducts integers = half_products<HalvesAvx2>();
    static const Table table = [] {
        Table t = float_table("avx2");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
