#include "subset.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "subset_state.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr int64_t kStateBytes = 32 << 20;  // of the sums of a block of queries
constexpr double kHalfUlp = 0x1p-53;
constexpr double kDoubt = 4;  // times what roundings that average out come to

class SubsetPass {
  public:
    SubsetPass(const Request& request, const Subset& subset)
        : request_(request), subset_(subset), loops_(request.kernels.subset), d_(request.rows.d) {
        const int32_t* from = subset.sums.terms;
        for (int64_t s = 0; s < d_; ++s) {
            steps_.push_back(subset.sums.steps[s]);
            for (int32_t* const count : {&steps_.back().minus, &steps_.back().plus}) {
                for (int32_t i = 0; i < *count; ++i) terms_.push_back(*from++ * kSide);
                for (; *count % kTerms != 0; ++*count) terms_.push_back(int32_t(d_) * kSide);
            }
        }
        // All n rows left out move a number by n e^-cut 2 max|x_i| at most: tol/50 of max|x_i| / 100, the least that
        // contract 1 divides by.
        cut_ = std::log(double(request.rows.n) * (subset.mirror ? 2 : 1) * 2 * 50 * 100 / request.tol);
    }

    int64_t block() const { return std::max<int64_t>(1, kStateBytes / (size().sums() * 8 * pieces().count())); }

    void answer(int64_t first, int64_t count, double* mean, int8_t* held) const {
        const auto shares = sums(first, count);
        one_by_one(count, request_.threads, [&](int64_t i) {
            write(size().joined(shares, i), first + i, mean + (first + i) * d_, held + first + i);
        });
    }

  private:
    struct Worker {
        Buffer<float> values;
        Buffer<double> differences, kept, sums;
        double prior[kSide];
    };
    typedef std::vector<Buffer<double>> Share;  // of each query: max, mass, total and square, each [d]

    Pieces pieces() const { return {request_.rows.n, kSide, request_.threads, true}; }
    SubsetSize size() const { return {d_, 1, true}; }
    SubsetState state(double* sums) const { return size().state(sums); }
    double scale(int64_t q) const { return 0.5 / (request_.sigma[q] * request_.sigma[q] * subset_.temperature); }

    std::vector<Share> sums(int64_t first, int64_t count) const {
        const auto worker = [&] {
            const int64_t size = d_ * kSide;
            Buffer<double> differences(size + kSide, true);
            return Worker{Buffer<float>(size),
                          std::move(differences),
                          Buffer<double>(subset_.sums.places * kSide),
                          Buffer<double>(size),
                          {}};
        };
        const auto nothing = [&] {
            Share share;
            for (int64_t i = 0; i < count; ++i) share.push_back(size().nothing());
            return share;
        };
        const Rows& rows = request_.rows;
        return over_tiles(rows, pieces(), kSide, worker, nothing, [&](Worker& work, Share& mine, const Tile& t) {
            loops_.beside(rows.row(t.first), rows.dtype, d_, nullptr, d_, t.R, work.values.data());
            for (int64_t i = 0; i < count; ++i) {
                for (int r = 0; r < kSide; ++r)
                    work.prior[r] = r < t.R ? request_.prior_at(first + i, t.first + r) : kUnseen;
                add(work, first + i, nullptr, state(mine[size_t(i)].data()));
                if (subset_.mirror) add(work, first + i, subset_.mirror, state(mine[size_t(i)].data()));
            }
        });
    }

    void add(Worker& work, int64_t q, const int32_t* place, const SubsetState& to) const {
        loops_.differences(work.values.data(), place, request_.query(q), d_, work.differences.data());
        loops_.sums(steps_.data(), terms_.data(), d_, work.differences.data(), work.kept.data(), work.sums.data());
        loops_.posterior(work.sums.data(), d_, 1, work.values.data(), place, work.prior, scale(q), cut_, to);
    }

    void write(Buffer<double> all, int64_t q, double* mean, int8_t* good) const {
        const SubsetState sums = state(all.data());
        const double shift = request_.stats.shift, logit = logit_error(q);
        bool held = true;
        for (int64_t k = 0; k < d_; ++k) {
            const double v = sums.total[k] / sums.mass[k], square = sums.square[k] / sums.mass[k];
            mean[k] = v;
            // max|x_i| is at least the root mean square under any weights. What logits are off by moves r by as much
            // of the root of the variance; that of a pixel is allowed what one of its numbers is.
            const double r = std::fabs(v + shift), model = std::sqrt(std::max(0.0, square + shift * (2 * v + shift)));
            const double allowed = request_.tol * std::max(r, 0.01 * model) / 2;
            held &= logit * std::sqrt(std::max(0.0, square - v * v)) <= allowed;
        }
        *good = held;
    }

    // What sums lose on their way from one subset to the next: every addition half an ulp of the largest sum at most,
    // of either sign.
    double logit_error(int64_t q) const {
        const Stats& stats = request_.stats;
        double square = 0, largest = 0;
        for (int64_t k = 0; k < d_; ++k) {
            const double x = std::fabs(request_.query(q)[k]);
            square += x * x, largest = std::max(largest, x);
        }
        const double all = std::pow(std::sqrt(square) + stats.scale.max_norm, 2);
        const double value = request_.rows.dtype == DType::u8 ? 128 : stats.scale.max_norm;
        const double sum = std::min(all, double(subset_.sums.largest) * std::pow(largest + value, 2));
        return kDoubt * kHalfUlp * std::sqrt(double(subset_.sums.additions)) * scale(q) * sum;
    }

    const Request& request_;
    const Subset& subset_;
    const SubsetLoops& loops_;
    const int64_t d_;
    std::vector<SubsetStep> steps_;  // as the loops take them
    std::vector<int32_t> terms_;
    double cut_;
};

}  // namespace

void subset_posterior(const Request& request, const Subset& subset, double* mean, int8_t* held) {
    const SubsetPass pass(request, subset);
    const int64_t block = pass.block();
    for (int64_t first = 0; first < request.batch; first += block)
        pass.answer(first, std::min(block, request.batch - first), mean, held);
}

}  // namespace geodiff
