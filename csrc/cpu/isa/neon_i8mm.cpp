// Arm with products of matrices of bytes: NEON's floats, and exact 8-bit integer products for uint8 data.
#include "vec/bytes_dotprod.h"
#include "vec/matrices_neon.h"
#include "vec/neon.h"
// The loops come after the vectors they are written in.
#include "loops/matrix_products.h"
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& neon_i8mm() { return table_of<matrix_products<MatricesNeon, BytesDotprod>>("neon_i8mm"); }

}  // namespace geodiff::targets
