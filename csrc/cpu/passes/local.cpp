#include "local.h"

#include "local_images.h"
#include "local_pixels.h"
#include "local_rounding.h"
#include "plan.h"

namespace geodiff {
namespace {

constexpr int64_t kSumBytes = 32 << 20;                   // of the sums of a block of queries
constexpr int64_t kMostQueries = 64;                      // of a block
constexpr double kFloatTol = 1e-6;                        // from which on float32 may do
constexpr double kLeastFloat = 1e-12, kMostFloat = 1e12;  // of |x_i|, of which float32 holds squares and their sums
constexpr double kMostLogit = 1e37;                       // that it holds
constexpr double kHalfUlp = 0x1p-24;
constexpr double kDoubt = 4;        // times what float32 errs by as a rule: csrc/cpu/README.md, "Local denoisers"
constexpr double kMostNats = 1;     // of a logit, from which on the weights of float32 say nothing of the true ones
constexpr double kCropAverage = 3;  // by which the errors of a pixel's crops average out, at most

// What errors of logits move a pixel by, for a spread of one: to first order, and by as much more as weights may be off
// from the true ones, whose spread counts.
struct Moved {
    double by;
    bool lost;  // whether a row that ties with the nearest may have next to no weight

    Moved(const LogitErrors& errors, double few) {
        const double nats = kDoubt * kHalfUlp * errors.tied;
        by = (errors.own * few + errors.shared) * std::exp(std::min(nats, kMostNats));
        lost = !(nats <= kMostNats);
    }
};

template <class T>
class LocalPass {
  public:
    typedef typename LocalImagesOf<T>::Asked Asked;

    LocalPass(const Request& request, const Local& local, const LocalAnswer& out)
        : request_(request), local_(local), out_(out), images_(request, local, out.variance), pixels_(local.pixels()) {
        rows_ = double(request.rows.n) * (local.mirrored ? 2 : 1);
        // All n rows left out move a pixel by n e^-cut 2 max|x_i| at most: tol/50 of max|x_i| / 100, the least that
        // contract 1 divides by.
        cut_ = std::log(rows_ * 2 * 50 * 100 / request.tol);
    }

    int64_t block() const { return std::clamp<int64_t>(kSumBytes / images_.query_bytes(), 1, kMostQueries); }

    // Answers queries; those that this precision cannot hold to the contract are added to `missed`.
    void answer(const int64_t* which, int64_t count, std::vector<int64_t>& missed) const {
        std::vector<Asked> asked;
        for (int64_t i = 0; i < count; ++i) asked.push_back(images_.prepared(which[i], false));
        if (local_.mirrored)
            for (int64_t i = 0; i < count; ++i) asked.push_back(images_.prepared(which[i], true));
        const auto shares = images_.sums(asked, cut_);
        if (local_.crops) return compose(asked, shares, missed);
        std::vector<Gathered> all(static_cast<size_t>(count));
        std::vector<std::vector<int64_t>> doubtful(static_cast<size_t>(count));
        one_by_one(count, request_.threads, [&](int64_t i) {
            all[size_t(i)] = images_.joined(shares, i, count);
            const Spread spread = write(asked[size_t(i)], all[size_t(i)]);
            if (sizeof(T) == sizeof(float)) doubtful[size_t(i)] = doubtful_of(asked[size_t(i)], all[size_t(i)], spread);
        });
        settle(asked, doubtful, missed);
    }

  private:
    // What the errors of an answer depend on, at each pixel.
    struct Spread {
        std::vector<double> square, trace, ess, allowed;  // E|c|^2, of which trace is about the mean

        explicit Spread(int64_t pixels)
            : square(size_t(pixels)), trace(size_t(pixels)), ess(size_t(pixels)), allowed(size_t(pixels)) {}
    };

    // Writes r of a pixel, whose sums are sum(plane), and what its errors depend on.
    template <class Sum>
    void write_mean(int64_t q, int64_t p, Sum&& sum, Spread& spread) const {
        const size_t i = size_t(p);
        const double mass = sum(kWeight), shift = request_.stats.shift;
        double off_reference = 0, model = 0, mean_row = 0;
        for (int64_t c = 0; c < shape().channels; ++c) {
            const int64_t k = local_.value(c, p);
            const double mean = sum(kMean + c) / mass, r = mean + images_.reference(c, p);
            off_reference += mean * mean;
            model += (r + shift) * (r + shift);
            mean_row += (local_.mean[k] + shift) * (local_.mean[k] + shift);
            out_.mean[q * request_.rows.d + k] = r;
        }
        spread.square[i] = sum(kNorm) / mass;
        spread.trace[i] = std::max(0.0, spread.square[i] - off_reference);
        // max|x_i| is at least the root mean square under any weights.
        spread.allowed[i] =
            request_.tol * std::sqrt(std::max(model, 1e-4 * std::max(mean_row, model + spread.trace[i])));
    }

    Spread write(const Asked& asked, const Gathered& all) const {
        const int64_t q = asked.query;
        const double scale = 0.5 / (request_.sigma[q] * request_.sigma[q]);
        const std::vector<double> left_out = images_.left_out(asked);
        Spread spread(pixels_);
        for (int64_t p = 0; p < pixels_; ++p) {
            const auto sum = [&](int64_t k) { return all.sums[size_t(k * pixels_ + p)]; };
            const size_t i = size_t(p);
            const int64_t at = q * pixels_ + p;
            write_mean(q, p, sum, spread);
            for (int64_t c = 0; out_.variance && c < shape().channels; ++c) {
                const double mean = sum(kMean + c) / sum(kWeight);
                out_.variance[q * request_.rows.d + local_.value(c, p)] =
                    std::max(0.0, sum(kMean + shape().channels + c) / sum(kWeight) - mean * mean);
            }
            spread.ess[i] = sum(kWeight) * sum(kWeight) / sum(kSquare);
            if (out_.ess) out_.ess[at] = spread.ess[i];
            if (out_.log_sum) out_.log_sum[at] = all.max[i] + std::log(sum(kWeight)) - scale * left_out[i];
            if (out_.top) out_.top[at] = all.top[i];
        }
        out_.path[q] = int8_t(sizeof(T) == sizeof(float) ? Path::dense : Path::exact);
        return spread;
    }

    // The pixels that float32 does not hold to the contract for certain.
    std::vector<int64_t> doubtful_of(const Asked& asked, const Gathered& all, const Spread& spread) const {
        LogitRounding<T> rounding(request_, local_, images_, asked, all, spread.square, spread.trace);
        std::vector<int64_t> pixels = numbers_from(0, pixels_);
        for (const bool looked : {false, true}) {
            if (looked) rounding.look(pixels);
            std::vector<int64_t> doubtful;
            for (const int64_t p : pixels) {
                const size_t i = size_t(p);
                const double few = std::min(1.0, std::sqrt(2 / spread.ess[i]));
                const Moved moved(rounding.at(p), few);
                const double sums = 2 * std::sqrt(spread.square[i]) * few;
                const double off = kDoubt * kHalfUlp * (std::sqrt(spread.trace[i]) * moved.by + sums);
                if (moved.lost || !(off <= spread.allowed[i])) doubtful.push_back(p);
            }
            pixels = std::move(doubtful);
        }
        return pixels;
    }

    // The second pass of crops, whose masses are known.
    void compose(const std::vector<Asked>& asked,
                 const std::vector<std::vector<typename LocalImagesOf<T>::Sums>>& shares,
                 std::vector<int64_t>& missed) const {
        const int64_t count = int64_t(asked.size());
        std::vector<Gathered> masses(asked.size());
        std::vector<Buffer<T>> max, gain;
        for (int64_t i = 0; i < count; ++i) {
            max.emplace_back(shape().plane());
            gain.emplace_back(shape().plane(), true);
        }
        one_by_one(count, request_.threads, [&](int64_t i) {
            const size_t at = size_t(i);
            masses[at] = images_.joined(shares, i, count);
            std::fill_n(max[at].data(), shape().plane(), std::numeric_limits<T>::max());
            each_crop(asked[at], [&](int64_t p) {
                max[at][images_.place(p)] = T(masses[at].max[size_t(p)]);
                gain[at][images_.place(p)] = T(1 / masses[at].sums[size_t(p)]);
            });
        });
        const std::vector<Buffer<double>> sums = images_.composed(asked, max, gain, cut_);
        std::vector<std::vector<int64_t>> doubtful(asked.size());
        one_by_one(count, request_.threads, [&](int64_t i) {
            doubtful[size_t(i)] = write_composed(asked[size_t(i)], masses[size_t(i)], sums[size_t(i)]);
        });
        settle(asked, doubtful, missed);
    }

    template <class F>
    void each_crop(const Asked& asked, F&& f) const {
        const int64_t more = asked.ready.window.below;
        for (int64_t y = 0; y + more < local_.height; ++y)
            for (int64_t x = 0; x + more < local_.width; ++x) f(y * local_.width + x);
    }

    // Writes the mean. The pixels that float32 does not hold to the contract for certain, in the terms of
    // `doubtful_of`.
    std::vector<int64_t> write_composed(const Asked& asked, const Gathered& masses, const Buffer<double>& sums) const {
        const int64_t q = asked.query;
        Spread spread(pixels_);
        for (int64_t p = 0; p < pixels_; ++p)
            write_mean(q, p, [&](int64_t k) { return sums[k * shape().plane() + images_.place(p)]; }, spread);
        out_.path[q] = int8_t(sizeof(T) == sizeof(float) ? Path::dense : Path::exact);
        if (sizeof(T) != sizeof(float)) return {};
        LogitRounding<T> rounding(request_, local_, images_, asked, masses, spread.square, spread.trace);
        std::vector<int64_t> begins;
        each_crop(asked, [&](int64_t p) { begins.push_back(p); });
        std::vector<int64_t> pixels = doubtful_of_crops(asked, masses, rounding, spread);
        if (pixels.empty()) return pixels;
        rounding.look(begins);
        return doubtful_of_crops(asked, masses, rounding, spread);
    }

    // A pixel is the mean of its crops, whose errors average out in part.
    std::vector<int64_t> doubtful_of_crops(const Asked& asked, const Gathered& masses, const LogitRounding<T>& rounding,
                                           const Spread& spread) const {
        const Window back = asked.ready.window.back();
        std::vector<double> errors(size_t(pixels_), 0.0), few(errors), crops(errors), lost(errors);
        each_crop(asked, [&](int64_t p) {
            const double mass = masses.sums[size_t(p)], ess = mass * mass / masses.sums[size_t(pixels_ + p)];
            few[size_t(p)] = std::min(1.0, std::sqrt(2 / ess));
            const Moved of_crop(rounding.at(p), few[size_t(p)]);
            errors[size_t(p)] = of_crop.by;
            lost[size_t(p)] = of_crop.lost;
            crops[size_t(p)] = 1;
        });
        for (std::vector<double>* each : {&errors, &few, &crops, &lost})
            *each = windows(*each, local_.height, local_.width, back);
        std::vector<int64_t> doubtful;
        for (size_t p = 0; p < size_t(pixels_); ++p) {
            const double moved = std::sqrt(spread.trace[p]) * errors[p] + 2 * std::sqrt(spread.square[p]) * few[p];
            const double averaged = moved / crops[p] / std::min(kCropAverage, std::sqrt(crops[p]));
            if (lost[p] > 0.5 || !(kDoubt * kHalfUlp * averaged <= spread.allowed[p])) doubtful.push_back(int64_t(p));
        }
        return doubtful;
    }

    // Answers doubtful pixels in float64, where they are few; queries of many are missed.
    void settle(const std::vector<Asked>& asked, std::vector<std::vector<int64_t>>& doubtful,
                std::vector<int64_t>& missed) const {
        std::vector<PixelsOf> again;
        for (size_t i = 0; i < doubtful.size(); ++i) {
            const int64_t q = asked[i].query, count = int64_t(doubtful[i].size());
            if (count == 0) continue;
            if (few_pixels(local_, q, count))
                again.push_back({q, std::move(doubtful[i])});
            else
                missed.push_back(q);
        }
        local_at_pixels(request_, local_, again, out_);
    }

    const PlaneShape& shape() const { return images_.shape(); }

    const Request& request_;
    const Local& local_;
    const LocalAnswer& out_;
    const LocalImagesOf<T> images_;
    const int64_t pixels_;
    double cut_, rows_;  // rows: images, mirror images among them
};

template <class T>
std::vector<int64_t> in_blocks(const Request& request, const Local& local, const std::vector<int64_t>& which,
                               const LocalAnswer& answer) {
    const LocalPass<T> pass(request, local, answer);
    std::vector<int64_t> missed;
    const int64_t block = pass.block();
    for (size_t base = 0; base < which.size(); base += size_t(block))
        pass.answer(which.data() + base, std::min(block, int64_t(which.size() - base)), missed);
    return missed;
}

}  // namespace

void local_posterior(const Request& request, const Local& local, const LocalAnswer& answer) {
    std::vector<int64_t> single, all;
    for (int64_t q = 0; q < request.batch; ++q) {
        double reach = request.stats.scale.max_norm;
        for (int64_t k = 0; k < request.rows.d; ++k) reach = std::max(reach, std::fabs(request.query(q)[k]));
        const double logit = 2 * reach * reach * double(request.rows.d) / (request.sigma[q] * request.sigma[q]);
        const bool held = request.stats.scale.max_norm > kLeastFloat && reach < kMostFloat && logit < kMostLogit;
        (request.tol >= kFloatTol && held ? single : all).push_back(q);
    }
    if (!single.empty())
        for (const int64_t q : in_blocks<float>(request, local, single, answer)) all.push_back(q);
    if (!all.empty()) in_blocks<double>(request, local, all, answer);
}

}  // namespace geodiff
