// The dense pass: both products fused tile by tile, and a bound on what it answers.
#pragma once

#include <vector>

#include "../products/logits.h"
#include "../request.h"

namespace geodiff {

// Queries by the bits that their weights have, on the integer path; elsewhere all are in `finer`, and may have their
// heaviest rows kept, so that their logits can be settled in float64 where those in float32 do not suffice.
struct ByBits {
    std::vector<int64_t> coarser, finer;
    int coarser_bits = 16, finer_bits = 24;
    bool heaviest = false;
    bool exact = false;  // logits better than plain float32 products make them: see Logits
    Shaping carried{};   // the coordinates that carry what digits lose of weights, or none
};

// Answers `which` where the error bound keeps the contract; returns the others, and whether queries had a digit less
// for the principal coordinates.
struct Open : ByBits {
    bool shaped = false;
};
Open dense(const Request& request, const ByBits& which, Precision precision, Answer& answer);

}  // namespace geodiff
