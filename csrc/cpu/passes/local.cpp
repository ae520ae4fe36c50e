#include "local.h"

#include "local_images.h"

namespace geodiff {
namespace {

constexpr int64_t kSumBytes = 32 << 20;                   // of the sums of a block of queries
constexpr int64_t kMostQueries = 64;                      // of a block
constexpr double kFloatTol = 1e-6;                        // from which on float32 may do
constexpr double kLeastFloat = 1e-12, kMostFloat = 1e12;  // of |x_i|, of which float32 holds squares and their sums
constexpr double kMostLogit = 1e37;                       // that it holds
constexpr double kHalfUlp = 0x1p-24;
constexpr double kDoubt = 4;                          // times what float32 errs by as a rule: measured, at most 1.9
constexpr double kCropDoubt = 2.5, kCropAverage = 3;  // the same for crops, whose errors average out: at most 1.3
constexpr int64_t kMostExact = 1 << 16;  // logits of a query made exact in each piece's turn; else float64 throughout

// Windows' sums in float64, [height, width] to the same.
std::vector<double> windows(const std::vector<double>& values, int64_t height, int64_t width, const Window& w) {
    std::vector<double> rows(values.size(), 0.0), sums(values.size(), 0.0);
    const auto add = [&](const std::vector<double>& from, std::vector<double>& to, int64_t y, int64_t x, int64_t dy,
                         int64_t dx) {
        int64_t v = y + dy, u = x + dx;
        if (w.wraps) v = (v + height) % height, u = (u + width) % width;
        if (v >= 0 && v < height && u >= 0 && u < width) to[size_t(y * width + x)] += from[size_t(v * width + u)];
    };
    for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
            for (int64_t dy = -w.above; dy <= w.below; ++dy) add(values, rows, y, x, dy, 0);
    for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
            for (int64_t dx = -w.left; dx <= w.right; ++dx) add(rows, sums, y, x, 0, dx);
    return sums;
}

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
        std::vector<Doubt> doubts(static_cast<size_t>(count));
        one_by_one(count, request_.threads, [&](int64_t i) {
            all[size_t(i)] = images_.joined(shares, i, count);
            doubts[size_t(i)] = write(asked[size_t(i)], all[size_t(i)]);
        });
        if constexpr (sizeof(T) == sizeof(float)) settle(asked, all, doubts, missed);
    }

  private:
    // What a query's images have in common at each pixel, and was left out of its logits.
    std::vector<double> common(const Asked& asked) const {
        std::vector<double> norms(size_t(pixels_), 0.0);
        images_.each_value([&](int64_t c, int64_t p) {
            const double y = images_.x(asked.query, asked.mirrored, c, p) - images_.reference(c, p);
            norms[size_t(p)] += y * y;
        });
        return windows(norms, local_.height, local_.width, asked.ready.window);
    }

    // What float32 leaves in doubt of a query. least: where it does, the logit from which on logits must be exact,
    // elsewhere infinity. beyond: exact logits would not do.
    struct Doubt {
        std::vector<double> least;
        bool any, beyond;
    };

    // Writes the answer.
    Doubt write(const Asked& asked, const Gathered& all) const {
        const int64_t q = asked.query;
        const double scale = 0.5 / (request_.sigma[q] * request_.sigma[q]);
        const std::vector<double> norms = common(asked);
        std::vector<double> spread(size_t(pixels_), 0.0);
        Doubt doubt{std::vector<double>(size_t(pixels_), HUGE_VAL), false, false};
        for (int64_t p = 0; p < pixels_; ++p)
            spread[size_t(p)] = all.sums[size_t(kNorm * pixels_ + p)] / all.sums[size_t(p)];
        const std::vector<double> around = windows(spread, local_.height, local_.width, asked.ready.window);
        const double terms = double(shape().channels * asked.ready.window.rows() * asked.ready.window.columns());
        for (int64_t p = 0; p < pixels_; ++p) {
            const auto sum = [&](int64_t k) { return all.sums[size_t(k * pixels_ + p)]; };
            const int64_t at = q * pixels_ + p;
            const double mass = sum(kWeight);
            double off_reference = 0, model = 0, mean_row = 0;
            for (int64_t c = 0; c < shape().channels; ++c) {
                const int64_t k = local_.value(c, p);
                const double mean = sum(kMean + c) / mass, r = mean + images_.reference(c, p);
                off_reference += mean * mean;
                model += (r + request_.stats.shift) * (r + request_.stats.shift);
                mean_row += (local_.mean[k] + request_.stats.shift) * (local_.mean[k] + request_.stats.shift);
                out_.mean[q * request_.rows.d + k] = r;
                if (out_.variance)
                    out_.variance[q * request_.rows.d + k] =
                        std::max(0.0, sum(kMean + shape().channels + c) / mass - mean * mean);
            }
            const double trace = std::max(0.0, spread[size_t(p)] - off_reference), ess = mass * mass / sum(kSquare);
            const double left_out = asked.ready.centred ? scale * norms[size_t(p)] : 0;
            if (out_.ess) out_.ess[at] = ess;
            if (out_.log_sum) out_.log_sum[at] = all.max[size_t(p)] + std::log(mass) - left_out;
            if (out_.top) out_.top[at] = all.top[size_t(p)];
            if (sizeof(T) != sizeof(float)) continue;

            // Rounding errors of logits in units of half an ulp: those of the sums, which differ from row to row, and
            // those of the query, which rows share.
            const double a = scale * around[size_t(p)], b = scale * norms[size_t(p)];
            const double top = request_.prior_at(q, all.top[size_t(p)] % local_.copies);
            const double own = 4 + (asked.ready.centred ? a : std::max(0.0, top - all.max[size_t(p)]));
            const double shared = asked.ready.centred ? 2 * std::sqrt(a * b / terms) : 2 * std::sqrt(own * a / terms);
            const double few = std::min(1.0, std::sqrt(2 / ess));
            const double sums = 2 * std::sqrt(spread[size_t(p)]) * few, together = std::sqrt(trace) * shared;
            const double alone = std::sqrt(trace) * own * few + sums;
            // max|x_i| is at least the root mean square under any weights.
            const double allowed = request_.tol * std::sqrt(std::max(model, 1e-4 * std::max(mean_row, model + trace)));
            const double unit = kDoubt * kHalfUlp / allowed, times = unit * (alone + together);
            if (!(times > 1)) continue;
            // What the sums were rounded by stays, whatever logits they were made of.
            doubt.beyond |= 2 * unit * sums > 1;
            // What rows of weight w and less are off by on their own goes with the root of w: half of what is allowed.
            // What they share goes with all their weight, n w at most: a quarter.
            const double by_root = few * few / (4 * times * times), by_weight = 1 / (4 * unit * together * rows_);
            doubt.least[size_t(p)] = all.max[size_t(p)] + std::log(mass * std::min(by_root, by_weight));
            doubt.any = true;
        }
        out_.path[q] = int8_t(sizeof(T) == sizeof(float) ? Path::dense : Path::exact);
        return doubt;
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
        std::vector<int8_t> good(asked.size(), 1);
        one_by_one(count, request_.threads, [&](int64_t i) {
            good[size_t(i)] = write_composed(asked[size_t(i)], masses[size_t(i)], sums[size_t(i)]);
        });
        for (int64_t i = 0; i < count; ++i)
            if (!good[size_t(i)]) missed.push_back(asked[size_t(i)].query);
    }

    template <class F>
    void each_crop(const Asked& asked, F&& f) const {
        const int64_t more = asked.ready.window.below;
        for (int64_t y = 0; y + more < local_.height; ++y)
            for (int64_t x = 0; x + more < local_.width; ++x) f(y * local_.width + x);
    }

    // Writes the mean, and says whether float32 holds it to the contract, in the terms of `write`.
    bool write_composed(const Asked& asked, const Gathered& masses, const Buffer<double>& sums) const {
        const Window& window = asked.ready.window;
        const int64_t q = asked.query;
        const double scale = 0.5 / (request_.sigma[q] * request_.sigma[q]);
        std::vector<double> spread(size_t(pixels_), 0.0), errors(spread), few(spread), crops(spread);
        const auto sum = [&](int64_t k, int64_t p) { return sums[k * shape().plane() + images_.place(p)]; };
        for (int64_t p = 0; p < pixels_; ++p) spread[size_t(p)] = sum(kNorm, p) / sum(kWeight, p);
        const std::vector<double> around = windows(spread, local_.height, local_.width, window), norms = common(asked);
        const double terms = double(shape().channels * window.rows() * window.columns());
        each_crop(asked, [&](int64_t p) {
            const double mass = masses.sums[size_t(p)], ess = mass * mass / masses.sums[size_t(pixels_ + p)];
            const double a = scale * around[size_t(p)], b = scale * norms[size_t(p)];
            const double top = request_.prior_at(q, masses.top[size_t(p)]) - masses.max[size_t(p)];
            const double own = 4 + (asked.ready.centred ? a : std::max(0.0, top));
            const double shared = asked.ready.centred ? 2 * std::sqrt(a * b / terms) : 2 * std::sqrt(own * a / terms);
            few[size_t(p)] = std::min(1.0, std::sqrt(2 / ess));
            errors[size_t(p)] = own * few[size_t(p)] + shared;
            crops[size_t(p)] = 1;
        });
        const Window back{window.below, 0, window.right, 0, false};
        errors = windows(errors, local_.height, local_.width, back);
        few = windows(few, local_.height, local_.width, back);
        crops = windows(crops, local_.height, local_.width, back);
        bool good = true;
        for (int64_t p = 0; p < pixels_; ++p) {
            double off_reference = 0, model = 0;
            for (int64_t c = 0; c < shape().channels; ++c) {
                const double mean = sum(kMean + c, p) / sum(kWeight, p), r = mean + images_.reference(c, p);
                off_reference += mean * mean;
                model += (r + request_.stats.shift) * (r + request_.stats.shift);
                out_.mean[q * request_.rows.d + local_.value(c, p)] = r;
            }
            const double trace = std::max(0.0, spread[size_t(p)] - off_reference), many = crops[size_t(p)];
            const double moved =
                std::sqrt(trace) * errors[size_t(p)] + 2 * std::sqrt(spread[size_t(p)]) * few[size_t(p)];
            const double each = kCropDoubt * kHalfUlp * moved / many,
                         averaged = each / std::min(kCropAverage, std::sqrt(many));
            const double allowed = request_.tol * std::sqrt(std::max(model, 1e-4 * (model + trace)));
            if (sizeof(T) == sizeof(float)) good &= averaged <= allowed;
        }
        out_.path[q] = int8_t(sizeof(T) == sizeof(float) ? Path::dense : Path::exact);
        return good;
    }

    // Puts exact logits in the place of the largest ones, where the others' errors keep the contract.
    void settle(const std::vector<Asked>& asked, std::vector<Gathered>& all, const std::vector<Doubt>& doubts,
                std::vector<int64_t>& missed) const {
        const int64_t count = int64_t(all.size());
        std::vector<Asked> again;
        std::vector<int64_t> which;  // of `again`
        std::vector<Buffer<T>> bounds;
        std::vector<int8_t> lost(all.size(), 0);
        for (int64_t i = 0; i < count; ++i) lost[size_t(i)] = doubts[size_t(i)].beyond;
        for (size_t i = 0; i < asked.size(); ++i) {
            const Doubt& doubt = doubts[i % size_t(count)];
            if (!doubt.any || doubt.beyond) continue;
            const std::vector<double>& from = doubt.least;
            again.push_back(images_.prepared(asked[i].query, asked[i].mirrored));
            which.push_back(int64_t(i) % count);
            bounds.emplace_back(shape().plane());
            std::fill_n(bounds.back().data(), shape().plane(), std::numeric_limits<T>::max());
            for (int64_t p = 0; p < pixels_; ++p)
                if (const int64_t to = asked[i].mirrored ? local_.mirrored_pixel(p) : p; from[size_t(p)] < HUGE_VAL)
                    bounds.back()[images_.place(to)] = T(from[size_t(p)]);
        }
        std::vector<int64_t> found;
        std::vector<Doubtful> logits;
        if (!again.empty()) logits = images_.above(again, bounds, kMostExact, found);
        std::vector<std::vector<Doubtful>> of(all.size());
        for (const Doubtful& d : logits) of[size_t(which[size_t(d.asked)])].push_back(d);
        for (size_t i = 0; i < again.size(); ++i) lost[size_t(which[i])] |= found[i] > kMostExact;
        one_by_one(count, request_.threads, [&](int64_t i) {
            if (!doubts[size_t(i)].any || lost[size_t(i)]) return;
            make_exact(again, of[size_t(i)], all[size_t(i)]);
            write(asked[size_t(i)], all[size_t(i)]);
        });
        for (int64_t i = 0; i < count; ++i)
            if (lost[size_t(i)]) missed.push_back(asked[size_t(i)].query);
    }

    void make_exact(const std::vector<Asked>& again, const std::vector<Doubtful>& logits, Gathered& all) const {
        const Request& r = request_;
        const LocalImagesOf<double> exact(r, local_, false);
        const LocalLoops<double>& loops = local_loops<double>(r.kernels);
        const PlaneShape& s = exact.shape();
        Buffer<double> image(s.image()), y, zero(s.channels * s.plane(), true);
        std::vector<double> norms;
        int64_t row = -1, last = -1;
        for (const Doubtful& d : logits) {
            const Asked& asked = again[size_t(d.asked)];
            if (d.row != row) loops.widen(r.rows.row(row = d.row), r.rows.dtype, s, zero.data(), image.data());
            if (d.asked != last) {
                norms = common(again[size_t(last = d.asked)]);
                y = Buffer<double>(s.channels * s.plane());
                exact.each_value(
                    [&](int64_t c, int64_t p) { y[exact.place(c, p)] = exact.x(asked.query, asked.mirrored, c, p); });
            }
            const double scale = 0.5 / (r.sigma[asked.query] * r.sigma[asked.query]);
            const double left_out = asked.ready.centred ? scale * norms[size_t(d.pixel)] : 0;
            const double logit = r.prior_at(asked.query, d.row) + left_out -
                                 scale * distance(s, asked.ready.window, y.data(), image.data(), d.pixel);
            const int64_t p = asked.mirrored ? local_.mirrored_pixel(d.pixel) : d.pixel;
            const double max = all.max[size_t(p)], was = std::exp(d.logit - max), is = std::exp(logit - max);
            const auto sum = [&](int64_t k) -> double& { return all.sums[size_t(k * pixels_ + p)]; };
            sum(kWeight) += is - was;
            sum(kSquare) += is * is - was * was;
            for (int64_t c = 0; c < s.channels; ++c) {
                const double v = image[exact.place(c, d.pixel)] - images_.reference(c, p);
                sum(kMean + c) += (is - was) * v;
                sum(kNorm) += (is - was) * v * v;
                if (out_.variance) sum(kMean + s.channels + c) += (is - was) * v * v;
            }
        }
    }

    // sum (y - v)^2 over the window of a pixel
    static double distance(const PlaneShape& s, const Window& w, const double* y, const double* v, int64_t pixel) {
        const int64_t row = pixel / s.width, column = pixel % s.width;
        double sum = 0;
        for (int64_t dy = -w.above; dy <= w.below; ++dy)
            for (int64_t dx = -w.left; dx <= w.right; ++dx) {
                int64_t at = row + dy, across = column + dx;
                if (w.wraps) at = (at + s.height) % s.height, across = (across + s.width) % s.width;
                if (at < 0 || at >= s.height || across < 0 || across >= s.width) continue;
                for (int64_t c = 0; c < s.channels; ++c) {
                    const int64_t i = c * s.plane() + at * s.stride + across;
                    sum += (y[i] - v[i]) * (y[i] - v[i]);
                }
            }
        return sum;
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
