// Local denoisers at some pixels alone, in float64: where float32 does not do.
#pragma once

#include <vector>

#include "local.h"

namespace geodiff {

struct PixelsOf {
    int64_t query;
    std::vector<int64_t> pixels;
};

// Whether so many pixels of a query take less than all of them do in float64.
bool few_pixels(const Local& local, int64_t query, int64_t count);

// Writes the mean of those pixels, and the log sum where it is wanted.
void local_at_pixels(const Request& request, const Local& local, const std::vector<PixelsOf>& asked,
                     const LocalAnswer& answer);

}  // namespace geodiff
