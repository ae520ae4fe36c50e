// VNNI's loops in plain C++, 16 bytes to a register and 16 registers: their arithmetic is tested where no such
// instructions run.
namespace {

struct Shape {
    static constexpr int bytes = 16;
    static constexpr int accumulators = 8, dot_vectors = 2, sum_queries = 2, sum_vectors = 2, few_rows = 2;
};

}  // namespace

#include "../../../csrc/cpu/isa/vec/bytes_emulated.h"
#include "../../../csrc/cpu/isa/vec/portable.h"
// The loops come after the vectors they are written in.
#include "../../../csrc/cpu/isa/loops/byte_products.h"
#include "../../../csrc/cpu/isa/loops/float_table.h"

namespace geodiff::targets {

const Table& emulated_bytes_narrow() {
    static const IntegerProducts integers = byte_products<BytesEmulated<16, 16>>();
    static const Table table = [] {
        Table t = float_table("emulated_bytes_narrow");
        t.integers = &integers;
        return t;
    }();
    return table;
}

}  // namespace geodiff::targets
