#include "local_pixels.h"

#include <map>
#include <tuple>
#include <utility>

#include "subset_state.h"
#include "tiles.h"

namespace geodiff {
namespace {

// Where a window lies along one axis: the places, one after the other.
std::vector<int64_t> along(int64_t first, int64_t count, int64_t size, bool wraps) {
    std::vector<int64_t> places;
    for (int64_t i = first; i < first + count; ++i)
        if (wraps)
            places.push_back((i % size + size) % size);
        else if (i >= 0 && i < size)
            places.push_back(i);
    return places;
}

// Steps as SubsetLoops take them, each from nothing, so that only numbers of one sign are added.
class Steps {
  public:
    void add(std::vector<int32_t> terms) {
        const int32_t output = int32_t(steps.size());
        steps.push_back({output, 0, int32_t(terms.size()), SubsetStep::kNothing, -1});
        members_.insert(members_.end(), terms.begin(), terms.end());
    }
    // The sum of the step before once more.
    void again() { steps.push_back({int32_t(steps.size()), 0, 0, SubsetStep::kPrevious, -1}); }

    // Makes terms of members, of which there are `count` to choose from, and a zero behind them.
    void finish(int32_t count) {
        const int32_t* from = members_.data();
        for (SubsetStep& step : steps) {
            for (int32_t i = 0; i < step.plus; ++i) terms.push_back(*from++ * kSide);
            for (; step.plus % kTerms != 0; ++step.plus) terms.push_back(count * kSide);
        }
    }
    int64_t count() const { return int64_t(steps.size()); }
    void run(const SubsetLoops& loops, const double* e, double* q) const {
        loops.sums(steps.data(), terms.data(), count(), e, nullptr, q);
    }

    std::vector<SubsetStep> steps;
    std::vector<int32_t> terms;

  private:
    std::vector<int32_t> members_;
};

// Which numbers decide about a query's pixels: sums of squared differences down the columns of windows, each made
// once, of those the sums over windows, and for each of them the numbers that it has a posterior of.
class Plan {
  public:
    Plan(const Request& request, const Local& local, const PixelsOf& asked)
        : local_(local), k_(local.patch[asked.query]), half_((k_ - 1) / 2), query(asked.query) {
        std::map<Place, std::vector<int64_t>> windows;  // the pixels of each
        for (const int64_t p : asked.pixels) {
            const Place at{p / local.width, p % local.width};
            if (!local.crops) {
                windows[at].push_back(p);
                continue;
            }
            for (int64_t y = std::max<int64_t>(0, at.first - k_ + 1); y <= std::min(at.first, local.height - k_); ++y)
                for (int64_t x = std::max<int64_t>(0, at.second - k_ + 1); x <= std::min(at.second, local.width - k_);
                     ++x)
                    windows[{y, x}].push_back(p);
        }
        for (const auto& [at, pixels] : windows) add(at, pixels);
        columns.finish(int32_t(numbers.size()));
        sums.finish(int32_t(columns.count()));
        for (const int32_t number : numbers) x.push_back(request.query(query)[number]);
        if (!local.mirrored) return;
        std::vector<int32_t> mirror(size_t(request.rows.d));
        for (int64_t c = 0; c < local.channels; ++c)
            for (int64_t p = 0; p < local.pixels(); ++p)
                mirror[size_t(local.value(c, p))] = int32_t(local.value(c, local.mirrored_pixel(p)));
        for (const int32_t number : numbers) mirrored_numbers.push_back(mirror[size_t(number)]);
        for (const int32_t number : outputs) mirrored_outputs.push_back(mirror[size_t(number)]);
    }

  private:
    typedef std::pair<int64_t, int64_t> Place;

    int64_t first(int64_t place) const { return local_.crops ? place : place - half_; }

    void add(const Place& at, const std::vector<int64_t>& pixels) {
        std::vector<int32_t> terms;
        for (const int64_t x : along(first(at.second), k_, local_.width, local_.wraps))
            terms.push_back(column(at.first, x));
        sums.add(std::move(terms));
        for (size_t i = 0; i < pixels.size(); ++i) {
            if (i > 0) sums.again();
            pixel.push_back(pixels[i]);
            for (int64_t c = 0; c < local_.channels; ++c) outputs.push_back(int32_t(local_.value(c, pixels[i])));
        }
    }

    int32_t column(int64_t row, int64_t x) {
        const auto [found, fresh] = columns_.try_emplace({row, x}, int32_t(columns_.size()));
        if (!fresh) return found->second;
        std::vector<int32_t> terms;
        for (const int64_t y : along(first(row), k_, local_.height, local_.wraps))
            for (int64_t c = 0; c < local_.channels; ++c) {
                const int32_t number = int32_t(local_.value(c, y * local_.width + x));
                const auto [place, unknown] = numbers_.try_emplace(number, int32_t(numbers.size()));
                if (unknown) numbers.push_back(number);
                terms.push_back(place->second);
            }
        columns.add(std::move(terms));
        return found->second;
    }

    const Local& local_;
    const int64_t k_, half_;
    std::map<Place, int32_t> columns_;
    std::map<int32_t, int32_t> numbers_;

  public:
    const int64_t query;
    std::vector<int32_t> numbers, mirrored_numbers;  // where a row has what is looked at
    std::vector<double> x;                           // what the query has there
    Steps columns, sums;
    std::vector<int64_t> pixel;                      // of each posterior
    std::vector<int32_t> outputs, mirrored_outputs;  // its numbers

    SubsetSize size() const { return {sums.count(), local_.channels, false}; }
};

class PixelPass {
    static constexpr int64_t kFewNumbers = 3;  // one in so many: fetched one by one sooner than all of a row

  public:
    PixelPass(const Request& request, const Local& local, const std::vector<PixelsOf>& asked)
        : request_(request), local_(local), loops_(request.kernels.subset) {
        for (const PixelsOf& each : asked) plans_.emplace_back(request, local, each);
        name_places();
        // As in LocalPass.
        cut_ = std::log(double(request.rows.n) * (local.mirrored ? 2 : 1) * 2 * 50 * 100 / request.tol);
    }

    void answer(const LocalAnswer& out) const {
        const auto shares = sums();
        for (size_t i = 0; i < plans_.size(); ++i) write(plans_[i], shares, int64_t(i), out);
    }

  private:
    struct Worker {
        Buffer<float> values;
        Buffer<double> differences, columns, sums;
        double prior[kSide];
    };
    typedef std::vector<Buffer<double>> Share;  // of each query

    // Where plans look at few numbers of a row, they name them by their places among those.
    void name_places() {
        std::map<int32_t, int32_t> places;
        const auto each = [&](auto&& f) {
            for (Plan& plan : plans_)
                for (auto* list : {&plan.numbers, &plan.outputs, &plan.mirrored_numbers, &plan.mirrored_outputs})
                    for (int32_t& number : *list) f(number);
        };
        each([&](int32_t number) { places[number]; });
        if (int64_t(places.size()) > request_.rows.d / kFewNumbers) return;
        for (auto& [number, place] : places) {
            place = int32_t(needed_.size());
            needed_.push_back(number);
        }
        each([&](int32_t& number) { number = places[number]; });
    }
    // Numbers of a row that are looked at
    int64_t beside() const { return needed_.empty() ? request_.rows.d : int64_t(needed_.size()); }
    int32_t value(int32_t place) const { return needed_.empty() ? place : needed_[size_t(place)]; }

    template <class Size>
    int64_t most(Size&& size) const {
        int64_t most = 0;
        for (const Plan& plan : plans_) most = std::max(most, int64_t(size(plan)));
        return most;
    }

    std::vector<Share> sums() const {
        const auto worker = [&] {
            return Worker{Buffer<float>(beside() * kSide),
                          Buffer<double>(kSide * (1 + most([](const Plan& p) { return p.numbers.size(); }))),
                          Buffer<double>(kSide * (1 + most([](const Plan& p) { return p.columns.count(); }))),
                          Buffer<double>(kSide * most([](const Plan& p) { return p.sums.count(); })),
                          {}};
        };
        const auto nothing = [&] {
            Share share;
            for (const Plan& plan : plans_) share.push_back(plan.size().nothing());
            return share;
        };
        const Rows& rows = request_.rows;
        const Pieces pieces(rows.n, kSide, request_.threads, true);
        return over_tiles(rows, pieces, kSide, worker, nothing, [&](Worker& work, Share& mine, const Tile& t) {
            loops_.beside(rows.row(t.first), rows.dtype, rows.d, needed_.empty() ? nullptr : needed_.data(), beside(),
                          t.R, work.values.data());
            for (size_t i = 0; i < plans_.size(); ++i) {
                const Plan& plan = plans_[i];
                for (int r = 0; r < kSide; ++r)
                    work.prior[r] = r < t.R ? request_.prior_at(plan.query, t.first + r) : kUnseen;
                const SubsetState to = plan.size().state(mine[i].data());
                add(work, plan, plan.numbers, plan.outputs, to);
                if (local_.mirrored) add(work, plan, plan.mirrored_numbers, plan.mirrored_outputs, to);
            }
        });
    }

    void add(Worker& work, const Plan& plan, const std::vector<int32_t>& numbers, const std::vector<int32_t>& outputs,
             const SubsetState& to) const {
        const int64_t count = int64_t(numbers.size()), columns = plan.columns.count();
        loops_.differences(work.values.data(), numbers.data(), plan.x.data(), count, work.differences.data());
        std::fill_n(work.differences.data() + count * kSide, kSide, 0.0);
        plan.columns.run(loops_, work.differences.data(), work.columns.data());
        std::fill_n(work.columns.data() + columns * kSide, kSide, 0.0);
        plan.sums.run(loops_, work.columns.data(), work.sums.data());
        const double scale = 0.5 / (request_.sigma[plan.query] * request_.sigma[plan.query]);
        loops_.posterior(work.sums.data(), plan.sums.count(), local_.channels, work.values.data(), outputs.data(),
                         work.prior, scale, cut_, to);
    }

    // A pixel's numbers are the plain means of its posteriors': of windows there is one.
    void write(const Plan& plan, const std::vector<Share>& shares, int64_t i, const LocalAnswer& out) const {
        const int64_t count = plan.sums.count(), channels = local_.channels;
        Buffer<double> sums = plan.size().joined(shares, i);
        const SubsetState state = plan.size().state(sums.data());
        std::map<int32_t, std::pair<double, int64_t>> means;
        for (int64_t k = 0; k < count; ++k) {
            for (int64_t s = k * channels; s < (k + 1) * channels; ++s) {
                auto& [sum, posteriors] = means[value(plan.outputs[size_t(s)])];
                sum += state.total[s] / state.mass[k], ++posteriors;
            }
            if (out.log_sum && !local_.crops)
                out.log_sum[plan.query * local_.pixels() + plan.pixel[size_t(k)]] =
                    state.max[k] + std::log(state.mass[k]);
        }
        for (const auto& [number, mean] : means)
            out.mean[plan.query * request_.rows.d + number] = mean.first / double(mean.second);
    }

    const Request& request_;
    const Local& local_;
    const SubsetLoops& loops_;
    std::vector<Plan> plans_;
    std::vector<int32_t> needed_;  // the numbers that plans name by their places here; empty: by themselves
    double cut_;
};

}  // namespace

bool few_pixels(const Local& local, int64_t query, int64_t count) {
    // In registers of numbers, for 16 rows: about what a pixel's sums and posteriors take, and all pixels in float64.
    const double k = double(local.patch[query]), channels = double(local.channels);
    const double posterior = 50 + 10 * channels, column = k * channels;
    const double each = local.crops ? k * (2 * k - 1) * column + k * k * (k + posterior) : k * (column + 1) + posterior;
    return double(count) * each < 100 * channels * double(local.pixels());
}

void local_at_pixels(const Request& request, const Local& local, const std::vector<PixelsOf>& asked,
                     const LocalAnswer& answer) {
    if (!asked.empty()) PixelPass(request, local, asked).answer(answer);
}

}  // namespace geodiff
