// 64 bytes to a register, as VNNI has it.
#include "emulated.h"

namespace geodiff::targets {

const Table& emulated_bytes() { return table_of<byte_products<BytesEmulated<64, 32>>>("emulated_bytes"); }

}  // namespace geodiff::targets
