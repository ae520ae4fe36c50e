// AVX-512 without VNNI: floats, and exact 16-bit integer products for uint8 data.
#include "vec/avx512.h"

#include "vec/halves_avx512.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"
#include "loops/half_products.h"

namespace geodiff::targets {

const Table& avx512() {
    static const IntegerProducts integers = half_products<HalvesAvx512>();
    static const Table table = [] {
        Table t = float_table("avx512");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
