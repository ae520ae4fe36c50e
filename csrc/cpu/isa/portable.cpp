// Any processor: 128-bit vectors, which every x86-64 and Arm64 has; elsewhere the compiler takes them apart.
namespace {

struct Shape {
    static constexpr int bytes = 16, accumulators = 8, dot_vectors = 2, sum_queries = 4, sum_vectors = 2, few_rows = 2;
};

}  // namespace

#include "vec/portable.h"
// The loops come after the vectors they are written in.
#include "loops/table_of.h"

namespace geodiff::targets {

const Table& portable() { return table_of("portable"); }

}  // namespace geodiff::targets
