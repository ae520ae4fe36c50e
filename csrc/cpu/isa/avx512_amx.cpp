// AVX-512 with VNNI and AMX: the float kernels of AVX-512 for few queries, and for many those of whole tiles, of floats
// in bfloat16 pieces and of uint8 data in exact 8-bit integers.
#include "vec/avx512.h"
#include "vec/bytes_vnni.h"
#include "vec/tiles_amx.h"
// The loops come after the vectors they are written in.
#include "loops/byte_products.h"
#include "loops/float_tiles.h"
#include "loops/table_of.h"
#include "loops/tile_lanes.h"
#include "loops/tile_products.h"

namespace geodiff::targets {

const Table& avx512_amx() {
    return table_of<byte_products_in_tiles<TilesAmx, BytesVnni>, tile_products<TilesAmx, BytesVnni>,
                    float_tiles<TilesAmx>>("avx512_amx");
}

}  // namespace geodiff::targets
