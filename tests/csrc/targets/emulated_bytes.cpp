// 64 bytes to a register, as VNNI has it, and for many queries registers as AMX has them.
#include "emulated.h"

namespace geodiff::targets {

const Table& emulated_bytes() {
    typedef BytesEmulated<64, 32> Bytes;
    return table_of<byte_products_in_tiles<TilesEmulated, Bytes>, tile_products<TilesEmulated, Bytes>>(
        "emulated_bytes");
}

}  // namespace geodiff::targets
