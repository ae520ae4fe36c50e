// Screening: one pass with coarse logits hands the few rows per query that may matter to `refine`.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../products/logits.h"
#include "../request.h"
#include "../runtime/parallel.h"
#include "memory.h"

namespace geodiff {

struct Unanswered {
    std::vector<int64_t> blurred;  // too many candidates because the logits' error is wide: finer logits may help
    std::vector<int64_t> crowded;  // too many candidates because that many rows matter
};

// How much more than it needs a list may have: rows up to `width` below the largest logit, if that makes no more than
// `room`.
struct Wider {
    double width = 0;
    int64_t room = 0;
};

// For every query the rows that may lie less than `cut` below its largest logit. All others are `margin` below or more.
struct Found {
    std::vector<int64_t> queries;
    std::vector<std::vector<int64_t>> lists;  // as `queries`
    std::vector<double> margins;              // as `queries`
    Unanswered open;

    void append(Found&& other);
};

Found find(const Request& request, const std::vector<int64_t>& which, double cut, Precision precision,
           const Wider& wider = {});

// Answers the queries whose list can be had, which `memory` keeps if it is given; returns the others.
Unanswered screen(const Request& request, const std::vector<int64_t>& which, Precision precision, Answer& answer,
                  Memory* memory);

// Calls each(query, rows) for every query whose list can be had, on several threads, rows in rising order; returns the
// queries for which it cannot.
template <class Each>
std::vector<int64_t> over_lists(const Request& request, std::vector<int64_t> which, double cut, Each&& each) {
    std::vector<int64_t> crowded;
    for (const Precision precision : {Precision::coarse, Precision::sharp}) {
        Found found = find(request, which, cut, precision);
        one_by_one(int64_t(found.queries.size()), request.threads, [&](int64_t i) {
            std::vector<int64_t>& list = found.lists[size_t(i)];
            std::sort(list.begin(), list.end());
            each(found.queries[size_t(i)], list);
        });
        crowded.insert(crowded.end(), found.open.crowded.begin(), found.open.crowded.end());
        which = std::move(found.open.blurred);
    }
    crowded.insert(crowded.end(), which.begin(), which.end());
    return crowded;
}

}  // namespace geodiff
