// A posterior for every number, over its own subset of the numbers: kSide rows at a time, a register's lanes being
// rows, so that subsets are lists of where registers lie.
#pragma once

#include "../subset_table.h"
#include "dot.h"
#include "exact.h"
#include "exp.h"

namespace {

using geodiff::kSide;
using geodiff::kTerms;
using geodiff::SubsetState;
using geodiff::SubsetStep;

constexpr int kSideVecs = kSide / kD;                                        // registers with a number of all rows
constexpr int kSideSums = kSideVecs * kTerms <= 8 ? kTerms : 8 / kSideVecs;  // sums that grow beside each other

void beside(const void* rows, DType dtype, int64_t d, int R, float* to) {
    constexpr int64_t kSome = 64;
    float some[kSide][kSome] = {};
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        for (int64_t k = 0; k < d; k += kSome) {
            const int64_t len = d - k < kSome ? d - k : kSome;
            for (int r = 0; r < R; ++r)
                widen_part<D>(static_cast<const char*>(rows) + r * d * kBytes<D>, k, len, some[r]);
            for (int64_t i = 0; i < len; ++i)
                GEODIFF_UNROLL for (int r = 0; r < kSide; ++r) to[(k + i) * kSide + r] = some[r][i];
        }
    });
}

void subset_differences(const float* v, const int32_t* place, const double* x, int64_t d, double* e) {
    for (int64_t k = 0; k < d; ++k) {
        const float* const from = v + (place ? place[k] : k) * kSide;
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
            const VecD off = x[k] - as_doubles(load<HalfF>(from + j * kD));
            store(e + k * kSide + j * kD, off * off);
        }
    }
}

// sums += e of these numbers
GEODIFF_INLINE void add_terms(const double* e, const int32_t* terms, int count, VecD (&sums)[kSideSums][kSideVecs]) {
    for (const int32_t* const end = terms + count; terms < end; terms += kTerms)
        GEODIFF_UNROLL for (int t = 0; t < kTerms; ++t) {
            const double* const from = e + terms[t];
            GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) sums[t % kSideSums][j] += load<VecD>(from + j * kD);
        }
}

// No branch of it depends on values, so that each tile's are those of the tile before.
void subset_sums(const SubsetStep* steps, const int32_t* terms, int64_t d, const double* e, double* kept, double* q) {
    VecD now[kSideVecs] = {};
    for (int64_t s = 0; s < d; ++s) {
        const SubsetStep& step = steps[s];
        VecD sums[kSideSums][kSideVecs] = {};
        if (step.start == SubsetStep::kPrevious)
            GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) sums[0][j] = -now[j];
        else if (step.start >= 0)
            GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) sums[0][j] =
                -load<VecD>(kept + step.start * kSide + j * kD);
        add_terms(e, terms, step.minus, sums);
        GEODIFF_UNROLL for (int u = 0; u < kSideSums; ++u) GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j)
            sums[u][j] = -sums[u][j];
        add_terms(e, terms + step.minus, step.plus, sums);
        terms += step.minus + step.plus;
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
            GEODIFF_UNROLL for (int u = 1; u < kSideSums; ++u) sums[0][j] += sums[u][j];
            now[j] = sums[0][j];
            store(q + step.output * int64_t(kSide) + j * kD, now[j]);
        }
        if (step.keep >= 0)
            GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) store(kept + step.keep * kSide + j * kD, now[j]);
    }
}

// The largest logit of a number becomes that of `top`.
GEODIFF_BLOCK void raise_to(const VecD& top, int64_t k, const SubsetState& to) {
    double max = to.max[k];
    for (int lane = 0; lane < kD; ++lane) max = top[lane] > max ? top[lane] : max;
    const double scale = exp_of(to.max[k] - max - VecD{})[0];
    to.max[k] = max;
    to.mass[k] *= scale, to.total[k] *= scale, to.square[k] *= scale;
}

void subset_posterior(const double* q, int64_t d, const float* v, const int32_t* place, const double* prior,
                      double scale, double cut, const SubsetState& to) {
    VecD priors[kSideVecs];
    GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) priors[j] = load<VecD>(prior + j * kD);
    for (int64_t k = 0; k < d; ++k) {
        VecD logits[kSideVecs], top;
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
            logits[j] = priors[j] - scale * load<VecD>(q + k * kSide + j * kD);
            top = j == 0 ? logits[0] : larger(top, logits[j]);
        }
        if (!any_above(top, to.max[k] - cut - VecD{})) continue;
        if (any_above(top, to.max[k] - VecD{})) raise_to(top, k, to);
        const float* const values = v + (place ? place[k] : k) * kSide;
        const VecD max = to.max[k] - VecD{};
        VecD mass = {}, total = {}, square = {};
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
            const VecD w = exp_of(logits[j] - max), c = as_doubles(load<HalfF>(values + j * kD)), wc = w * c;
            mass += w, total += wc, square += wc * c;
        }
        to.mass[k] += lane_sum<VecD, double>(mass);
        to.total[k] += lane_sum<VecD, double>(total);
        to.square[k] += lane_sum<VecD, double>(square);
    }
}

inline geodiff::SubsetLoops subset_loops() { return {beside, subset_differences, subset_sums, subset_posterior}; }

}  // namespace
