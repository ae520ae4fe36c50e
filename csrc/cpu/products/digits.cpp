#include "digits.h"

#include <cstddef>
#include <vector>

namespace geodiff {

const float* dithers() {
    static const std::vector<float> table = [] {
        std::vector<float> t(std::size_t(kDithers + kMaxTileRows));
        for (uint64_t i = 0; i < t.size(); ++i) {
            uint64_t h = (i + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
            h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
            t[std::size_t(i)] = float((h ^ (h >> 31)) >> 40) * 0x1p-24f;
        }
        return t;
    }();
    return table.data();
}

}  // namespace geodiff
