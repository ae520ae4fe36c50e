#include "vec/avx512.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& avx512() {
    static const Table table = float_table("avx512");
    return table;
}

}  // namespace geodiff::targets
