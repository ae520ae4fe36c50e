#include "dispatch.h"

#include <stdexcept>

#include "probes.h"

namespace geodiff {

namespace targets {
#define GEODIFF_TARGET(name, processor, flags, probe) const Table& name();
#include "compiled_targets.def"  // the lines of targets.def that CMake could compile
#undef GEODIFF_TARGET
}  // namespace targets

namespace {

std::vector<const Table*> usable() {
    std::vector<const Table*> found;
#define GEODIFF_TARGET(name, processor, flags, probe) \
    if (probe) found.push_back(&targets::name());
#include "compiled_targets.def"
#undef GEODIFF_TARGET
    return found;
}

const std::vector<const Table*>& tables() {
    static const std::vector<const Table*> found = usable();
    return found;
}

}  // namespace

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Table* k : tables()) names.emplace_back(k->name);
    return names;
}

const Table& kernels_for(const std::string& name) {
    if (name.empty()) return *tables().back();
    std::string allowed;
    for (const Table* k : tables()) {
        if (name == k->name) return *k;
        allowed += (allowed.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument("isa: found '" + name + "'; this machine runs " + allowed);
}

}  // namespace geodiff
