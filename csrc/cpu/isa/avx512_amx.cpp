// AVX-512 with VNNI and AMX: the float kernels of AVX-512, and exact 8-bit integer products of whole tiles of uint8
// data.
#include "vec/avx512.h"
#include "vec/bytes_vnni.h"
#include "vec/tiles_amx.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/table_of.h"
#include "loops/tile_lanes.h"
#include "loops/tile_products.h"

namespace geodiff::targets {

const Table& avx512_amx() {
    return table_of<byte_products_in_tiles<TilesAmx, BytesVnni>, tile_products<TilesAmx, BytesVnni>>("avx512_amx");
}

}  // namespace geodiff::targets
