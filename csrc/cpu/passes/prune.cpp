#include "prune.h"

#include <cmath>
#include <limits>

#include "../products/bounds.h"
#include "../products/digits.h"
#include "tiles.h"
#include "top.h"

namespace geodiff {
namespace {

constexpr int kBits = 16;         // of the coordinates of a query: their rounding is nothing beside what is left out
constexpr double kLikely = 0.02;  // of the mean square by which rows lie apart, what directions leave as a rule: little
constexpr double kMostLeft = 0.25;  // of a tile: a row by itself takes three times what it takes among others
constexpr double kFarthest = 1e3;   // radii of the data: beyond, float32 says nothing, and at last overflows
constexpr int64_t kTried = 4;       // rows that may be the nearest
constexpr double kWide = 1e-9, kNarrow = 8 * kUnitRoundoff;  // at most, of a bound that some operations make
constexpr float kNever = std::numeric_limits<float>::infinity();

float up(double x) { return float(x * (1 + kNarrow)); }

// Where the directions leave `left` of the mean square by which rows lie apart.
bool worth(const Request& request, double left, int64_t q, double width) {
    const double variance = request.sigma[q] * request.sigma[q];
    // Near the data y is noise where the rows do not reach.
    const double outside = std::sqrt(variance * double(request.rows.d - kDirections) + left);
    const IntegerProducts* integers = request.integers_for(request.batch);
    const bool many = integers && request.batch > integers->layout.free_to;  // others wait for memory, which it spares
    const double open = (many ? integers->layout : IntegerLayout{}).prunes_to * request.stats.mean_square;
    return request.rows.d > kDirections && outside * std::sqrt(left) + width * variance < open &&
           request.length(q) < kFarthest * request.stats.scale.radius;
}

}  // namespace

bool Pruning::worthwhile(const Request& request, const Shaping& shaping, int64_t q, double width) {
    return promising(request, q, width) && worth(request, shaping.left, q, width);
}

bool Pruning::promising(const Request& request, int64_t q, double width) {
    return worth(request, kLikely * request.stats.mean_square, q, width);
}

Pruning::Pruning(const Request& request, const Shaping& shaping, const std::vector<int64_t>& which, double width,
                 int64_t nearest)
    : integers_(*request.integers()),
      rows_(request.rows),
      stats_(request.stats),
      shaping_(shaping),
      count_(int64_t(which.size())),
      prior_(count_ > 0 ? request.prior_of(which[0]) : nullptr),
      variance_(count_ > 0 ? request.sigma[which[0]] * request.sigma[which[0]] : 0),
      digits_(integers_, count_, shaping.count(), integers_.layout.digits(kBits)),
      slots_(digits_.slots()),
      scale_(size_t(slots_), 0.0f),
      outside_(size_t(slots_), 0.0f),
      along_(size_t(slots_), 0.0f),
      least_(size_t(slots_), kNever),
      half_square_(which.size()),
      slack_(which.size()) {
    pack(request, which);
    find_nearest(request, which, width, nearest);
}

void Pruning::pack(const Request& request, const std::vector<int64_t>& which) {
    const Table& kernels = request.kernels;
    const int64_t d = request.rows.d, dp = padded(d), k = shaping_.count(), few = kernels.floats.few;
    const double reach = stats_.scale.radius, longest = 128 * std::sqrt(double(k));  // >= |w|, >= |b - 128|
    const int bits = integers_.layout.digit_bits;
    const double units = largest_balanced(bits, integers_.layout.digits(kBits)) - 1;
    double steps = 0;
    for (int64_t j = 0; j < k; ++j) steps += shaping_.step[j] * shaping_.step[j];
    const double held = 2 * reach + 128 * std::sqrt(steps);  // >= what bytes say that a row is along the directions
    in_shares((count_ + few - 1) / few, 2 * count_ * k * d, request.threads, [&](int64_t begin, int64_t end) {
        Buffer<float> narrow(few * dp, true);
        Buffer<double> along(few * k);
        for (int64_t start = begin * few; start < std::min(end * few, count_); start += few) {
            const int64_t size = std::min(few, count_ - start);
            for (int64_t i = 0; i < size; ++i)
                kernels.vectors.narrow(request.query(which[size_t(start + i)]), d, narrow.data() + i * dp);
            std::fill(along.data(), along.data() + few * k, 0.0);
            kernels.dot_few(shaping_.directions, DType::f32, d, int(k), narrow.data(), dp, int(size), along.data(), k);
            for (int64_t i = start; i < start + size; ++i) {
                const int64_t q = which[size_t(i)];
                double* g = along.data() + (i - start) * k;
                const double square = kernels.vectors.squared_distance(request.query(q), shaping_.mean, d);
                // How far <x, u_j> may be off in float32, as in products/logits.cpp.
                const double off = double(kFewFold / kernels.floats.few_lanes + 4) * kUnitRoundoff * request.length(q);
                double outside = square, length = 0, top = 0;
                for (int64_t j = 0; j < k; ++j) {
                    const double y = g[j] - shaping_.centre[j], at_least = std::max(std::fabs(y) - off, 0.0);
                    const double at_most = std::fabs(y) + off;
                    outside -= at_least * at_least;
                    length += shaping_.step[j] * at_most * at_most;
                    g[j] = y * shaping_.step[j];
                    top = std::max(top, std::fabs(g[j]));
                }
                const double step = std::max(top, 1e-300) / units;
                const double lost = digits_.place(i, g, step) * (1 + kNarrow);
                scale_[size_t(i)] = float(step);
                outside_[size_t(i)] = up(std::sqrt(std::max(outside, 0.0) + (2 * shaping_.skew + kWide) * square));
                along_[size_t(i)] = up(std::sqrt(length));
                // Digits; <y, u_j> times the coordinates of a row; directions that are not quite orthonormal; float32.
                const double away = std::sqrt(square), around = away + reach;
                slack_[size_t(i)] = lost * longest + off * std::sqrt(double(k)) * held +
                                    2 * shaping_.skew * away * reach + kNarrow * (around * around + away * held);
                half_square_[size_t(i)] = square / 2;
            }
        }
    });
}

Pruning::Work Pruning::work(int64_t tile) const {
    const auto left = [&] {
        Left l;
        l.tile = tile;
        l.lists = Buffer<int32_t>(slots_ * tile);
        l.count.assign(size_t(slots_), 0);
        return l;
    };
    return {Buffer<float>(tile), std::vector<uint8_t>(size_t(tile), 0), left(), left()};
}

CoordinateRows Pruning::coordinates(Buffer<float>& half, int64_t first, int R) const {
    for (int r = 0; r < R; ++r) {
        const float away = stats_.away[first + r];
        half[r] = 0.5f * away * away * float(1 - kNarrow);  // `away` is rounded up
    }
    if (prior_)
        for (int r = 0; r < R; ++r) {
            const double less = double(half[r]) - variance_ * prior_[first + r];
            half[r] = std::isinf(less) ? kNever : float(less - kNarrow * std::fabs(less));
        }
    return {shaping_.of_rows(first), shaping_.outside + first, shaping_.rounded + first, half.data(), R};
}

CoordinateQueries Pruning::queries() const {
    return {digits_.piece(0), scale_.data(), outside_.data(), along_.data(), least_.data()};
}

void Pruning::find_nearest(const Request& request, const std::vector<int64_t>& which, double width, int64_t nearest) {
    const int64_t wanted = nearest + kTried;
    struct Worker {
        Buffer<float> half, best;
        Buffer<int32_t> row;
    };
    const auto worker = [&] {
        return Worker{Buffer<float>(kMaxTileRows), Buffer<float>(slots_), Buffer<int32_t>(slots_)};
    };
    const auto nothing = [&] { return std::vector<Top>(size_t(count_), Top(wanted)); };
    const auto visit = [&](Worker& w, std::vector<Top>& tops, const Tile& t) {
        integers_.nearest(coordinates(w.half, t.first, t.R), queries(), w.best.data(), w.row.data());
        for (int64_t i = 0; i < count_; ++i) tops[size_t(i)].offer(double(w.best[i]), t.first + w.row[i]);
    };
    const Rows bytes{shaping_.coordinates, DType::u8, request.rows.n, kDirections};
    const Pieces pieces(request.rows.n, kMaxTileRows, request.threads, false);
    const auto shares = over_tiles(bytes, pieces, kMaxTileRows, worker, nothing, visit);
    in_shares(count_, count_ * wanted * request.rows.d, request.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t q = which[size_t(i)];
            Top all(wanted);
            for (const auto& share : shares) all.merge(share[size_t(i)]);
            std::vector<double> seen;  // logits of rows that the query sees, times sigma^2
            for (const Top::Entry& e : all.entries()) {
                const double log_prior = request.prior_at(q, e.row);
                if (log_prior != kUnseen)
                    seen.push_back(request.sigma[q] * request.sigma[q] * log_prior - 0.5 * request.distance(q, e.row));
            }
            std::sort(seen.rbegin(), seen.rend());
            double least = -std::numeric_limits<double>::infinity();  // every row is left
            if (!seen.empty() && int64_t(seen.size()) >= nearest)
                least = std::min(seen.front() - width * request.sigma[q] * request.sigma[q],
                                 seen[size_t(std::max<int64_t>(nearest, 1) - 1)]);
            least += half_square_[size_t(i)] - slack_[size_t(i)];
            least_[size_t(i)] = float(least - kNarrow * std::fabs(least));
        }
    });
}

void Pruning::find(Work& w, Left& left, int64_t first, int R, const std::vector<const uint8_t*>& bring) const {
    integers_.left(coordinates(w.half, first, R), queries(), left.lists.data(), left.tile, left.count.data(),
                   {bring.data(), int(bring.size()), rows_.d});
    left.first = first;
    int64_t total = 0;
    for (const int32_t count : left.count) total += count;
    left.most = double(total) > kMostLeft * double(R) * double(count_);
    std::fill_n(w.any.begin(), R, uint8_t(left.most));
    for (int64_t i = 0; i < count_ && !left.most; ++i)
        for (int r = 0; r < left.count[size_t(i)]; ++r) w.any[size_t(left.list(i)[r])] = 1;
    left.rows.clear();
    for (int r = 0; r < R; ++r)
        if (w.any[size_t(r)]) left.rows.push_back(static_cast<const uint8_t*>(rows_.row(first + r)));
}

const Pruning::Left& Pruning::over(Work& w, int64_t first, int R, int ahead) const {
    if (w.next.first == first)
        std::swap(w.now, w.next);
    else
        find(w, w.now, first, R, {});
    if (ahead > 0) find(w, w.next, first + R, ahead, w.now.rows);
    return w.now;
}

}  // namespace geodiff
