// VNNI's loops in plain C++, with registers of any width and number: their arithmetic is tested where no such
// instructions run.
#pragma once

namespace {

struct Shape {
    static constexpr int bytes = 16, accumulators = 8, dot_vectors = 2, sum_queries = 2, sum_vectors = 2, few_rows = 2;
};

}  // namespace

#include "../../../csrc/cpu/isa/vec/portable.h"
#include "bytes_emulated.h"
#include "tiles_emulated.h"
// The loops come after the vectors they are written in.
#include "../../../csrc/cpu/isa/loops/byte_products.h"
#include "../../../csrc/cpu/isa/loops/table_of.h"
#include "../../../csrc/cpu/isa/loops/tile_lanes.h"
#include "../../../csrc/cpu/isa/loops/tile_products.h"
