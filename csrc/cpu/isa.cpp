#include "isa.h"

#include <stdexcept>

namespace geodiff {
namespace {

std::vector<const Kernels*> usable() {
    std::vector<const Kernels*> found = {kernels_portable()};
#if defined(GEODIFF_X86)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    // Every processor with AVX2 has F16C; GCC 12 cannot ask for it by name.
    if (avx2) found.push_back(kernels_avx2());
    if (avx512) found.push_back(kernels_avx512());
    if (avx512 && __builtin_cpu_supports("avx512vnni")) found.push_back(kernels_avx512_vnni());
#endif
    return found;
}

const std::vector<const Kernels*>& tables() {
    static const std::vector<const Kernels*> found = usable();
    return found;
}

}  // namespace

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Kernels* k : tables()) names.emplace_back(k->name);
    return names;
}

const Kernels& kernels_for(const std::string& name) {
    if (name.empty()) return *tables().back();
    std::string allowed;
    for (const Kernels* k : tables()) {
        if (name == k->name) return *k;
        allowed += (allowed.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument("isa: found '" + name + "'; this machine runs " + allowed);
}

}  // namespace geodiff
