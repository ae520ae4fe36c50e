// Arm with dot products of bytes: NEON's floats, and exact 8-bit integer products for uint8 data.
#include "vec/bytes_dotprod.h"
#include "vec/neon.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& neon_dotprod() { return table_of<byte_products<BytesDotprod>>("neon_dotprod"); }

}  // namespace geodiff::targets
