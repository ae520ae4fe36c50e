// The end of a row, read without a byte past it and without a detour through memory.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace {

template <class T>
GEODIFF_INLINE uint64_t word_at(const uint8_t* p) {
    T word;
    std::memcpy(&word, p, sizeof word);
    return word;
}

// p[0..n) as the low bytes of a word, zero above them; n may be anything, 8 and more is the whole word.
GEODIFF_INLINE uint64_t first_bytes(const uint8_t* p, int64_t n) {
    if (n >= 8) return word_at<uint64_t>(p);
    if (n >= 4) return word_at<uint32_t>(p) | word_at<uint32_t>(p + n - 4) << 8 * (n - 4);
    if (n >= 2) return word_at<uint16_t>(p) | word_at<uint16_t>(p + n - 2) << 8 * (n - 2);
    return n == 1 ? *p : 0;
}

}  // namespace
