// 16 bytes to a register, and 16 registers.
#include "emulated.h"

namespace geodiff::targets {

const Table& emulated_bytes_narrow() { return table_of<byte_products<BytesEmulated<16, 16>>>("emulated_bytes_narrow"); }

}  // namespace geodiff::targets
