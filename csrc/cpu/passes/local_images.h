// Rows as images in planes, queries likewise, and the two passes over the rows that local denoisers make.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "../runtime/buffer.h"
#include "local.h"
#include "tiles.h"

namespace geodiff {

template <class T>
const LocalLoops<T>& local_loops(const Table& kernels) {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels.local_f32;
    else
        return kernels.local_f64;
}

// A number of 8 significant bits near a mean: v - reference is then exact for bytes, and for most halves.
inline double local_reference(DType dtype, double mean) {
    if (dtype == DType::u8) return std::round(mean);
    int exponent;
    const double fraction = std::frexp(mean, &exponent);
    return std::ldexp(std::round(fraction * 256) / 256, exponent);
}

// What a query has gathered at every pixel, in planes without gaps: `sums` as LocalSums has them, relative to `max`.
struct Gathered {
    std::vector<double> max, sums;
    std::vector<int64_t> top;
};

// Windows' sums in float64, [height, width] to the same.
inline std::vector<double> windows(const std::vector<double>& values, int64_t height, int64_t width, const Window& w) {
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
class LocalImagesOf {
  public:
    struct Asked {
        int64_t query;
        bool mirrored;
        Buffer<T> y, noise;
        LocalQuery<T> ready;

        double variance() const { return double(noise[0]); }  // of the noise in a pixel, C sigma^2
    };
    struct Sums {
        Buffer<T> max;
        Buffer<double> sums;
        Buffer<int64_t> top;
    };

    // squares: whether second moments of each channel are summed up.
    LocalImagesOf(const Request& request, const Local& local, bool squares)
        : request_(request),
          local_(local),
          loops_(local_loops<T>(request.kernels)),
          squares_(squares),
          places_(size_t(request.rows.d)),
          shape_{local.channels, local.height,
                 local.width,    (local.width + loops_.lanes - 1) / loops_.lanes * loops_.lanes,
                 places_.data(), local.of_column == 1},
          reference_(local.channels * shape_.plane(), true) {
        each_value([&](int64_t c, int64_t p) {
            places_[size_t(local.value(c, p))] = int32_t(place(c, p));
            double mean = local.mean[local.value(c, p)];
            if (local.mirrored)  // its own mirror image, so that what is left out of logits is the same for both
                mean = (mean + local.mean[local.value(c, local.mirrored_pixel(p))]) / 2;
            reference_[place(c, p)] = T(local_reference(request.rows.dtype, mean));
        });
    }
    LocalImagesOf(const LocalImagesOf&) = delete;  // the shape points into it

    const PlaneShape& shape() const { return shape_; }
    // What is summed up at a pixel; of crops their masses.
    int64_t planes() const { return local_.crops ? kNorm : kMean + shape_.channels * (squares_ ? 2 : 1); }
    int64_t place(int64_t channel, int64_t pixel) const { return channel * shape_.plane() + place(pixel); }
    int64_t place(int64_t pixel) const { return pixel / shape_.width * shape_.stride + pixel % shape_.width; }
    double reference(int64_t c, int64_t p) const { return double(reference_[place(c, p)]); }
    double x(int64_t q, bool mirrored, int64_t c, int64_t p) const {
        return request_.query(q)[local_.value(c, mirrored ? local_.mirrored_pixel(p) : p)];
    }
    template <class F>
    void each_value(F&& f) const {
        for (int64_t c = 0; c < local_.channels; ++c)
            for (int64_t p = 0; p < local_.pixels(); ++p) f(c, p);
    }

    // Bytes of the sums of one query, all pieces together.
    int64_t query_bytes() const {
        const int64_t each = shape_.plane() * int64_t(sizeof(T) + sizeof(int64_t) + sizeof(double) * size_t(planes()));
        return each * pieces().count() * (local_.mirrored ? 2 : 1);
    }

    Asked prepared(int64_t q, bool mirrored) const {
        const Request& r = request_;
        const double rms = std::sqrt(r.stats.mean_square / double(r.rows.d));
        Asked asked{
            q, mirrored, Buffer<T>(shape_.channels * shape_.plane(), true), Buffer<T>(shape_.plane(), true), {}};
        for (int64_t p = 0; p < local_.pixels(); ++p)
            asked.noise[place(p)] = T(double(shape_.channels) * r.sigma[q] * r.sigma[q]);
        // Where sigma is large, logits lose most of their digits to what all images have in common.
        const bool centred = r.sigma[q] >= 0.6 * rms;
        each_value([&](int64_t c, int64_t p) {
            const double y = x(q, mirrored, c, p) - reference(c, p);
            asked.y[place(c, p)] = T(centred ? 2 * y : y);
        });
        const int64_t half = (local_.patch[q] - 1) / 2;
        const int64_t rows = std::min(half, local_.height - 1), columns = std::min(half, local_.width - 1);
        const int64_t more = local_.patch[q] - 1;  // of a crop, which begins at its pixel
        const Window window =
            local_.crops ? Window{0, more, 0, more, false} : Window{rows, rows, columns, columns, local_.wraps};
        asked.ready = {window,
                       centred,
                       asked.y.data(),
                       asked.noise.data(),
                       T(0.5 / (r.sigma[q] * r.sigma[q])),
                       local_.crops ? local_.height - more : local_.height};
        return asked;
    }

    // |y|^2 = |x - reference|^2, summed over the windows of a query.
    std::vector<double> from_reference(const Asked& asked) const {
        std::vector<double> squares(size_t(local_.pixels()), 0.0);
        each_value([&](int64_t c, int64_t p) {
            const double y = x(asked.query, asked.mirrored, c, p) - reference(c, p);
            squares[size_t(p)] += y * y;
        });
        return windows(squares, local_.height, local_.width, asked.ready.window);
    }
    // What was left out of a query's logits at each pixel, before `scale`: its images have it in common.
    std::vector<double> left_out(const Asked& asked) const {
        if (asked.ready.centred) return from_reference(asked);
        const std::vector<double> noise(size_t(local_.pixels()), asked.variance());
        return windows(noise, local_.height, local_.width, asked.ready.window);
    }

    // The sums of each piece of the rows.
    std::vector<std::vector<Sums>> sums(const std::vector<Asked>& asked, double cut) const {
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
        return over_images(asked, nothing, [&](Worker& work, std::vector<Sums>& mine, const Tile& t, size_t i) {
            loops_.posterior(shape_, asked[i].ready, seen(work, t, asked[i].query), T(cut), work.rooms[i]->data(),
                             {mine[i].max.data(), mine[i].sums.data(), mine[i].top.data(), squares_, local_.crops});
        });
    }

    // The second pass of crops: sums of w |c|^2, w c and w at each pixel, w of all crops that it is in, of each query.
    std::vector<Buffer<double>> composed(const std::vector<Asked>& asked, const std::vector<Buffer<T>>& max,
                                         const std::vector<Buffer<T>>& gain, double cut) const {
        const int64_t size = (kMean + shape_.channels) * shape_.plane();
        const auto nothing = [&] {
            std::vector<Buffer<double>> mine;
            for (size_t i = 0; i < asked.size(); ++i) mine.emplace_back(size, true);
            return mine;
        };
        const auto visit = [&](Worker& work, std::vector<Buffer<double>>& mine, const Tile& t, size_t i) {
            const Window back = asked[i].ready.window.back();
            std::shared_ptr<Buffer<T>>& room = work.back_rooms[work.rooms[i].get()];
            if (!room) room = std::make_shared<Buffer<T>>(loops_.room(shape_, back), true);
            const LocalCrops<T> crops{max[i].data(), gain[i].data(), back, room->data()};
            loops_.compose(shape_, asked[i].ready, crops, seen(work, t, asked[i].query), T(cut), work.rooms[i]->data(),
                           mine[i].data());
        };
        std::vector<std::vector<Buffer<double>>> shares = over_images(asked, nothing, visit);
        for (size_t piece = 1; piece < shares.size(); ++piece)
            for (size_t i = 0; i < asked.size(); ++i)
                for (int64_t k = 0; k < size; ++k) shares[0][i][k] += shares[piece][i][k];
        return std::move(shares[0]);
    }

    // The sums of all pieces for query i of `count`, behind which their mirror images were asked, with those of its
    // mirror image.
    Gathered joined(const std::vector<std::vector<Sums>>& shares, int64_t i, int64_t count) const {
        const int64_t pixels = local_.pixels();
        Gathered all{std::vector<double>(size_t(pixels), std::numeric_limits<double>::lowest()),
                     std::vector<double>(size_t(planes() * pixels), 0.0), std::vector<int64_t>(size_t(pixels), -1)};
        const auto each = [&](int64_t p, auto&& f) {
            for (const auto& share : shares)
                if (const Sums& s = share[size_t(i)]; s.top[place(p)] >= 0) f(s, place(p), 0);
            const int64_t other = place(local_.mirrored_pixel(p));
            for (const auto& share : shares)
                if (!local_.mirrored)
                    break;
                else if (const Sums& s = share[size_t(count + i)]; s.top[other] >= 0)
                    f(s, other, local_.copies);
        };
        for (int64_t p = 0; p < pixels; ++p) {
            double& max = all.max[size_t(p)];
            each(p, [&](const Sums& s, int64_t at, int64_t copies) {
                if (double(s.max[at]) <= max) return;
                max = double(s.max[at]);
                all.top[size_t(p)] = s.top[at] + copies;
            });
            each(p, [&](const Sums& s, int64_t at, int64_t) {
                const double scale = std::exp(double(s.max[at]) - max);
                for (int64_t k = 0; k < planes(); ++k)
                    all.sums[size_t(k * pixels + p)] +=
                        s.sums[k * shape_.plane() + at] * (k == kSquare ? scale * scale : scale);
            });
        }
        return all;
    }

  private:
    static constexpr int64_t kTileBytes = 320 << 10;  // of images in planes: they stay in L2 while the queries go by

    struct Worker {
        Buffer<T> images;
        std::vector<std::shared_ptr<Buffer<T>>> rooms;  // of each query; those of one window share it
        std::map<const Buffer<T>*, std::shared_ptr<Buffer<T>>> back_rooms;  // for the way back, by those
        std::vector<const T*> seen;
        std::vector<double> prior;
        std::vector<int64_t> number;
    };

    // Whole groups of 8, which the loops take, and no more than 16: the rounding of a tile's sums does not average out
    // where weights are alike.
    int64_t tile() const {
        return std::clamp<int64_t>(kTileBytes / (shape_.image() * int64_t(sizeof(T))) / 8 * 8, 4, 16);
    }
    // The tile's images that a query sees.
    LocalImages<T> seen(Worker& work, const Tile& t, int64_t q) const {
        work.seen.clear(), work.prior.clear(), work.number.clear();
        for (int j = 0; j < t.R; ++j) {
            const double prior = request_.prior_at(q, t.first + j);
            if (prior == kUnseen) continue;
            work.seen.push_back(work.images.data() + j * shape_.image());
            work.prior.push_back(prior);
            work.number.push_back(t.first + j);
        }
        return {work.seen.data(), work.prior.data(), work.number.data(), int(work.seen.size())};
    }
    Pieces pieces() const { return {request_.rows.n, tile(), request_.threads, true}; }

    // visit(worker, share, tile, i) for everything that was asked, the tile's images being in planes.
    template <class Share, class Visit>
    auto over_images(const std::vector<Asked>& asked, Share&& share, Visit&& visit) const {
        const Rows& rows = request_.rows;
        const auto worker = [&] {
            Worker work{Buffer<T>(tile() * shape_.image()), {}, {}, {}, {}, {}};
            for (size_t i = 0; i < asked.size(); ++i) {
                size_t same = 0;
                const Window& w = asked[i].ready.window;
                while (asked[same].ready.window.rows() != w.rows() || asked[same].ready.window.columns() != w.columns())
                    ++same;
                work.rooms.push_back(same < i ? work.rooms[same]
                                              : std::make_shared<Buffer<T>>(loops_.room(shape_, w), true));
            }
            return work;
        };
        return over_tiles(rows, pieces(), tile(), worker, share, [&](Worker& work, auto& mine, const Tile& t) {
            for (int j = 0; j < t.R; ++j)
                loops_.widen(rows.row(t.first + j), rows.dtype, shape_, reference_.data(),
                             work.images.data() + j * shape_.image());
            for (size_t i = 0; i < asked.size(); ++i) visit(work, mine, t, i);
        });
    }

    const Request& request_;
    const Local& local_;
    const LocalLoops<T>& loops_;
    const bool squares_;
    std::vector<int32_t> places_;  // of the values of a row
    const PlaneShape shape_;
    Buffer<T> reference_;  // [channels] planes
};

}  // namespace geodiff
