#include "shape.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../products/bounds.h"
#include "../products/digits.h"
#include "tiles.h"

namespace geodiff {
namespace {

constexpr int64_t kSample = 4096;                   // rows that the directions are found from
constexpr int kRounds = 2;                          // of the iteration, which begins with rows of the data
constexpr int64_t kGroup = 16;                      // directions that one thread improves at a time
constexpr int64_t kTile = 96;                       // a multiple of what the float32 products like: see FloatLayout
constexpr int64_t kManyColumns = 16 * kDirections;  // from which twice as many directions are worth their bytes
constexpr double kLeastStep = 1e-30;
constexpr double kRoom = 1.5;  // the largest coordinate held, in units of the sample's largest

// Directions one after the other, each taken out of those behind it; one that is a sum of the others becomes 0.
void orthonormalise(const VectorLoops& vectors, double* u, int64_t count, int64_t d, int threads) {
    std::vector<double> before;
    for (int64_t j = 0; j < count; ++j) before.push_back(vectors.length(u + j * d, d));
    for (int64_t j = 0; j < count; ++j) {
        double* mine = u + j * d;
        const double length = vectors.length(mine, d), factor = length > 1e-9 * before[size_t(j)] ? 1 / length : 0;
        for (int64_t k = 0; k < d; ++k) mine[k] *= factor;
        const int64_t behind = count - j - 1;
        in_shares(behind, 2 * behind * d, threads, [&](int64_t begin, int64_t end) {
            for (double* other = mine + (begin + 1) * d; other < mine + (end + 1) * d; other += d)
                vectors.add(-vectors.dot(mine, other, d), mine, d, other);
        });
    }
}

// |U U^T - 1| in the Frobenius norm, U the directions. Those that are 0 stand for nothing.
double skew(const Table& kernels, const Buffer<float>& directions, int64_t count, int64_t d, int threads) {
    Buffer<double> wide(count * d);
    for (int64_t i = 0; i < count * d; ++i) wide[i] = double(directions[i]);
    std::vector<double> square(static_cast<size_t>(count));
    in_shares(count, count * count * d, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            for (int64_t j = 0; j <= i; ++j) {
                const double product = kernels.vectors.dot(wide.data() + i * d, wide.data() + j * d, d);
                if (i == j && product == 0) continue;
                const double off = i == j ? product - 1 : product;
                square[size_t(i)] += (i == j ? 1 : 2) * off * off;
            }
    });
    double sum = 0;
    for (const double s : square) sum += s;
    return std::sqrt(sum) * (1 + 1e-9) + 1e-12;
}

// Vectors [count, d] as the float32 first product takes them.
template <class Number>
Buffer<float> packed(const Table& kernels, const Number* vectors, int64_t count, int64_t d) {
    const int64_t lanes = kernels.floats.lanes;
    Buffer<float> out((count + lanes - 1) / lanes * lanes * d, true);
    for (int64_t j = 0; j < count; ++j)
        for (int64_t k = 0; k < d; ++k) out[j / lanes * lanes * d + k * lanes + j % lanes] = float(vectors[j * d + k]);
    return out;
}

}  // namespace

// Products with all directions, which are exact: of each direction what 24 bits hold is taken for it.
class Along {
  public:
    // Rounds `directions`.
    Along(const Table& kernels, Buffer<float>& directions, int64_t count, int64_t d)
        : kernels_(kernels),
          integers_(*kernels.integers_for(kTogether)),
          parts_(integers_.layout.digits(kBits)),
          d_(d),
          units_(size_t(count)),
          packed_(size_t(count / kTogether)) {
        // What float32 holds, too.
        const double largest = std::min(largest_balanced(integers_.layout.digit_bits, parts_) - 1, 0x1p23);
        const int64_t vectors = kTogether * parts_, most = integers_.layout.dot_group;
        groups_ = (vectors + most - 1) / most;
        group_ = (vectors + groups_ - 1) / groups_;
        for (int64_t j = 0; j < count; ++j) {
            float* u = directions.data() + j * d;
            double top = 0;
            for (int64_t k = 0; k < d; ++k) top = std::max(top, std::fabs(double(u[k])));
            // A power of two, so that float32 holds its multiples.
            int exponent = 0;
            std::frexp(top / largest, &exponent);
            const double unit = units_[size_t(j)] = std::ldexp(1, exponent);
            Packed& mine = packed_[size_t(j / kTogether)];
            if (j % kTogether == 0) {
                mine.digits = Buffer<char>(groups_ * group_ * padded(d) * integers_.layout.digit_bits / 8, true);
                mine.total.assign(size_t(groups_ * group_), 0);
            }
            std::vector<double> rounded(static_cast<size_t>(d));
            for (int64_t k = 0; k < d; ++k) u[k] = float(rounded[size_t(k)] = unit * std::nearbyint(u[k] / unit));
            integers_.place(rounded.data(), d, {unit, nullptr, parts_, j % kTogether * parts_, nullptr},
                            {mine.digits.data(), mine.total.data(), group_, padded(d)});
        }
    }

    struct Work {
        Buffer<double> sums, along;  // along[j, r] = <u_j, v_r>, rows kTile apart
    };
    Work work() const {
        return {Buffer<double>(groups_ * group_ * kTile), Buffer<double>(int64_t(units_.size()) * kTile)};
    }
    void operator()(const Rows& rows, int64_t first, int R, Work& work) const {
        const double base = double(int64_t(1) << integers_.layout.digit_bits);
        for (size_t i = 0; i < packed_.size(); ++i) {
            const Packed& mine = packed_[i];
            integers_.dot(static_cast<const uint8_t*>(rows.row(first)), d_, {}, R,
                          {int(groups_), int(group_), padded(d_), mine.digits.data(), mine.total.data()}, d_,
                          work.sums.data(), kTile, nullptr);
            for (int64_t j = 0; j < kTogether; ++j) {
                const int64_t at = int64_t(i) * kTogether + j;
                const DigitSums sums{work.sums.data() + j * parts_ * kTile, kTile, parts_, units_[size_t(at)], base};
                kernels_.join_digits(sums, nullptr, 0, 0, R, work.along.data() + at * kTile);
            }
        }
    }

  private:
    static constexpr int kBits = 24;
    static constexpr int64_t kTogether = 64;  // whose products with a tile are in L2 together
    static_assert(kDirections % kTogether == 0);
    struct Packed {
        Buffer<char> digits;
        std::vector<int64_t> total;
    };
    const Table& kernels_;
    const IntegerProducts& integers_;
    const int parts_;
    const int64_t d_;
    int64_t groups_ = 0, group_ = 0;
    std::vector<double> units_;
    std::vector<Packed> packed_;
};

namespace {

Buffer<char> evenly(const Rows& rows, int64_t count) {
    const int64_t bytes = rows.d * item_size(rows.dtype);
    Buffer<char> out(count * bytes);
    for (int64_t i = 0; i < count; ++i)
        std::memcpy(out.data() + i * bytes, rows.row(rows.n * i / count), size_t(bytes));
    return out;
}

// -log(-log u) of a number u that belongs to the row.
double gumbel(int64_t row) {
    uint64_t h = (uint64_t(row) + 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
    return -std::log(-std::log((double((h ^ (h >> 31)) >> 12) + 0.5) * 0x1p-52));
}

}  // namespace

Coordinates::Coordinates(int64_t n, int64_t d)
    : n_(n),
      count_(d >= kManyColumns ? 2 * kDirections : kDirections),
      directions_(count_ * d),
      log_size_(n),
      chance_(n),
      unsaid_(n),
      outside_(n),
      rounded_(n),
      coordinates_(n * count_),
      centre_(count_),
      step_(count_) {}

template <class Self, class Visit>
void Coordinates::each_part(Self& self, Visit&& visit) {
    const auto array = [&](auto& buffer) { visit(buffer.data(), size_t(buffer.size()) * sizeof(buffer[0])); };
    array(self.directions_), array(self.log_size_), array(self.chance_), array(self.coordinates_);
    array(self.unsaid_), array(self.outside_), array(self.rounded_);
    array(self.centre_), array(self.step_);
    visit(&self.left_, sizeof self.left_), visit(&self.mean_square_, sizeof self.mean_square_);
    visit(&self.skew_, sizeof self.skew_);
}

Coordinates::Coordinates(int64_t n, int64_t d, const char* from) : Coordinates(n, d) {
    each_part(*this, [&](void* to, size_t size) {
        std::memcpy(to, from, size);
        from += size;
    });
}

int64_t Coordinates::bytes(int64_t n, int64_t d) {
    const int64_t count = Coordinates(0, d).count_, floats = count * d + 5 * n, doubles = 2 * count + 3;
    return floats * int64_t(sizeof(float)) + n * count + doubles * int64_t(sizeof(double));
}

void Coordinates::write(char* to) const {
    each_part(*this, [&](const void* from, size_t size) {
        std::memcpy(to, from, size);
        to += size;
    });
}

Coordinates::Coordinates(const Table& kernels, const Rows& rows, const Stats& stats, const double* mean, int threads)
    : Coordinates(rows.n, rows.d) {
    mean_square_ = stats.mean_square;
    const int64_t count = std::min(kSample, rows.n);
    const Buffer<char> copied = evenly(rows, count);
    const Rows sample{copied.data(), rows.dtype, count, rows.d};
    iterate(kernels, sample, mean, threads);
    const Along along_all(kernels, directions_, count_, rows.d);
    skew_ = skew(kernels, directions_, count_, rows.d, threads);
    for (int64_t j = 0; j < count_; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < rows.d; ++k) sum += double(directions_[j * rows.d + k]) * mean[k];
        centre_[j] = sum;
    }
    measure(along_all, sample);
    fill(along_all, rows, stats, threads);
}

Shaping Coordinates::view(const double* mean) const {
    Shaping s;
    s.directions = directions_.data();
    s.coordinates = coordinates_.data();
    if (count_ > kDirections) s.beyond = coordinates_.data() + n_ * kDirections;
    s.centre = centre_.data();
    s.step = step_.data();
    s.log_size = log_size_.data();
    s.chance = chance_.data();
    s.unsaid = unsaid_.data();
    s.outside = outside_.data();
    s.rounded = rounded_.data();
    s.mean = mean;
    s.skew = skew_;
    s.left = left_;
    s.mean_square = mean_square_;
    return s;
}

// u_j <- sum_i <v_i - mean, u_j> (v_i - mean), made orthonormal, kRounds times.
void Coordinates::iterate(const Table& kernels, const Rows& sample, const double* mean, int threads) {
    const int64_t d = sample.d, dp = padded(d);
    Buffer<double> u(count_ * d);
    for (int64_t j = 0; j < count_; ++j) {
        double* mine = u.data() + j * d;
        for (int64_t k = 0; k < d; ++k) mine[k] = -mean[k];
        kernels.axpy(1, sample.row(sample.n * j / count_), sample.dtype, d, mine);
    }
    orthonormalise(kernels.vectors, u.data(), count_, d, threads);
    const std::vector<float> keep(size_t(kGroup), 1.0f);
    for (int round = 0; round < kRounds; ++round) {
        one_by_one(count_ / kGroup, threads, [&](int64_t group) {
            double* mine = u.data() + group * kGroup * d;
            const Buffer<float> vectors = packed(kernels, mine, kGroup, d);
            Buffer<double> along(kGroup * kTile);
            Buffer<float> weights(kGroup * kTile), sums(kGroup * dp, true);
            double centre[kGroup], total[kGroup] = {};
            for (int64_t j = 0; j < kGroup; ++j) centre[j] = kernels.vectors.dot(mine + j * d, mean, d);
            for (int64_t first = 0; first < sample.n; first += kTile) {
                const int R = int(std::min(kTile, sample.n - first));
                kernels.dot_f32(sample.row(first), sample.dtype, d, R, vectors.data(), int(kGroup), along.data(),
                                kTile);
                for (int64_t j = 0; j < kGroup; ++j)
                    for (int r = 0; r < R; ++r) {
                        const double y = along[j * kTile + r] - centre[j];
                        weights[j * kTile + r] = float(y);
                        total[j] += y;
                    }
                kernels.sum_f32(sample.row(first), sample.dtype, d, R, weights.data(), kTile, keep.data(), int(kGroup),
                                sums.data(), dp, nullptr);
            }
            for (int64_t j = 0; j < kGroup; ++j)
                for (int64_t k = 0; k < d; ++k) mine[j * d + k] = double(sums[j * dp + k]) - total[j] * mean[k];
        });
        orthonormalise(kernels.vectors, u.data(), count_, d, threads);
    }
    for (int64_t i = 0; i < count_ * d; ++i) directions_[i] = float(u[i]);
}

// How far the sample reaches along each direction, and what is left.
void Coordinates::measure(const Along& along_all, const Rows& sample) {
    Along::Work work = along_all.work();
    const Buffer<double>& along = work.along;
    std::vector<double> largest(size_t(count_), 0.0), square(size_t(count_), 0.0);
    for (int64_t first = 0; first < sample.n; first += kTile) {
        const int R = int(std::min(kTile, sample.n - first));
        along_all(sample, first, R, work);
        for (int64_t j = 0; j < count_; ++j)
            for (int r = 0; r < R; ++r) {
                const double c = along[j * kTile + r] - centre_[j];
                largest[size_t(j)] = std::max(largest[size_t(j)], std::fabs(c));
                square[size_t(j)] += c * c;
            }
    }
    left_ = mean_square_;
    for (int64_t j = 0; j < count_; ++j) {
        step_[j] = std::max(kRoom * largest[size_t(j)] / 127, kLeastStep);
        left_ -= square[size_t(j)] / double(sample.n);
    }
    left_ = std::max(left_, 1e-3 * mean_square_);  // the sample's variance may exceed that of all rows
}

void Coordinates::fill(const Along& along_all, const Rows& rows, const Stats& stats, int threads) {
    const auto visit = [&](Along::Work& work, int, const Tile& t) {
        along_all(rows, t.first, t.R, work);
        const Buffer<double>& along = work.along;
        for (int r = 0; r < t.R; ++r) {
            const int64_t row = t.first + r;
            const double away = double(stats.away[row]);
            double outside = away * away, rounded = 0, square = 0;
            for (int64_t j = 0; j < count_; ++j) {
                const double c = along[j * kTile + r] - centre_[j];
                uint8_t& byte = coordinates_[(j / kDirections * rows.n + row) * kDirections + j % kDirections];
                byte = uint8_t(std::clamp(c / step_[j] + 128.5, 0.0, 255.0));
                outside -= c * c;
                if (step_[j] <= kLeastStep) continue;  // along a direction that is 0
                const double lost = c / step_[j] - (double(byte) - 128);
                rounded += step_[j] * lost * lost;
                square += step_[j] * step_[j] * lost * lost;
            }
            // Directions that are not quite orthonormal, and float32.
            outside_[row] = float(std::sqrt(std::max(outside, 0.0) + (skew_ * 2 + 1e-6) * away * away) * (1 + 1e-6));
            rounded_[row] = float(std::sqrt(rounded) * (1 + 1e-6));
            unsaid_[row] = outside_[row] * outside_[row] + float(square);
            // What a row adds to the error of r is as a rule |v - r| times the length that is left of it: rows are
            // drawn in proportion, so that none that is drawn counts for much more than another.
            log_size_[row] = float(0.5 * std::log((away * away + mean_square_) * (std::max(outside, 0.0) + left_)));
            chance_[row] = log_size_[row] + float(gumbel(row));
        }
    };
    over_tiles(
        rows, Pieces(rows.n, kTile, threads, false), kTile, [&] { return along_all.work(); }, [] { return 0; }, visit);
}

}  // namespace geodiff
