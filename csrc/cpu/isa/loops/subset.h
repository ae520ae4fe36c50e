// A posterior for every number, over its own subset of the numbers: kSide rows at a time, a register's lanes being
// rows, so that subsets are lists of where registers lie.
#pragma once

#include <cmath>

#include "../subset_table.h"
#include "dot.h"
#include "exact.h"
#include "exp.h"

namespace {

using geodiff::GivenState;
using geodiff::kSide;
using geodiff::kTerms;
using geodiff::SubsetState;
using geodiff::SubsetStep;

constexpr int kSideVecs = kSide / kD;                                        // registers with a number of all rows
constexpr int kSideSums = kSideVecs * kTerms <= 8 ? kTerms : 8 / kSideVecs;  // sums that grow beside each other

void beside(const void* rows, DType dtype, int64_t d, const int32_t* which, int64_t count, int R, float* to) {
    constexpr int64_t kSome = 64;
    float some[kSide][kSome] = {};
    for_dtype(dtype, [&](auto t) {
        constexpr DType D = decltype(t)::value;
        for (int64_t k = 0; which && k < count; ++k) {
            for (int r = 0; r < R; ++r) to[k * kSide + r] = value<D>(rows, r * d + which[k]);
            for (int r = R; r < kSide; ++r) to[k * kSide + r] = 0;
        }
        if (which) return;
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

// The largest logit of a posterior becomes that of `top`.
GEODIFF_BLOCK void raise_to(const VecD& top, int64_t k, int64_t numbers, const SubsetState& to) {
    double max = to.max[k];
    for (int lane = 0; lane < kD; ++lane) max = top[lane] > max ? top[lane] : max;
    const double scale = exp_of(to.max[k] - max - VecD{})[0];
    to.max[k] = max, to.mass[k] *= scale;
    for (int64_t s = k * numbers; s < (k + 1) * numbers; ++s) to.total[s] *= scale;
    for (int64_t s = k * numbers; to.square && s < (k + 1) * numbers; ++s) to.square[s] *= scale;
}

// Whether a logit counts: not as l > max - cut, for from 2^53 cut on max - cut is max, which is not above itself.
GEODIFF_INLINE bool within(VecD l, double max, double cut) { return any_above(l - max, -cut - VecD{}); }

template <bool SQUARES>
void add_to_posteriors(const double* q, int64_t count, int64_t numbers, const float* v, const int32_t* place,
                       const double* prior, double scale, double cut, const SubsetState& to) {
    VecD priors[kSideVecs];
    GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) priors[j] = load<VecD>(prior + j * kD);
    for (int64_t k = 0; k < count; ++k) {
        VecD w[kSideVecs], top;
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
            w[j] = priors[j] - scale * load<VecD>(q + k * kSide + j * kD);
            top = j == 0 ? w[0] : larger(top, w[j]);
        }
        if (!within(top, to.max[k], cut)) continue;
        if (any_above(top, to.max[k] - VecD{})) raise_to(top, k, numbers, to);
        const VecD max = to.max[k] - VecD{};
        VecD mass = {};
        GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) mass += w[j] = exp_of(w[j] - max);
        to.mass[k] += lane_sum<VecD, double>(mass);
        for (int64_t s = k * numbers; s < (k + 1) * numbers; ++s) {
            const float* const values = v + (place ? place[s] : s) * kSide;
            VecD total = {}, square = {};
            GEODIFF_UNROLL for (int j = 0; j < kSideVecs; ++j) {
                const VecD c = as_doubles(load<HalfF>(values + j * kD)), wc = w[j] * c;
                total += wc;
                if (SQUARES) square += wc * c;
            }
            to.total[s] += lane_sum<VecD, double>(total);
            if (SQUARES) to.square[s] += lane_sum<VecD, double>(square);
        }
    }
}

void subset_posterior(const double* q, int64_t count, int64_t numbers, const float* v, const int32_t* place,
                      const double* prior, double scale, double cut, const SubsetState& to) {
    (to.square ? add_to_posteriors<true> : add_to_posteriors<false>)(q, count, numbers, v, place, prior, scale, cut,
                                                                     to);
}

// f(where `kD` numbers of a list of `count` lie, from which one on); beyond its end they are `fill`.
template <class F>
GEODIFF_INLINE void each_register(const double* list, int64_t count, double fill, F&& f) {
    int64_t i = 0;
    for (; i + kD <= count; i += kD) f(load<VecD>(list + i), i);
    if (i == count) return;
    VecD last = fill - VecD{};
    for (int lane = 0; i + lane < count; ++lane) last[lane] = list[i + lane];
    f(last, i);
}

// Adds the weights, which `mass` takes, null: which have been added, and CHANNELS of their values.
template <int CHANNELS>
int64_t add_given(const double* logits, const double* values, int64_t count, double cut, double max, double* mass,
                  double* total) {
    VecD sum = {}, sums[CHANNELS] = {};
    int64_t weighed = 0;
    each_register(logits, count, -HUGE_VAL, [&](VecD l, int64_t i) GEODIFF_INLINE_LAMBDA {
        if (!within(l, max, cut)) return;
        const VecD w = exp_of(l - max);
        const int64_t lanes = count - i < kD ? count - i : int64_t(kD);
        weighed += lanes;
        sum += w;
        GEODIFF_UNROLL for (int c = 0; c < CHANNELS; ++c) {
            VecD v = {};
            if (lanes == kD)
                v = load<VecD>(values + c * count + i);
            else
                for (int64_t lane = 0; lane < lanes; ++lane) v[lane] = values[c * count + i + lane];
            sums[c] += w * v;
        }
    });
    if (mass) *mass += lane_sum<VecD, double>(sum);
    for (int c = 0; c < CHANNELS; ++c) total[c] += lane_sum<VecD, double>(sums[c]);
    return weighed;
}

int64_t given(const double* logits, const double* values, int64_t count, int64_t channels, double cut,
              const GivenState& to) {
    VecD top = -HUGE_VAL - VecD{};
    each_register(logits, count, -HUGE_VAL, [&](VecD l, int64_t) GEODIFF_INLINE_LAMBDA { top = larger(top, l); });
    if (!within(top, *to.max, cut)) return 0;
    if (any_above(top, *to.max - VecD{})) {
        double max = *to.max;
        for (int lane = 0; lane < kD; ++lane) max = top[lane] > max ? top[lane] : max;
        const double scale = exp_of(*to.max - max - VecD{})[0];
        *to.max = max, *to.mass *= scale;
        for (int64_t c = 0; c < channels; ++c) to.total[c] *= scale;
    }
    if (channels == 3) return add_given<3>(logits, values, count, cut, *to.max, to.mass, to.total);
    int64_t weighed = 0;
    for (int64_t c = 0; c < channels; ++c)
        weighed =
            add_given<1>(logits, values + c * count, count, cut, *to.max, c == 0 ? to.mass : nullptr, to.total + c);
    return weighed;
}

inline geodiff::SubsetLoops subset_loops() {
    return {beside, subset_differences, subset_sums, subset_posterior, given};
}

}  // namespace
