#include "spread.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bounds.h"
#include "buffer.h"
#include "digits.h"
#include "parallel.h"

namespace geodiff {
namespace {

constexpr int64_t kSample = 64;   // rows looked at
constexpr double kCaution = 1.5;  // a digit too many costs a sixth of a pass, one too few a whole one
constexpr int64_t kFewShare = 4;  // screening costs 1/20 of a dense pass: tried unless 1/4 of the sample matters

Spread judge(const Rows& rows, const Stats& stats, const Request& request, const double* logits, int64_t samples) {
    double top = -1e308, sum = 0;
    for (int64_t i = 0; i < samples; ++i) top = std::max(top, logits[i]);
    const double window = cutoff(stats, rows.n, request.tol);
    int64_t within = 0;
    for (int64_t i = 0; i < samples; ++i) {
        within += logits[i] >= top - window;
        sum += std::exp(logits[i] - top);
    }
    if (within <= 2 || within * kFewShare <= samples) return Spread::few;
    // What the dense pass will find for the rounding of two-digit weights (bounds.h), if the largest weight of a tile
    // is that of the sample, the weights average as the sample's do, and r is not shorter than the mean of the data.
    const double quantum = 1 / kTwoUnsigned, average = sum / double(samples);
    const double noise = quantum / average / std::sqrt(6 * double(rows.n));
    const double error = kDeviations * noise * std::sqrt(stats.mean_square);
    return kCaution * error < request.tol * std::max(stats.mean_norm, least_scale(stats)) ? Spread::many : Spread::some;
}

}  // namespace

std::vector<Spread> guess_spread(const Kernels& kernels, const Rows& rows, const Stats& stats, const Request& request,
                                 int64_t first, int64_t count) {
    const int64_t samples = std::min(kSample, rows.n), d = rows.d, dp = padded(d), bytes = d * item_size(rows.dtype);
    Buffer<char> sampled(samples * bytes);
    int64_t row[kSample];
    for (int64_t i = 0; i < samples; ++i) {
        row[i] = rows.n * i / samples;
        std::memcpy(sampled.data() + i * bytes, rows.row(row[i]), size_t(bytes));
    }
    std::vector<Spread> spread(static_cast<size_t>(count));
    const int64_t groups = (count + kFewVectors - 1) / kFewVectors;
    const int threads = int(std::min<int64_t>(request.threads, std::max<int64_t>(1, count * samples * d >> 18)));
    parallel(threads, [&](int t) {
        Buffer<float> queries(kFewVectors * dp, true);
        double logits[kFewVectors * kSample];
        const Range mine = share(groups, 1, t, threads);
        for (int64_t start = mine.begin * kFewVectors; start < std::min(mine.end * kFewVectors, count);
             start += kFewVectors) {
            const int64_t size = std::min<int64_t>(kFewVectors, count - start);
            for (int64_t q = 0; q < size; ++q)
                for (int64_t k = 0; k < d; ++k) queries[q * dp + k] = float(request.x[(first + start + q) * d + k]);
            std::fill(logits, logits + kFewVectors * kSample, 0.0);
            kernels.dot_few(sampled.data(), rows.dtype, d, int(samples), queries.data(), dp, int(size), logits,
                            kSample);
            for (int64_t q = 0; q < size; ++q) {
                const int64_t query = first + start + q;
                const double sigma = request.sigma[query];
                double* l = logits + q * kSample;
                for (int64_t i = 0; i < samples; ++i)
                    l[i] = (l[i] - stats.half_norm[row[i]]) / (sigma * sigma) + request.bias_at(query, row[i]);
                spread[size_t(start + q)] = judge(rows, stats, request, l, samples);
            }
        }
    });
    return spread;
}

}  // namespace geodiff
