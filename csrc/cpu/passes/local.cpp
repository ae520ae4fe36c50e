#include "local.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../runtime/buffer.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr int64_t kTileBytes = 256 << 10;  // of widened images: they stay in L2 while the queries go by
constexpr int64_t kSumBytes = 32 << 20;    // of the sums of a block of queries, all pieces together
constexpr int64_t kMostQueries = 64;       // of a block
constexpr double kFloatTol = 1e-6;         // from which on float32 may do
constexpr double kHalfUlp = 0x1p-24;

template <class T>
const LocalLoops<T>& loops_of(const Table& kernels);
template <>
const LocalLoops<float>& loops_of(const Table& kernels) {
    return kernels.local_f32;
}
template <>
const LocalLoops<double>& loops_of(const Table& kernels) {
    return kernels.local_f64;
}

// The most by which weights left out may move a pixel: all n of them together by n e^-cut 2 max|x_i|, for tol/50 of
// the least that contract 1 divides by, max|x_i| / 100.
double cut_of(int64_t n, double tol) { return std::log(double(n) * 2 * 50 * 100 / tol); }

// One number of 8 significant bits near each of the means: v - reference is then exact for stored bytes and halves.
double reference_of(DType dtype, double mean) {
    if (dtype == DType::u8) return std::round(mean);
    int exponent;
    const double fraction = std::frexp(mean, &exponent);
    return std::ldexp(std::round(fraction * 256) / 256, exponent);
}

Window clipped(const Local& local, int64_t patch) {
    const int64_t half = (patch - 1) / 2, y = std::min(half, local.height - 1), x = std::min(half, local.width - 1);
    return {y, y, x, x, local.wraps};
}

// What a query has gathered at every pixel: `sums` as LocalSums has them.
struct Gathered {
    std::vector<double> max, sums;
    std::vector<int64_t> top;
};

template <class T>
class LocalPass {
  public:
    LocalPass(const Request& request, const Local& local)
        : request_(request),
          local_(local),
          loops_(loops_of<T>(request.kernels)),
          shape_{local.channels, local.height, local.width,
                 (local.width + loops_.lanes - 1) / loops_.lanes * loops_.lanes},
          reference_(local.channels * shape_.plane(), true),
          cut_(cut_of(request.rows.n * (local.mirrored ? 2 : 1), request.tol)) {
        for (int64_t k = 0; k < request.rows.d; ++k) {  // its own mirror image, where mirror images are rows
            const double mean = local.mirrored ? (local.mean[k] + local.mean[mirror(k)]) / 2 : local.mean[k];
            reference_[place(k)] = T(reference_of(request.rows.dtype, mean));
        }
    }

    // Queries that are answered beside each other, within the budget.
    int64_t block() const {
        const int64_t each = sums_bytes() * pieces().count() * (local_.mirrored ? 2 : 1);
        return std::clamp<int64_t>(kSumBytes / each, 1, kMostQueries);
    }

    void answer(const int64_t* which, int64_t count, LocalAnswer& out, std::vector<int64_t>& missed) {
        std::vector<Asked> asked;
        for (int64_t i = 0; i < count; ++i) asked.push_back(prepared(which[i], false));
        if (local_.mirrored)
            for (int64_t i = 0; i < count; ++i) asked.push_back(prepared(which[i], true));
        const auto shares = pass(asked);
        std::vector<int8_t> wrong(size_t(count), 0);
        one_by_one(count, request_.threads, [&](int64_t i) {
            const Gathered all = joined(shares, i, count);
            wrong[size_t(i)] = !write(asked[size_t(i)], all, out);
            out.path[which[i]] = int8_t(sizeof(T) == 4 ? Path::dense : Path::exact);
        });
        for (int64_t i = 0; i < count; ++i)
            if (wrong[size_t(i)]) missed.push_back(which[i]);
    }

  private:
    struct Asked {
        int64_t query;
        Buffer<T> y;
        LocalQuery<T> ready;
    };

    struct Sums {
        Buffer<T> max;
        Buffer<double> sums;
        Buffer<int64_t> top;
        LocalSums<T> view() { return {max.data(), sums.data(), top.data()}; }
    };

    struct Worker {
        Buffer<T> images;
        std::vector<Buffer<T>> rooms;  // of each window
        std::vector<const T*> seen;
        std::vector<double> prior;
        std::vector<int64_t> number;
    };

    int64_t planes() const { return kMean + shape_.channels; }
    int64_t sums_bytes() const { return shape_.plane() * int64_t(sizeof(T) + 8 + 8 * planes()); }
    int64_t tile() const {
        const int64_t fit = kTileBytes / (shape_.image() * int64_t(sizeof(T)));
        return std::clamp<int64_t>(fit / 4 * 4, 4, 64);
    }
    Pieces pieces() const { return {request_.rows.n, tile(), request_.threads, true}; }
    int64_t place(int64_t k) const {  // where value k of a row lies in planes
        return k / shape_.width * shape_.stride + k % shape_.width;
    }
    int64_t mirror(int64_t k) const { return k - k % shape_.width + (shape_.width - 1 - k % shape_.width); }

    Asked prepared(int64_t q, bool mirrored) const {
        const Request& r = request_;
        const double rms = std::sqrt(r.stats.mean_square / double(r.rows.d));
        Asked asked{q, Buffer<T>(shape_.channels * shape_.plane(), true), {}};
        // Where sigma is large, what all images have in common is left out; where it is small, little of a logit is.
        const bool centred = r.sigma[q] >= 0.6 * rms;
        for (int64_t k = 0; k < r.rows.d; ++k) {
            const double x = r.query(q)[mirrored ? mirror(k) : k], y = x - double(reference_[place(k)]);
            asked.y[place(k)] = T(centred ? 2 * y : y);
        }
        asked.ready = {clipped(local_, local_.patch[q]), centred, asked.y.data(), T(0.5 / (r.sigma[q] * r.sigma[q]))};
        return asked;
    }

    std::vector<std::vector<Sums>> pass(const std::vector<Asked>& asked) const {
        const Rows& rows = request_.rows;
        std::vector<int64_t> patches;  // the windows that there are
        for (const Asked& a : asked) patches.push_back(a.ready.window.rows() << 32 | a.ready.window.columns());
        std::sort(patches.begin(), patches.end());
        patches.erase(std::unique(patches.begin(), patches.end()), patches.end());
        const auto room_of = [&](const Window& w) {
            return size_t(std::lower_bound(patches.begin(), patches.end(), w.rows() << 32 | w.columns()) -
                          patches.begin());
        };
        const int64_t tile = this->tile();
        const auto worker = [&] {
            Worker work{Buffer<T>(tile * shape_.image()), {}, {}, {}, {}};
            work.rooms.resize(patches.size());
            for (const Asked& a : asked)
                if (Buffer<T>& room = work.rooms[room_of(a.ready.window)]; !room.data())
                    room = Buffer<T>(loops_.room(shape_, a.ready.window), true);
            return work;
        };
        const auto nothing = [&] {
            std::vector<Sums> mine;
            for (size_t i = 0; i < asked.size(); ++i) {
                mine.push_back({Buffer<T>(shape_.plane()), Buffer<double>(planes() * shape_.plane(), true),
                                Buffer<int64_t>(shape_.plane())});
                std::fill_n(mine.back().max.data(), shape_.plane(), std::numeric_limits<T>::lowest());
                std::fill_n(mine.back().top.data(), shape_.plane(), int64_t(-1));
            }
            return mine;
        };
        const auto visit = [&](Worker& work, std::vector<Sums>& mine, const Tile& t) {
            for (int i = 0; i < t.R; ++i)
                loops_.widen(rows.row(t.first + i), rows.dtype, shape_, reference_.data(),
                             work.images.data() + i * shape_.image());
            for (size_t i = 0; i < asked.size(); ++i) {
                work.seen.clear(), work.prior.clear(), work.number.clear();
                for (int j = 0; j < t.R; ++j) {
                    const double prior = request_.prior_at(asked[i].query, t.first + j);
                    if (prior == kUnseen) continue;
                    work.seen.push_back(work.images.data() + j * shape_.image());
                    work.prior.push_back(prior);
                    work.number.push_back(t.first + j);
                }
                loops_.posterior(
                    shape_, asked[i].ready,
                    {work.seen.data(), work.prior.data(), work.number.data(), int(work.seen.size())}, T(cut_),
                    work.rooms[room_of(asked[i].ready.window)].data(), mine[i].view());
            }
        };
        return over_tiles(rows, pieces(), tile, worker, nothing, visit);
    }

    // The sums of all pieces for query i of a block, in planes without gaps, with those of its mirror image, mirrored
    // back, of which the block has `count` behind the queries.
    Gathered joined(const std::vector<std::vector<Sums>>& shares, int64_t i, int64_t count) const {
        const int64_t pixels = local_.pixels();
        Gathered all{std::vector<double>(size_t(pixels), std::numeric_limits<double>::lowest()),
                     std::vector<double>(size_t(planes() * pixels), 0.0), std::vector<int64_t>(size_t(pixels), -1)};
        const auto over_sums = [&](int64_t p, auto&& f) {
            for (const auto& share : shares) {
                if (const Sums& s = share[size_t(i)]; s.top[place(p)] >= 0) f(s, place(p));
                if (!local_.mirrored) continue;
                const int64_t other = place(mirror(p));
                if (const Sums& s = share[size_t(count + i)]; s.top[other] >= 0) f(s, other);
            }
        };
        for (int64_t p = 0; p < pixels; ++p) {
            double& max = all.max[size_t(p)];
            over_sums(p, [&](const Sums& s, int64_t at) {
                if (double(s.max[at]) <= max) return;
                max = double(s.max[at]);
                all.top[size_t(p)] = s.top[at];
            });
            over_sums(p, [&](const Sums& s, int64_t at) {
                const double scale = std::exp(double(s.max[at]) - max);
                for (int64_t k = 0; k < planes(); ++k)
                    all.sums[size_t(k * pixels + p)] +=
                        s.sums[k * shape_.plane() + at] * (k == kSquare ? scale * scale : scale);
            });
        }
        return all;
    }

    // Sums over the window of each pixel, in float64.
    std::vector<double> windows(const std::vector<double>& values, const Window& w) const {
        const int64_t height = local_.height, width = local_.width;
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

    // sum_c y^2 over the window of each pixel
    std::vector<double> query_norms(const Asked& asked) const {
        std::vector<double> norms(size_t(local_.pixels()), 0.0);
        for (int64_t k = 0; k < request_.rows.d; ++k) {
            const double y = request_.query(asked.query)[k] - double(reference_[place(k)]);
            norms[size_t(k % local_.pixels())] += y * y;
        }
        return windows(norms, asked.ready.window);
    }

    // Writes the answer, and says whether it keeps contract 1 as far as `doubt` knows.
    bool write(const Asked& asked, const Gathered& all, LocalAnswer& out) const {
        const int64_t pixels = local_.pixels(), q = asked.query;
        const double scale = 0.5 / (request_.sigma[q] * request_.sigma[q]);
        const std::vector<double> norms = query_norms(asked);
        std::vector<double> spread(size_t(pixels), 0.0);
        for (int64_t p = 0; p < pixels; ++p)
            spread[size_t(p)] = all.sums[size_t(kNorm * pixels + p)] / all.sums[size_t(p)];
        const std::vector<double> around = windows(spread, asked.ready.window);
        bool good = true;
        for (int64_t p = 0; p < pixels; ++p) {
            const auto sum = [&](int64_t k) { return all.sums[size_t(k * pixels + p)]; };
            const int64_t at = q * pixels + p;
            double off_reference = 0, model = 0;
            for (int64_t c = 0; c < shape_.channels; ++c) {
                const int64_t k = c * pixels + p;
                const double mean = sum(kMean + c) / sum(kWeight), r = mean + double(reference_[place(k)]);
                off_reference += mean * mean;
                model += (r + request_.stats.shift) * (r + request_.stats.shift);
                out.mean[q * request_.rows.d + k] = r;
            }
            const double trace = std::max(0.0, spread[size_t(p)] - off_reference);
            const double common = asked.ready.centred ? scale * norms[size_t(p)] : 0;
            if (out.trace) out.trace[at] = trace;
            if (out.ess) out.ess[at] = sum(kWeight) * sum(kWeight) / sum(kSquare);
            if (out.log_sum) out.log_sum[at] = all.max[size_t(p)] + std::log(sum(kWeight)) - common;
            if (out.top) out.top[at] = all.top[size_t(p)];
        }
        return good;
    }

    const Request& request_;
    const Local& local_;
    const LocalLoops<T>& loops_;
    const PlaneShape shape_;
    Buffer<T> reference_;  // [channels] planes
    const double cut_;
};

template <class T>
std::vector<int64_t> in_blocks(const Request& request, const Local& local, const std::vector<int64_t>& which,
                               LocalAnswer& answer) {
    LocalPass<T> pass(request, local);
    std::vector<int64_t> missed;
    const int64_t block = pass.block();
    for (size_t base = 0; base < which.size(); base += size_t(block))
        pass.answer(which.data() + base, std::min(block, int64_t(which.size() - base)), answer, missed);
    return missed;
}

}  // namespace

void local_posterior(const Request& request, const Local& local, LocalAnswer& answer) {
    std::vector<int64_t> which;
    for (int64_t q = 0; q < request.batch; ++q) which.push_back(q);
    if (request.tol >= kFloatTol) which = in_blocks<float>(request, local, which, answer);
    in_blocks<double>(request, local, which, answer);
}

}  // namespace geodiff
