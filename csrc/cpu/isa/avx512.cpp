// AVX-512 without VNNI: floats, and exact 16-bit integer products for uint8 data.
#include "vec/avx512.h"

#include "vec/halves_avx512.h"
#include "vec/one_query_x86.h"
// The loops come after the vectors they are written in.
#include "loops/half_products.h"
#include "loops/one_query.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& avx512() { return table_of<half_products_and_one_query<HalvesAvx512, OneQueryX86<Zmm<1>>>>("avx512"); }

}  // namespace geodiff::targets
