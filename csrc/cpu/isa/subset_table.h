// The inner loops of denoisers whose numbers have a posterior each, over a subset of the numbers: PCA locality; and
// those of posteriors whose logits are given: ELS.
#pragma once

#include <cstdint>

#include "../../common/stored.h"

namespace geodiff {

constexpr int kSide = 16;  // rows side by side

constexpr int kTerms = 4;  // numbers that are added at a time

// A step of SubsetSums, which makes the sum of subset `output` from an earlier one: less the next `minus` terms, and
// the next `plus` more.
struct SubsetStep {
    int32_t output, minus, plus;
    int32_t start;  // where it starts from: a place, or one of these
    int32_t keep;   // the place where it is kept, or -1

    static constexpr int32_t kNothing = -2, kPrevious = -1;
};

// Sums over subsets of `d` numbers, one subset for each of them.
struct SubsetSums {
    const SubsetStep* steps;  // [d]
    const int32_t* terms;     // numbers of what the steps take, one step's after the other's
    int64_t places;           // how many sums have to be kept at a time
    int64_t largest;          // numbers of a subset
    int64_t additions;        // the most that one sum is the end of, all steps that led to it together
};

// What one query has summed up, relative to the largest logit `max` of each posterior: w of each, and w v and w v^2 of
// its numbers, the last where `square` is not null.
struct SubsetState {
    double *max, *mass, *total, *square;
};

// The same for one posterior whose candidates have `channels` values each: w, and w v of each channel.
struct GivenState {
    double *max, *mass, *total;
};

struct SubsetLoops {
    // R <= kSide rows of d numbers as stored, side by side: to [d, kSide], zero beyond R. which: `count` of the numbers
    // alone, to [count, kSide]; null: all
    void (*beside)(const void* rows, DType dtype, int64_t d, const int32_t* which, int64_t count, int R, float* to);
    // e[k] = (x[k] - v[place[k]])^2, [d, kSide]; place null: v[k]
    void (*differences)(const float* v, const int32_t* place, const double* x, int64_t d, double* e);
    // q[output] = the sum of e over its subset, [d, kSide]. Each step's `minus` and `plus` are multiples of kTerms,
    // and `terms` say at how many numbers from e they lie, e[d] being zero. kept [places, kSide]
    void (*sums)(const SubsetStep* steps, const int32_t* terms, int64_t d, const double* e, double* kept, double* q);
    // Adds rows with logits prior - scale q[k] to each of `count` posteriors, k, which has `numbers` numbers of a row,
    // from k numbers on: v[place[.]], place null: v[.]. Rows further than `cut` below its largest logit may be left
    // out.
    void (*posterior)(const double* q, int64_t count, int64_t numbers, const float* v, const int32_t* place,
                      const double* prior, double scale, double cut, const SubsetState& to);
    // Adds candidates with logits [count] and values [channels, count]; those further than `cut` below the largest
    // logit may be left out. How many were not.
    int64_t (*given)(const double* logits, const double* values, int64_t count, int64_t channels, double cut,
                     const GivenState& to);
};

}  // namespace geodiff
