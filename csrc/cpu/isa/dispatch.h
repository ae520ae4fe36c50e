// Which instruction sets this build has and this machine runs: the lines of targets.def.
#pragma once

#include <string>
#include <vector>

#include "table.h"

namespace geodiff {

// Names, slowest first, of the instruction sets that are compiled in and that this machine runs.
std::vector<std::string> isas();

// The table of that name; throws std::invalid_argument naming what is allowed. "" is the best one.
const Table& kernels_for(const std::string& name);

}  // namespace geodiff
