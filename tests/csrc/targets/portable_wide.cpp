// The portable loops with vectors of 32 bytes, whatever the processor has: what it takes to add an instruction set.
namespace {

struct Shape {
    static constexpr int bytes = 32, accumulators = 6, dot_vectors = 3, sum_queries = 3, sum_vectors = 2, few_rows = 3;
};

}  // namespace

#include "../../../csrc/cpu/isa/vec/portable.h"
// The loops come after the vectors they are written in.
#include "../../../csrc/cpu/isa/loops/table_of.h"

namespace geodiff::targets {

const Table& portable_wide() { return table_of("portable_wide"); }

}  // namespace geodiff::targets
