// Any processor: 128-bit vectors, which every x86-64 and Arm64 has; elsewhere the compiler takes them apart.
namespace {

struct Shape {
    static constexpr int bytes = 16;
    static constexpr int accumulators = 8, dot_vectors = 2;  // of the first product: rows x vectors of queries
    static constexpr int sum_queries = 4, sum_vectors = 2;   // and of the second: queries x vectors of columns
    static constexpr int few_rows = 2;                       // rows of the first product's block for four queries
};

}  // namespace

#include "vec/portable.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& portable() {
    static const Table table = float_table("portable");
    return table;
}

}  // namespace geodiff::targets
