#include "vec/avx2.h"
// The loops come after the vectors they are written in.
#include "loops/float_table.h"

namespace geodiff::targets {

const Table& avx2() {
    static const Table table = float_table("avx2");
    return table;
}

}  // namespace geodiff::targets
