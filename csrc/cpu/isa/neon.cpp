// Any 64-bit Arm: NEON's floats, and exact 16-bit integer products for uint8 data.
#include "vec/neon.h"

#include "vec/halves_neon.h"
// The loops come after the vectors they are written in.
#include "loops/half_products.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& neon() { return table_of<half_products<HalvesNeon>>("neon"); }

}  // namespace geodiff::targets
