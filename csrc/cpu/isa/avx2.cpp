// AVX2: floats, and exact 16-bit integer products for uint8 data.
#include "vec/avx2.h"

#include "vec/halves_avx2.h"
#include "vec/one_query_x86.h"
// The loops come after the vectors they are written in.
#include "loops/half_products.h"
#include "loops/one_query.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& avx2() { return table_of<half_products_and_one_query<HalvesAvx2, OneQueryX86<Ymm<1>>>>("avx2"); }

}  // namespace geodiff::targets
