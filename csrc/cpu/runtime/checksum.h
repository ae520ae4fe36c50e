// A sum over memory that nearly every change of it changes: cheap enough to be taken before each call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace geodiff {

// Over all of it up to 16 KiB, else over 256 to 512 lines of 64 bytes, spread evenly, and the end.
inline uint64_t checksum(const void* memory, int64_t bytes) {
    constexpr int64_t kLine = 64, kMost = 256;
    constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;  // odd: no word is multiplied away
    const char* const begin = static_cast<const char*>(memory);
    const int64_t lines = bytes / kLine, step = std::max<int64_t>(1, lines / kMost);
    uint64_t sum = uint64_t(bytes), factor = kFactor;
    for (int64_t i = 0; i < lines; i += step) {
        uint64_t words[kLine / 8];
        std::memcpy(words, begin + i * kLine, kLine);
        for (const uint64_t word : words) {
            sum += (word ^ (word >> 32)) * factor;
            factor += 2 * kFactor;
        }
    }
    for (int64_t i = lines * kLine; i < bytes; ++i) {
        sum += (uint64_t(uint8_t(begin[i])) + 1) * factor;
        factor += 2 * kFactor;
    }
    return sum;
}

}  // namespace geodiff
