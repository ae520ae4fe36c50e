#include "spread.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "../products/bounds.h"
#include "../products/digits.h"
#include "../runtime/buffer.h"
#include "../runtime/parallel.h"
#include "heavy.h"

namespace geodiff {
namespace {

constexpr int64_t kSample = 256;  // rows looked at, and fewer of few: a wrong guess costs no more than they do
constexpr int64_t kBrief = 64;    // the same where no coordinates can save digits, and of queries that wait for memory
constexpr int64_t kClear = 2;     // so many times fewer rows than screening takes: no more of them are looked at
constexpr int64_t kEvery = 32;    // one row in so many
constexpr int64_t kLeast = 32;    // with 16 of 300 rows, trajectories remembered a fifth less
constexpr double kCaution = 1.3,
                 kMoreCaution = 1.5;  // a digit too many costs a part of a pass, one too few a whole one
constexpr double kLeastRatio = 0.5;   // of what was found to what was guessed, as far as it is believed
// The largest weight of a tile, on average, over the heaviest that digits say: kOfHeaviest where nothing is known;
// where the last answer was the mean of n rows in effect, kOfFew sqrt(n), since most tiles have none of few rows, but
// kOfMany at most. Medians of 64 samples of CIFAR-10 by Heun's and Euler's method, tiles of 192 rows: n = 2, 4, 7, 10,
// 30, 110, 130, 360 and 1,800: 0.006, 0.03, 0.08, 0.10, 0.21, 0.33, 0.37, 0.42 and 0.43.
constexpr double kOfHeaviest = 0.2, kOfMany = 0.43, kOfFew = 0.033;
constexpr int64_t kFewShare = 4;   // screening costs 1/20 of a dense pass: tried unless 1/4 of the sample matters
constexpr int64_t kFewAlone = 12;  // of one query by itself it costs nearly as much as that: both wait for memory
constexpr int64_t kFewShort = 32;  // a row by itself costs what 40 in a dense pass do where rows are short

// What rounding weights to integers takes from r, times the largest of these, for the dense pass to find (bounds.h), if
// the largest weight is `largest` times the mean of all weights in every tile.
double rounding_of(const Request& request, double largest) {
    const double noise = largest / std::sqrt(6 * double(request.rows.n));
    return kDeviations * noise * std::sqrt(request.stats.mean_square);
}

// The same where the largest weights are as heavy as digits say.
double rounding_of_heaviest(const Request& request, int64_t q) {
    const double ess = request.known ? request.known->entry(q).ess : 0;
    const double part = ess > 0 ? std::min(kOfFew * std::sqrt(ess), kOfMany) : kOfHeaviest;
    return rounding_of(request, part * heaviest_left(request.rows.n));
}

// A guess is off by nearly as much as it was an evaluation before.
DenseQuery asks(const Request& request, int64_t q, double rounding, double caution, bool uneven) {
    double ratio = 1;
    if (request.known) {
        Known::Entry& entry = request.known->entry(q);
        entry.rounding_guess = rounding;
        if (entry.rounding_ratio > 0) ratio = std::max(entry.rounding_ratio, kLeastRatio);
    }
    return {q, ratio * rounding / request.expected_allowance(q), caution, uneven};
}

// Nothing where few rows matter.
std::optional<DenseQuery> judge(const Request& request, int64_t q, const double* logits, int64_t samples,
                                int64_t share) {
    const Stats& stats = request.stats;
    const double caution = samples > kBrief ? kCaution : kMoreCaution;
    Online state;
    float weights[kSample] = {};  // stand for half norms, of which nothing is asked
    double rescale;
    if (!request.kernels.softmax_f32(logits, weights, int(samples), request.cut(), &state, weights, &rescale))
        return {};  // none of them is seen
    const double sum = state.sum, squares = state.sum_2;
    int64_t within = 0;
    for (int64_t i = 0; i < samples; ++i) within += weights[i] > 0;
    if (within <= 2 || within * share <= samples) return {};
    const double allowed = request.expected_allowance(q), n = double(request.rows.n);
    DenseErrors e{};
    e.logit_noise = float_noise(kFold, request.length(q), stats.max_norm, request.sigma[q]);
    e.trace = stats.mean_square;
    e.concentration = stats.with_copies(caution * squares / (sum * sum) * double(samples) / n);
    e.weight = 1;
    const bool uneven = dense_error(e, request.sigma[q]) >= allowed;
    const double rounding = std::min(rounding_of(request, double(samples) / sum), rounding_of_heaviest(request, q));
    return asks(request, q, rounding, caution, uneven);
}

// Whether so few rows matter that a longer look would say the same.
bool clearly_few(const Request& request, const double* logits, int64_t samples, int64_t share) {
    const double least = request.kernels.vectors.largest(logits, samples) - request.cut();
    const int64_t within = std::count_if(logits, logits + samples, [=](double l) { return l > least; });
    return kClear * share * within <= samples;
}

}  // namespace

BySpread by_spread(const Request& request, const std::vector<int64_t>& which) {
    const Rows& rows = request.rows;
    const int64_t count = int64_t(which.size());
    const bool saves = request.weight_integers() && worth_shaping(rows.n, rows.d) && count > 16;
    const int64_t most = saves ? kSample : kBrief;
    const int64_t samples = std::min(rows.n, std::clamp(rows.n / kEvery, kLeast, most)), d = rows.d, dp = padded(d),
                  bytes = d * item_size(rows.dtype);
    const int64_t few = request.kernels.floats.few;
    const int64_t share = request.short_bytes() && count > few ? kFewShort : count == 1 ? kFewAlone : kFewShare;
    // Evenly apart, and so are the first `brief` of them.
    const int64_t brief = std::min(samples, kBrief), step = samples / brief;
    std::vector<int64_t> row;
    for (int64_t i = 0; i < brief; ++i) row.push_back(rows.n * (i * step) / samples);
    for (int64_t i = 0; i < samples; ++i)
        if (i % step > 0 || i / step >= brief) row.push_back(rows.n * i / samples);
    Buffer<char> sampled(samples * bytes);
    double half_norm[kSample];
    for (int64_t i = 0; i < samples; ++i) {
        half_norm[i] = request.stats.half_norm[row[size_t(i)]];
        std::memcpy(sampled.data() + i * bytes, rows.row(row[size_t(i)]), size_t(bytes));
    }
    std::vector<std::optional<DenseQuery>> found(static_cast<size_t>(count));
    in_shares((count + few - 1) / few, count * samples * d, request.threads, [&](int64_t begin, int64_t end) {
        Buffer<float> queries(few * dp, true);
        Buffer<double> logits(few * samples);
        for (int64_t start = begin * few; start < std::min(end * few, count); start += few) {
            const int64_t size = std::min(few, count - start);
            for (int64_t q = 0; q < size; ++q)
                request.kernels.vectors.narrow(request.query(which[size_t(start + q)]), d, queries.data() + q * dp);
            std::fill(logits.data(), logits.data() + size * samples, 0.0);
            const auto look = [&](int64_t first, int64_t some) {
                request.kernels.dot_few(sampled.data() + first * bytes, rows.dtype, d, int(some), queries.data(), dp,
                                        int(size), logits.data() + first, samples);
                for (int64_t q = 0; q < size; ++q) {
                    const int64_t query = which[size_t(start + q)];
                    const double sigma = request.sigma[query];
                    double* l = logits.data() + q * samples;
                    request.kernels.to_logits(half_norm + first, 1 / (sigma * sigma), nullptr, int(some), l + first);
                    if (request.log_prior || request.exclude)
                        for (int64_t i = first; i < first + some; ++i) l[i] += request.prior_at(query, row[size_t(i)]);
                }
            };
            look(0, brief);
            bool longer = false;
            for (int64_t q = 0; q < size && brief < samples && !longer; ++q)
                longer = !clearly_few(request, logits.data() + q * samples, brief, share);
            if (longer) look(brief, samples - brief);
            const int64_t looked = longer ? samples : brief;
            for (int64_t q = 0; q < size; ++q)
                found[size_t(start + q)] =
                    judge(request, which[size_t(start + q)], logits.data() + q * samples, looked, share);
        }
    });
    BySpread out;
    for (int64_t i = 0; i < count; ++i) {
        if (found[size_t(i)])
            out.even.push_back(*found[size_t(i)]);
        else
            out.few.push_back(which[size_t(i)]);
    }
    return out;
}

DenseQuery crowded(const Request& request, int64_t q) {
    return asks(request, q, rounding_of_heaviest(request, q), kCaution, true);
}

ByUnits by_units(const std::vector<DenseQuery>& even, double factor) {
    ByUnits out;
    for (const DenseQuery& e : even) {
        const double units = factor * e.caution * e.units;
        auto& same = units < largest_unsigned(8, 1) ? out.most : units < largest_unsigned(16, 1) ? out.many : out.some;
        same.push_back(e.query);
    }
    return out;
}

}  // namespace geodiff
