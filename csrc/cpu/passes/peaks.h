// What the machine could do: products in registers and reading of memory, each alone.
#pragma once

#include "../isa/table.h"

namespace geodiff {

struct Peaks {
    double f32;       // multiply-adds per second of all threads together
    double integers;  // the same of the exact products of bytes; 0 where the instruction set has none
    double read;      // bytes per second, from memory that no cache holds
};

Peaks peaks(const Table& kernels, int threads);

}  // namespace geodiff
